"""GPT-2: gpt2 and its kin under transformers' GPT2... names.

Their layers are `Conv1D`, whose weights already are [inputs, outputs]; query, key and value are one tensor, side by side.
The causal mask (attn.bias) and the number that stands for minus infinity (attn.masked_bias) are buffers in old files.
"""

from collections.abc import Iterable
from typing import Any

from minillm.interop.huggingface.names import PLAIN, Row, Table, dense, norm, row
from minillm.interop.huggingface.settings import THEIR_ACTIVATIONS, Settings, refuse, refuse_classifier
from minillm.models.gpt import Config

KIND, PREFIX, BARE = "gpt", "transformer.", "GPT2Model"
CLASSES = ("GPT2LMHeadModel", BARE)
BUFFERS = {"*h.[0-9]*.attn.bias": "the causal mask", "*h.[0-9]*.attn.masked_bias": "the score of what is masked"}


def read_config(settings: Settings, names: Iterable[str]) -> Config:
    """config.json -> our Config."""
    settings.architecture(CLASSES)
    for key, supported in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False),
                           ("reorder_and_upcast_attn", False), ("add_cross_attention", False)):  # fmt: skip
        settings.only(key, supported)
    config = Config(
        vocabulary=settings.take("vocab_size"), context=settings.take("n_positions"), layers=settings.take("n_layer"),
        width=settings.take("n_embd"), heads=settings.take("n_head"), hidden=settings.take("n_inner", default=None),
        activation=settings.activation("activation_function", "gelu_new"),
        tied=settings.take("tie_word_embeddings", bool, True),
        dropout=settings.rate("resid_pdrop", "embd_pdrop", "attn_pdrop", default=0.1),
        norm_epsilon=settings.number("layer_norm_epsilon", 1e-5),
    )  # fmt: skip
    settings.only("n_ctx", config.context)
    settings.finish(("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
                     "summary_use_proj"))  # fmt: skip
    return config


def write_config(config: Config) -> dict[str, Any]:
    """Our Config -> config.json. Raises: UserError for what GPT-2 has not."""
    refuse_classifier(config.tasks)
    wanted = {"norm": "layer", "placement": "pre", "position": "learned", "gated": False, "bias": True}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            refuse(f"a GPT with model.norm = 'layer' and model.{name} = {getattr(config, name)!r}",
                   f"GPT-2 has {value!r}; Llama's has norm = 'rms', position = 'rotary', gated = true")  # fmt: skip
    return {
        "model_type": "gpt2", "architectures": [CLASSES[0]], "vocab_size": config.vocabulary,
        "n_positions": config.context, "n_layer": config.layers, "n_embd": config.width, "n_head": config.heads,
        "n_inner": config.hidden, "activation_function": THEIR_ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_epsilon, "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout, "embd_pdrop": config.dropout, "attn_pdrop": config.dropout,
    }  # fmt: skip


def table(config: Config) -> Table:
    """The name table."""
    layer, heads = f"{PREFIX}h.@", ("query", "key", "value")
    fused = lambda leaf: tuple(f"blocks/attention/{name}/{leaf}" for name in heads)
    rows = [
        row(f"{PREFIX}wte.weight", "embedding/table"),
        row(f"{PREFIX}wpe.weight", "position/table"),
        *norm(f"{layer}.ln_1", "blocks/attention_norm"),
        Row(f"{layer}.attn.c_attn.weight", fused("kernel")),
        Row(f"{layer}.attn.c_attn.bias", fused("bias")),
        *dense(f"{layer}.attn.c_proj", "blocks/attention/output", form=PLAIN),
        *norm(f"{layer}.ln_2", "blocks/feedforward_norm"),
        *dense(f"{layer}.mlp.c_fc", "blocks/feedforward/up", form=PLAIN),
        *dense(f"{layer}.mlp.c_proj", "blocks/feedforward/down", form=PLAIN),
        *norm(f"{PREFIX}ln_f", "final_norm"),
    ]
    rows += () if config.tied else dense("lm_head", "head", bias=False)
    copies = {"lm_head.weight": f"{PREFIX}wte.weight"} if config.tied else {}
    return Table(tuple(rows), PREFIX, copies, BUFFERS)
