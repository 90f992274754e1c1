"""Prompt tuning: trained vectors before the embedded tokens of a frozen model. Lester et al. 2021.

An encoder-decoder reads them before its source, as there (T5), others before their tokens, a ViT before its class token
(Jia et al. 2022, without a position). They stand at positions 0, 1, ... and so use up context; what the text's tokens and
heads see stays in place, since the places of the prompt are dropped from the last hidden states.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from minillm.errors import UserError
from minillm.models.contract import Batch, Model, Output
from minillm.params import Params, ParamSpec, Specs, flatten, leaf_key, unflatten
from minillm.tuning.adding import adding
from minillm.tuning.contract import Tuning

FREQUENT = 5000  # rows of the vocabulary among which a prompt begins; SentencePiece lists frequent pieces first
FILLS = {"tokens": 0, "token_types": 0, "mask": True}  # what stands at the prompt's places of a row
SOURCE_FILLS = {"source": 0, "source_mask": True}


def prompt_tuning(length: int, heads: Sequence[str] = ()) -> Tuning:
    """`length` vectors [length, model], which begin as copies of embeddings drawn from the first 5,000 of the vocabulary.

    Lester et al. 2021, section 3.2: better than random ones unless the model is very large. A model without a vocabulary
    starts from a normal of 0.02. Raises: UserError where the model embeds nothing, where a batch is packed or carried
    on, or where prompt and row do not fit into the context.
    """

    def added(table: Specs) -> Specs:
        first = next((table[path] for path in ("embedding/table", "patch/kernel") if path in table), None)
        if first is None:
            raise UserError("the model embeds no tokens or patches", "tuning.method", "use another method")
        return {"prompt/table": ParamSpec((length, first.shape[-1]), (None, "model"))}

    init_rows, specs = adding(added, heads)

    def init(params, key):
        trainable, frozen, extra = init_rows(params, key)
        if "embedding" in params:
            table = params["embedding"]["table"]
            known = min(len(table), FREQUENT)
            drawn = jax.random.choice(leaf_key(key, "prompt"), known, (length,), replace=length > known)
            trainable = trainable | {"prompt": {"table": table[drawn]}}
        return trainable, frozen, extra

    attach = lambda trainable, frozen: unflatten(flatten(frozen) | flatten(trainable))
    return Tuning(init, specs, attach, wrap=wrap, wrap_module=lambda *pair: wrap_module(*pair, length))


def wrap(model: Model) -> Model:
    """The model on rows with the prompt of params["prompt"] before them; hidden states are those of the row alone.

    `embed` gives prompt and row. What is captured keeps the places of the prompt.
    """

    def embed(params: Params, batch: Batch):
        check(batch, len(params["prompt"]["table"]), model.config)
        return embed_prompted(model.embed, params, batch)

    def apply(params: Params, batch: Batch, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
        length = len(params["prompt"]["table"])
        if carry is not None:
            raise UserError("a prompt stands before whole rows, not between segments", "data.packing", "use 'stream'")
        x = embed(params, batch) if embeddings is None else embeddings
        output = model.apply(params, grow(batch, length), embeddings=x, key=key, capture=capture)
        return output if "source" in batch else output._replace(hidden=output.hidden[:, length:])

    return model._replace(embed=embed, apply=apply)


def embed_prompted(embed, params: Params, batch: Batch) -> Array | dict[str, Array]:
    """What the model's own `embed` gives for prompt and row: the prompt is looked up like words, positions and all."""
    vectors = params["prompt"]["table"]
    if "images" in batch:
        x = embed(params, batch)
        first = jnp.broadcast_to(vectors.astype(x.dtype), (len(x), *vectors.shape))
        return jnp.concatenate([first, x], axis=1)
    name = "source" if "source" in batch else "tokens"
    words = jnp.broadcast_to(jnp.arange(len(vectors)), (len(batch[name]), len(vectors)))
    first = embed(params | {"embedding": {"table": vectors}}, {name: words})
    rest = embed(params, grow(batch, len(vectors)))
    join = lambda first, rest: jnp.concatenate([first, rest[:, len(vectors) :]], axis=1)
    return rest | {name: join(first[name], rest[name])} if isinstance(rest, dict) else join(first, rest)


def grow(batch: Batch, length: int) -> dict[str, Any]:
    """The batch with `length` visible places before every row that the prompt stands before (an image has none)."""
    fills = SOURCE_FILLS if "source" in batch else FILLS
    pad = lambda leaf, value: jnp.pad(leaf, ((0, 0), (length, 0)), constant_values=value)
    grown = {name: pad(leaf, fills[name]) if name in fills else leaf for name, leaf in batch.items()}
    if "segments" in batch:  # a row with padding before it: the prompt belongs to the row
        first = jnp.repeat(jnp.asarray(batch["segments"])[:, -1:], length, axis=1)
        grown["segments"] = jnp.concatenate([first, batch["segments"]], axis=1)
    if "positions" in batch:
        first = jnp.broadcast_to(jnp.arange(length), (len(batch["positions"]), length))
        grown["positions"] = jnp.concatenate([first, batch["positions"] + length], axis=1)
    return grown


def check(batch: Batch, length: int, config: Any) -> None:
    """Raises: UserError for packed rows, and for rows that leave the prompt no room."""
    packed = "segments" in batch and "mask" not in batch  # a mask says that each row is one text
    if packed or "reset" in batch:
        raise UserError("a prompt stands before one text, not before packed ones", "data.packing", "use 'stream'")
    row = batch.get("source", batch.get("tokens"))
    if row is not None and row.shape[1] + length > config.context:
        raise UserError(
            f"a prompt of {length} and a row of {row.shape[1]} tokens do not fit into the context of {config.context}",
            "tuning.prompt_length, data.length",
            "make one of them smaller, or model.context larger",
        )


@dataclass(frozen=True)
class Prompted:
    """A model's module for generation, whose carry has read the prompt: prefill and decoding go on plainly.

    Its functions take a config whose context is the room beside the prompt.
    """

    module: Any
    length: int

    def __getattr__(self, name: str):
        return getattr(self.module, name)

    def init_carry(self, params: Params, batch: Batch, config: Any, length: int) -> Any:
        """The module's carry for `length` tokens more than the prompt, with the prompt read."""
        config = replace(config, context=config.context + self.length)
        embed = lambda params, batch: self.module.embed(params, batch, config)
        if "source" in batch:
            source = {name: leaf for name, leaf in batch.items() if name in SOURCE_FILLS}
            x = embed_prompted(embed, params, source)["source"]
            return self.module.init_carry(params, grow(source, self.length), config, length, source=x)
        if getattr(config, "memory", config.context) < config.context:
            message = f"a memory of {config.memory} tokens forgets the prompt within a context of {config.context}"
            raise UserError(message, "model.memory", "make it as long as the context")
        none = {"tokens": jnp.zeros((len(batch["tokens"]), 0), jnp.int32)}
        carry = self.module.init_carry(params, batch, config, length + self.length)
        words, x = grow(none, self.length), embed_prompted(embed, params, none)
        return self.module.apply(params, words, config, embeddings=x, carry=carry).carry


def wrap_module(module: Any, config: Any, length: int) -> tuple[Any, Any]:
    """(module, config) for generation after a prompt of `length`; a model that has no context, as ViT, has no such."""
    if "context" not in {field.name for field in fields(config)}:
        return module, config
    if config.context <= length:
        message = f"a prompt of {length} fills the context of {config.context}"
        raise UserError(message, "tuning.prompt_length", "make it smaller, or model.context larger")
    return Prompted(module, length), replace(config, context=config.context - length)
