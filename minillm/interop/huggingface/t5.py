"""T5: versions 1.0 and 1.1 under transformers' T5ForConditionalGeneration names.

The distances' table stands in the first block of either stack and serves all of its blocks, as ours does. Version 1.0
ties the output layer to the embedding and divides by sqrt(width); 1.1 does neither: no other mixture is supported.
"""

from collections.abc import Iterable
from typing import Any

from minillm.errors import UserError
from minillm.interop.huggingface.names import Table, dense, norm, row
from minillm.interop.huggingface.settings import ACTIVATIONS, THEIR_ACTIVATIONS, Settings
from minillm.models.t5 import Config

KIND, PREFIX, BARE = "t5", "", ""
CLASSES = ("T5ForConditionalGeneration", "T5Model", "T5WithLMHeadModel")  # the last is the first's name of 2019
SHARED = "shared.weight"
BUFFERS = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": "unused, in the oldest files"}


def read_config(settings: Settings, names: Iterable[str]) -> Config:
    """config.json -> our Config; the context is n_positions, or 512: T5 itself has no limit."""
    settings.architecture(CLASSES)
    settings.only("is_encoder_decoder", True)
    settings.only("is_decoder", False)
    activation, gated = _activation(settings)
    tied = settings.take("tie_word_embeddings", bool, True)
    tied = settings.take("scale_decoder_outputs", bool, tied) and tied  # transformers 5 says it so
    config = Config(
        vocabulary=settings.take("vocab_size"), context=settings.take("n_positions", default=512),
        layers=settings.take("num_layers"), decoder_layers=settings.take("num_decoder_layers", default=None),
        width=settings.take("d_model"), heads=settings.take("num_heads"), head=settings.take("d_kv"),
        hidden=settings.take("d_ff"), buckets=settings.take("relative_attention_num_buckets", default=32),
        distance=settings.take("relative_attention_max_distance", default=128), activation=activation, gated=gated,
        tied=tied, dropout=settings.number("dropout_rate", 0.1), norm_epsilon=settings.number("layer_norm_epsilon", 1e-6),
    )  # fmt: skip
    settings.finish(("classifier_dropout",))
    return config


def _activation(settings: Settings) -> tuple[str, bool]:
    """feed_forward_proj -> (our activation, gated). "gated-gelu" is the tanh form, "gelu" alone the exact one."""
    said = settings.take("feed_forward_proj", str, "relu")
    gated, name = said.startswith("gated-"), said.removeprefix("gated-")
    name = "gelu_new" if said == "gated-gelu" else name
    if name not in ACTIVATIONS:
        raise UserError(f"feed_forward_proj = {said!r} is not supported, only (gated-){', '.join(ACTIVATIONS)}",
                        settings.where, "choose another model")  # fmt: skip
    settings.only("dense_act_fn", name)
    settings.only("is_gated_act", gated)
    return ACTIVATIONS[name], gated


def write_config(config: Config) -> dict[str, Any]:
    """Our Config -> config.json."""
    name = THEIR_ACTIVATIONS[config.activation]
    said = "gated-gelu" if config.gated and name == "gelu_new" else f"gated-{name}" if config.gated else name
    if config.gated and config.activation == "gelu_exact":
        raise UserError("T5 reads gated-gelu as the tanh form, so a gated gelu_exact has no name there", "export",
                        "export a run with model.activation = 'gelu'")  # fmt: skip
    return {
        "model_type": "t5", "architectures": [CLASSES[0]], "vocab_size": config.vocabulary, "n_positions": config.context,
        "num_layers": config.layers, "num_decoder_layers": config.decoder_depth, "d_model": config.width,
        "num_heads": config.heads, "d_kv": config.head_size, "d_ff": config.hidden or 4 * config.width,
        "relative_attention_num_buckets": config.buckets, "relative_attention_max_distance": config.distance,
        "feed_forward_proj": said, "tie_word_embeddings": config.tied, "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.norm_epsilon, "is_encoder_decoder": True, "decoder_start_token_id": 0,
        "pad_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


def table(config: Config) -> Table:
    """The name table."""
    rows = [row(SHARED, "embedding/table")]
    for stack, sublayers in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows.append(row(first, f"{stack}/distance/table"))
        for number, theirs in enumerate(sublayers):
            ours = {"SelfAttention": "self_attention", "EncDecAttention": "cross_attention"}[theirs]
            layer, blocks = f"{stack}.block.@.layer.{number}", f"{stack}/blocks/{ours}"
            for letter, name in {"q": "query", "k": "key", "v": "value", "o": "output"}.items():
                rows += dense(f"{layer}.{theirs}.{letter}", f"{blocks}/{name}", bias=False)
            rows += norm(f"{layer}.layer_norm", f"{blocks}_norm", bias=False)
        layer, blocks = f"{stack}.block.@.layer.{len(sublayers)}", f"{stack}/blocks/feedforward"
        for letters, name in ({"wi_0": "gate", "wi_1": "up"} if config.gated else {"wi": "up"}).items():
            rows += dense(f"{layer}.DenseReluDense.{letters}", f"{blocks}/{name}", bias=False)
        rows += dense(f"{layer}.DenseReluDense.wo", f"{blocks}/down", bias=False)
        rows += norm(f"{layer}.layer_norm", f"{blocks}_norm", bias=False)
        rows += norm(f"{stack}.final_layer_norm", f"{stack}/final_norm", bias=False)
    rows += () if config.tied else dense("lm_head", "head", bias=False)
    copies = {"encoder.embed_tokens.weight": SHARED, "decoder.embed_tokens.weight": SHARED}
    copies |= {"lm_head.weight": SHARED} if config.tied else {}
    return Table(tuple(rows), PREFIX, copies, BUFFERS)
