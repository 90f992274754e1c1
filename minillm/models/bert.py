"""BERT: a stack of bidirectional self-attention blocks that is pretrained to fill in masked words.

Devlin et al. 2019. A row reads [class] A [separator] B [separator]; every position sees every other, so that the hidden
state of a word depends on both sides of it, and that of the class token on the whole row. Heads on top are functions
plus rows of the table; `Config.tasks` says which rows there are. What the paper leaves open (pooler, LayerNorm of the
embeddings, the masked-LM head's own layer) is as in the authors' code. Deviations: a normal initializer, not a truncated
one; one dropout rate for attention weights and hidden states (theirs are equal). position = "rotary" makes it a RoFormer
(Su et al. 2021).

batch: tokens [batch, length] | mask [batch, length], False at padding | token_types [batch, length], 0 for A and 1 for B
(the paper's segment ids; `segments` means packed documents here, as for GPT) | positions [batch, length]
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from minillm.models.contract import Batch, Output
from minillm.nn import attention, dropout, embedding, feedforward, linear, norm, position
from minillm.nn.adapter import adapt
from minillm.nn.layers import run_layers
from minillm.params import Params, ParamSpec, Specs, prefix, stack, widen

CAPTURES = ("attention", "hidden")
EPSILON = 1e-12  # of every LayerNorm; the published weights were trained with it
POOLED = {"pool", "next_sentence", "classify"}  # tasks that read the class token through the pooler
Hidden = Float[Array, "batch length model"]
Keys = Key[Array, "batch"] | None


@dataclass(frozen=True)
class Config:
    """BERT's own settings; `vocabulary` comes from the tokenizer. The defaults are BERT-mini (Turc et al. 2019)."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    vocabulary: int
    context: int = 128  # longest row, in tokens
    layers: int = 4
    width: int = 256
    heads: int = 4
    hidden: int | None = None  # feed-forward width; None: 4 * width
    position: Literal["learned", "rotary"] = "learned"
    token_types: int = 2  # sentences A and B
    tasks: tuple[Literal["pool", "masked", "next_sentence", "classify", "tag", "span"], ...] = (
        "masked",
        "next_sentence",
    )
    relations: int = 2  # classes of "next_sentence": 3 for StructBERT's next, previous, random
    labels: int = 2  # classes of "classify" and "tag"
    marks: int = 0  # tokens whose states "classify" reads side by side (Soares et al. 2019); 0: the class token, pooled
    dropout: float = 0.1
    init_scale: float = 0.02  # standard deviation of initial tables and kernels; try 0.02 * sqrt(768 / width)
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute each block in the backward pass: less memory, one more forward
    scan: bool | None = None  # one compiled block for all layers; None: from 13 layers on

    def __post_init__(self):
        counts = ("vocabulary", "context", "layers", "width", "heads", "token_types", "relations", "labels")
        for name in (*counts, "hidden"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.marks < 0:
            raise ValueError(f"marks must not be negative, got {self.marks}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.width} % {self.heads} = {self.width % self.heads}")
        if self.position == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.width // self.heads}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks names one twice: {', '.join(self.tasks)}")
        if not self.init_scale > 0.0:
            raise ValueError(f"init_scale must be above 0, got {self.init_scale}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def scans(self) -> bool:
        """Unrolled layers run faster, scanned ones compile faster (see gpt.py for numbers)."""
        return self.layers > 12 if self.scan is None else self.scan


def param_specs(config: Config) -> Specs:
    """The parameter table: embeddings, blocks and the rows of the tasks asked for."""
    width, layer_norm = config.width, norm.layer_norm_specs(config.width)
    block = prefix(attention.attention_specs(width, width), "attention") | prefix(layer_norm, "attention_norm")
    block |= prefix(feedforward.feedforward_specs(width, config.hidden or 4 * width), "feedforward")
    block |= prefix(layer_norm, "feedforward_norm")
    specs = prefix(embedding.embedding_specs(config.vocabulary, width), "embedding")
    if config.position == "learned":
        specs |= prefix(position.learned_position_specs(config.context, width), "position")
    specs |= {"token_type/table": ParamSpec((config.token_types, width), (None, "model"))}
    specs |= prefix(layer_norm, "embedding_norm") | prefix(stack(block, config.layers), "blocks")
    return widen(specs | head_specs(config), config.init_scale / 0.02)


def head_specs(config: Config) -> Specs:
    """Rows of the heads. The masked-LM decoder is the embedding itself, with a bias of its own."""
    dense = lambda outputs, name: prefix(linear.linear_specs(config.width, outputs, ("model", None)), name)
    specs = dense(config.width, "pooler") if pooled(config) else {}
    if "masked" in config.tasks:
        specs |= dense(config.width, "masked/transform") | prefix(norm.layer_norm_specs(config.width), "masked/norm")
        specs |= {"masked/bias": ParamSpec((config.vocabulary,), ("vocab",), "zeros")}
    outputs = {"next_sentence": config.relations, "classify": config.labels, "tag": config.labels, "span": 2}
    for task, number in outputs.items():
        specs |= dense(number, task) if task in config.tasks else {}
    if config.marks and "classify" in config.tasks:
        specs |= prefix(linear.linear_specs(config.marks * config.width, config.labels, (None, None)), "classify")
    return specs


def pooled(config: Config) -> bool:
    """Whether some task reads the class token through the pooler."""
    return bool(POOLED & set(config.tasks) - ({"classify"} if config.marks else set()))


class Scope(NamedTuple):
    """What every block of one call sees besides its parameters and its input."""

    positions: Int[Array, "batch length"]
    mask: Bool[Array, "batch 1 length length"] | None
    capture: tuple[str, ...]


def embed(params: Params, batch: Batch, config: Config) -> Hidden:
    """Token + position (unless rotary) + token type, before their LayerNorm: a change here changes a token's embedding."""
    tokens, dtype = batch["tokens"], jnp.dtype(config.dtype)
    check_length(tokens.shape[1], config)
    x = embedding.embed_tokens(params["embedding"], tokens, dtype)
    if config.position == "learned":
        x = x + embedding.embed_tokens(params["position"], positions_of(batch, tokens.shape[1]), dtype)
    return x + embedding.embed_tokens(params["token_type"], batch.get("token_types", jnp.zeros_like(tokens)), dtype)


def positions_of(batch: Batch, length: int) -> Int[Array, "rows length"]:
    """One row 0, 1, 2, ... for all, unless the batch has rows of its own."""
    return batch.get("positions", jnp.arange(length, dtype=jnp.int32)[None])


def check_length(length: int, config: Config) -> None:
    """Raises: ValueError for a row longer than the context (indexing the position table would clamp it silently)."""
    if length > config.context:
        raise ValueError(f"a row of {length} tokens is longer than the context of {config.context}")


def visible(batch: Batch, rows: int, length: int) -> Bool[Array, "batch 1 length length"] | None:
    """Who may look at whom: nobody at padding, and none at another packed document."""
    mask = None
    if "mask" in batch:
        mask = jnp.broadcast_to(attention.padding_mask(batch["mask"]), (rows, 1, length, length))
    if "segments" in batch:
        together = attention.segment_mask(batch["segments"])
        mask = together if mask is None else mask & together
    return mask


def self_attention(params: Params, x: Hidden, config: Config, scope: Scope, keys: Keys):
    """x -> (attended [batch, length, model], captured weights). Devlin et al. 2019, section 3: no causal mask."""
    query, key, value = attention.project_heads(params, x, config.heads)
    if config.position == "rotary":
        query, key = position.rotate(query, scope.positions), position.rotate(key, scope.positions)
    key, value, mask = attention.with_prefix(params.get("prefix"), key, value, scope.mask)
    attended = attention.dot_product_attention(query, key, value, mask, keys=keys, rate=config.dropout)
    captured = {"attention": attention.attention_weights(query, key, mask)} if "attention" in scope.capture else {}
    return linear.linear(params["output"], attention.merge_heads(attended)), captured


def block(params: Params, x: Hidden, config: Config, scope: Scope, keys: Keys):
    """One block, post-norm: x = norm(x + attention(x)), then x = norm(x + feedforward(x))."""
    attended, captured = self_attention(params["attention"], x, config, scope, dropout.fold_keys(keys, 0))
    attended = dropout.dropout(attended, dropout.fold_keys(keys, 1), config.dropout)
    attended = adapt(params["attention"].get("adapter"), attended)
    x = norm.layer_norm(params["attention_norm"], x + attended, EPSILON)
    transformed = feedforward.feedforward(params["feedforward"], x, "gelu_exact")
    transformed = dropout.dropout(transformed, dropout.fold_keys(keys, 2), config.dropout)
    transformed = adapt(params["feedforward"].get("adapter"), transformed)
    x = norm.layer_norm(params["feedforward_norm"], x + transformed, EPSILON)
    return x, captured | ({"hidden": x} if "hidden" in scope.capture else {})


def init_carry(params: Params, batch: Batch, config: Config, length: int) -> None:
    """A bidirectional model has nothing to carry: what comes later changes what came before."""


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """tokens [batch, length] -> hidden states [batch, length, model]; see `models/contract.py`.

    `key` turns dropout on (and needs batch["index"]). `capture` may name "attention" [layers, batch, heads, length,
    keys] and "hidden" [layers, batch, length, model]. Raises: ValueError for another capture, a carry or a long row.
    """
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"unknown capture {sorted(unknown)}, known: {CAPTURES}")
    if carry is not None:
        raise ValueError("BERT is bidirectional and continues nothing: carry must be None")
    x = embed(params, batch, config) if embeddings is None else embeddings
    check_length(x.shape[1], config)
    keys = None if key is None or config.dropout == 0.0 else dropout.example_keys(key, batch["index"])
    x = norm.layer_norm(params["embedding_norm"], x, EPSILON)
    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)
    positions = jnp.broadcast_to(positions_of(batch, x.shape[1]), x.shape[:2])
    scope = Scope(positions, visible(batch, *x.shape[:2]), tuple(capture))

    def run(layer_params, x, layer, state):
        x, captured = block(layer_params, x, config, scope, dropout.fold_keys(keys, 3 + layer))
        return x, state, captured

    x, _, captured = run_layers(run, params["blocks"], x, scan=config.scans, remat=config.remat)
    return Output(x, None, captured)


def logits(params: Params, hidden: Hidden) -> Float[Array, "batch length vocab"]:
    """Masked-LM scores: LayerNorm(GELU(hidden W + b)), then the transposed embedding and a bias."""
    rows = _rows(params, "masked")
    x = feedforward.ACTIVATIONS["gelu_exact"](linear.linear(rows["transform"], hidden))
    x = norm.layer_norm(rows["norm"], x, EPSILON)
    return embedding.unembed(params["embedding"], x) + rows["bias"].astype(x.dtype)


def pool(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch model"]:
    """tanh(W h + b) of the class token at index 0."""
    return jnp.tanh(linear.linear(_rows(params, "pooler"), hidden[:, 0]))


def next_sentence(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch relations"]:
    """Scores of how sentence B stands to sentence A (section 3.1, task 2)."""
    return linear.linear(_rows(params, "next_sentence"), pool(params, hidden, config))


def classify(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch labels"]:
    """Scores of the row's label, with dropout on what they are read from: the pooled class token (section 4.1).

    With `marks`, `hidden` holds those tokens alone, [batch, marks, model], and their states stand side by side.
    """
    read = hidden.reshape(len(hidden), -1) if config.marks else pool(params, hidden, config)
    read = dropout.dropout(read, dropout.fold_keys(keys, 1), config.dropout)
    return linear.linear(_rows(params, "classify"), read)


def tag(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch length labels"]:
    """Scores of each token's label (section 5.3), with dropout on the hidden states."""
    hidden = dropout.dropout(hidden, dropout.fold_keys(keys, 1), config.dropout)
    return linear.linear(_rows(params, "tag"), hidden)


def span(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch length 2"]:
    """Scores of each token as an answer's first [..., 0] and last [..., 1] (section 4.2)."""
    return linear.linear(_rows(params, "span"), hidden)


HEADS = {"pool": pool, "next_sentence": next_sentence, "classify": classify, "tag": tag, "span": span}


def _rows(params: Params, name: str) -> Params:
    if name not in params:
        raise ValueError(f"the table has no rows for the head {name!r}: name the task in model.tasks")
    return params[name]
