"""GPT against independent implementations: values and gradients in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import gpt

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

SIZES = [(11, 12, 1, 8, 2), (23, 16, 2, 12, 3), (17, 20, 3, 16, 4)]


def random_params(config, seed):
    born = params.init_params(gpt.param_specs(config), jax.random.key(seed))
    noise = lambda leaf: (
        np.asarray(leaf) + 0.3 * np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32)
    )
    return jax.tree.map(noise, born)


def gpt2_names(config):
    """Path and layer -> (torch name, transposed?, part of the fused query, key, value)."""
    rows = [
        ("embedding/table", None, "transformer.wte.weight", None),
        ("position/table", None, "transformer.wpe.weight", None),
    ]
    for i in range(config.layers):
        h = f"transformer.h.{i}."
        for kind, norm in (("attention", "ln_1"), ("feedforward", "ln_2")):
            rows += [
                (f"blocks/{kind}_norm/scale", i, f"{h}{norm}.weight", None),
                (f"blocks/{kind}_norm/bias", i, f"{h}{norm}.bias", None),
            ]
        for leaf, name in (("kernel", "weight"), ("bias", "bias")):
            rows += [
                (f"blocks/attention/{part}/{leaf}", i, f"{h}attn.c_attn.{name}", n)
                for n, part in enumerate(("query", "key", "value"))
            ]
            rows += [(f"blocks/attention/output/{leaf}", i, f"{h}attn.c_proj.{name}", None)]
            rows += [
                (f"blocks/feedforward/up/{leaf}", i, f"{h}mlp.c_fc.{name}", None),
                (f"blocks/feedforward/down/{leaf}", i, f"{h}mlp.c_proj.{name}", None),
            ]
    return [
        *rows,
        ("final_norm/scale", None, "transformer.ln_f.weight", None),
        ("final_norm/bias", None, "transformer.ln_f.bias", None),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_gpt2_equals_transformers(size):
    import torch
    import transformers

    vocabulary, length, layers, width, heads = size
    config = gpt.Config(vocabulary=vocabulary, context=length, layers=layers, width=width, heads=heads)
    ours = random_params(config, 0)
    flat = params.flatten(ours)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=length, n_embd=width, n_layer=layers, n_head=heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager")).eval()  # fmt: skip
    named = dict(theirs.named_parameters())
    with torch.no_grad():
        for path, layer, name, part in gpt2_names(config):
            value = torch.tensor(flat[path] if layer is None else flat[path][layer])
            target = named[name] if part is None else named[name].split(width, dim=-1)[part]
            target.copy_(value)
    ids = np.random.default_rng(1).integers(vocabulary, size=(2, length))
    weighting = np.random.default_rng(2).normal(size=(2, length, vocabulary)).astype(np.float32)

    def score(weights):
        hidden = gpt.apply(weights, {"tokens": jnp.array(ids)}, config).hidden
        logits = gpt.logits(weights, hidden)
        return (logits * weighting).mean(), logits

    gradients, logits = jax.grad(score, has_aux=True)(ours)
    expected = theirs(torch.tensor(ids)).logits
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    (expected * torch.tensor(weighting)).mean().backward()
    flat = params.flatten(gradients)
    for path, layer, name, part in gpt2_names(config):
        gradient = named[name].grad if part is None else named[name].grad.split(width, dim=-1)[part]
        mine = flat[path] if layer is None else flat[path][layer]
        np.testing.assert_allclose(mine, gradient.numpy(), atol=1e-5, rtol=1e-4, err_msg=path)


@pytest.mark.parametrize("size", SIZES)
def test_modern_variant_equals_llama(size):
    import torch
    import transformers

    vocabulary, length, layers, width, heads = size
    config = gpt.Config(vocabulary=vocabulary, context=length, layers=layers, width=width, heads=heads, hidden=2 * width,
                        norm="rms", position="rotary", activation="silu", gated=True, bias=False, tied=False)  # fmt: skip
    ours = random_params(config, 1)
    flat = params.flatten(ours)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=length,
        rms_norm_eps=config.norm_epsilon, tie_word_embeddings=False, attn_implementation="eager")).eval()  # fmt: skip
    names = {"attention_norm/scale": "input_layernorm.weight", "feedforward_norm/scale": "post_attention_layernorm.weight",
             "attention/query/kernel": "self_attn.q_proj.weight", "attention/key/kernel": "self_attn.k_proj.weight",
             "attention/value/kernel": "self_attn.v_proj.weight", "attention/output/kernel": "self_attn.o_proj.weight",
             "feedforward/up/kernel": "mlp.up_proj.weight", "feedforward/gate/kernel": "mlp.gate_proj.weight",
             "feedforward/down/kernel": "mlp.down_proj.weight"}  # fmt: skip
    state = {"model.embed_tokens.weight": flat["embedding/table"], "model.norm.weight": flat["final_norm/scale"],
             "lm_head.weight": flat["head/kernel"].T}  # fmt: skip
    state |= {
        f"model.layers.{i}.{name}": flat[f"blocks/{path}"][i].T for path, name in names.items() for i in range(layers)
    }
    theirs.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()})
    ids = np.random.default_rng(3).integers(vocabulary, size=(2, length))
    hidden = gpt.apply(ours, {"tokens": jnp.array(ids)}, config).hidden
    expected = theirs(torch.tensor(ids)).logits.detach().numpy()
    np.testing.assert_allclose(gpt.logits(ours, hidden), expected, atol=1e-5, rtol=1e-5)
