"""Llama: our GPT with RMSNorm, rotary positions and a gated network, under transformers' Llama... names.

Their rotary positions turn halves, as ours do, so that no row of a kernel changes its place. Grouped queries, scaled
positions and another base than 10000 are refused.
"""

from collections.abc import Iterable
from typing import Any

from minillm.errors import UserError
from minillm.interop.huggingface.names import Table, dense, norm, row
from minillm.interop.huggingface.settings import THEIR_ACTIVATIONS, Settings, refuse, refuse_classifier
from minillm.models.gpt import Config

KIND, PREFIX, BARE = "gpt", "model.", "LlamaModel"
CLASSES = ("LlamaForCausalLM", BARE)
BASE = 10000.0  # of the rotary positions
BUFFERS = {"*layers.[0-9]*.self_attn.rotary_emb.inv_freq": "frequencies of the rotary positions",
           "*rotary_emb.inv_freq": "the same"}  # fmt: skip


def read_config(settings: Settings, names: Iterable[str]) -> Config:
    """config.json and the names of the tensors -> our Config."""
    architecture = settings.architecture(CLASSES)
    heads, width = settings.take("num_attention_heads"), settings.take("hidden_size")
    settings.only("num_key_value_heads", heads)
    settings.only("head_dim", width // max(heads, 1))
    _check_positions(settings)
    bias = settings.take("attention_bias", bool, False)
    settings.only("mlp_bias", bias, False)
    settings.take("pretraining_tp", default=None)  # the order of a sum over parts of a kernel
    tied = settings.take("tie_word_embeddings", bool, False)
    if architecture == BARE and not tied and not any(name.startswith("lm_head.") for name in names):
        raise UserError(f"{BARE} has no output layer, and tie_word_embeddings is false", settings.where,
                        "take the files of a LlamaForCausalLM")  # fmt: skip
    config = Config(
        vocabulary=settings.take("vocab_size"), context=settings.take("max_position_embeddings", default=2048),
        layers=settings.take("num_hidden_layers"), width=width, heads=heads,
        hidden=settings.take("intermediate_size"), norm="rms", position="rotary",
        activation=settings.activation("hidden_act", "silu"), gated=True, bias=bias, tied=tied,
        dropout=settings.number("attention_dropout", 0.0), norm_epsilon=settings.number("rms_norm_eps", 1e-6),
    )  # fmt: skip
    settings.finish(("max_sequence_length",))  # of its authors' code: the same as max_position_embeddings
    return config


def _check_positions(settings: Settings) -> None:
    """Their three ways of saying how positions turn, by their age. Raises: UserError for another than ours."""
    settings.only("rope_theta", BASE)
    scaling = settings.take("rope_scaling", dict, None)
    found = settings.take("rope_parameters", dict, None) or {}
    plain = {"rope_theta": BASE, "rope_type": "default"}
    for key, value in (("rope_scaling", scaling), ("rope_parameters", found)):
        if value and plain | value != plain:
            raise UserError(f"{key} = {value!r} is not supported, only {plain!r}", settings.where,
                            "choose another model")  # fmt: skip


def write_config(config: Config) -> dict[str, Any]:
    """Our Config -> config.json. Raises: UserError for what Llama has not."""
    refuse_classifier(config.tasks)
    wanted = {"norm": "rms", "placement": "pre", "position": "rotary", "gated": True}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            refuse(f"a GPT with model.norm = 'rms' and model.{name} = {getattr(config, name)!r}",
                   f"Llama has {value!r}; GPT-2 has norm = 'layer', position = 'learned', gated = false")  # fmt: skip
    return {
        "model_type": "llama", "architectures": [CLASSES[0]], "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context, "num_hidden_layers": config.layers, "hidden_size": config.width,
        "num_attention_heads": config.heads, "num_key_value_heads": config.heads,
        "head_dim": config.width // config.heads, "intermediate_size": config.hidden or 4 * config.width,
        "hidden_act": THEIR_ACTIVATIONS[config.activation], "rms_norm_eps": config.norm_epsilon,
        "attention_bias": config.bias, "mlp_bias": config.bias, "tie_word_embeddings": config.tied,
        "attention_dropout": config.dropout, "rope_theta": BASE,
        "rope_parameters": {"rope_theta": BASE, "rope_type": "default"},
    }  # fmt: skip


def table(config: Config) -> Table:
    """The name table."""
    layer, bias = f"{PREFIX}layers.@", config.bias
    attention = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
    network = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
    rows = [row(f"{PREFIX}embed_tokens.weight", "embedding/table")]
    rows += norm(f"{layer}.input_layernorm", "blocks/attention_norm", bias=False)
    for theirs, ours in attention.items():
        rows += dense(f"{layer}.self_attn.{theirs}", f"blocks/attention/{ours}", bias=bias)
    rows += norm(f"{layer}.post_attention_layernorm", "blocks/feedforward_norm", bias=False)
    for theirs, ours in network.items():
        rows += dense(f"{layer}.mlp.{theirs}", f"blocks/feedforward/{ours}", bias=bias)
    rows += norm(f"{PREFIX}norm", "final_norm", bias=False)
    rows += () if config.tied else dense("lm_head", "head", bias=False)
    copies = {"lm_head.weight": f"{PREFIX}embed_tokens.weight"} if config.tied else {}
    return Table(tuple(rows), PREFIX, copies, BUFFERS)
