"""T5 against transformers' T5ForConditionalGeneration: buckets, values and gradients in float32, with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import t5

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

V10, V11 = {}, {"activation": "gelu", "gated": True, "tied": False}
SIZES = [  # vocabulary, encoder and decoder layers, width, heads, head, hidden, buckets, distance
    (11, 1, 1, 8, 2, 4, 12, 8, 12),
    (23, 2, 1, 12, 3, 5, 20, 32, 128),
    (17, 2, 3, 16, 4, 4, 16, 12, 20),
]
SOURCE, TARGET, ROWS = 21, 17, 3


def make(size, variant, seed=0):
    vocabulary, layers, decoder_layers, width, heads, head, hidden, buckets, distance = size
    config = t5.Config(vocabulary=vocabulary, context=64, layers=layers, decoder_layers=decoder_layers, width=width,
                       heads=heads, head=head, hidden=hidden, buckets=buckets, distance=distance, **variant)  # fmt: skip
    born, noise = params.init_params(t5.param_specs(config), jax.random.key(seed)), np.random.default_rng(seed)
    return config, jax.tree.map(lambda leaf: leaf + 0.2 * jnp.array(noise.normal(size=leaf.shape), jnp.float32), born)


def reference(config):
    """Their model with the same sizes, and its parameters by name; the head is untied where ours is."""
    import torch
    import transformers

    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=config.vocabulary, d_model=config.width, d_kv=config.head_size, d_ff=config.hidden,
        num_layers=config.layers, num_decoder_layers=config.decoder_depth, num_heads=config.heads,
        relative_attention_num_buckets=config.buckets, relative_attention_max_distance=config.distance,
        dropout_rate=0.0, layer_norm_epsilon=config.norm_epsilon, tie_word_embeddings=config.tied,
        feed_forward_proj="gated-gelu" if config.gated else config.activation, decoder_start_token_id=0,
        attn_implementation="eager")).eval()  # fmt: skip
    if not config.tied:
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    return theirs, dict(theirs.named_parameters())


def names(config):
    """Path -> (their name, layer, transposed). Ours keeps equal layers stacked."""
    rows = [("embedding/table", "shared.weight", None, False)]
    rows += [] if config.tied else [("head/kernel", "lm_head.weight", None, True)]
    letters = {"query": "q", "key": "k", "value": "v", "output": "o"}
    mlp = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if config.gated else {"up": "wi", "down": "wo"}
    for side, layers in (("encoder", config.layers), ("decoder", config.decoder_depth)):
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows += [(f"{side}/distance/table", first, None, False)]
        rows += [(f"{side}/final_norm/scale", f"{side}.final_layer_norm.weight", None, False)]
        kinds = {"self_attention": "SelfAttention"} | (
            {"cross_attention": "EncDecAttention"} if side == "decoder" else {}
        )
        for i in range(layers):
            for place, (kind, module) in enumerate(kinds.items()):
                at = f"{side}.block.{i}.layer.{place}"
                rows += [(f"{side}/blocks/{kind}_norm/scale", f"{at}.layer_norm.weight", i, False)]
                rows += [
                    (f"{side}/blocks/{kind}/{n}/kernel", f"{at}.{module}.{x}.weight", i, True)
                    for n, x in letters.items()
                ]
            at = f"{side}.block.{i}.layer.{len(kinds)}"
            rows += [(f"{side}/blocks/feedforward_norm/scale", f"{at}.layer_norm.weight", i, False)]
            rows += [
                (f"{side}/blocks/feedforward/{n}/kernel", f"{at}.DenseReluDense.{x}.weight", i, True)
                for n, x in mlp.items()
            ]
    return rows


def copy_weights(config, ours, named):
    import torch

    flat, table = params.flatten(ours), names(config)
    assert {path for path, *_ in table} == set(flat)
    assert {name for _, name, *_ in table} == set(named)
    with torch.no_grad():
        for path, name, layer, transposed in table:
            value = flat[path] if layer is None else flat[path][layer]
            named[name].copy_(torch.tensor(np.ascontiguousarray(value.T if transposed else value)))


def example(config, seed=1):
    random = np.random.default_rng(seed)
    source, tokens = (random.integers(config.vocabulary, size=(ROWS, n)) for n in (SOURCE, TARGET))
    return source, np.arange(SOURCE) < np.array([[SOURCE], [SOURCE // 2], [1]]), tokens


@pytest.mark.parametrize("variant", [V10, V11], ids=["v1.0", "v1.1"])
@pytest.mark.parametrize("size", SIZES)
def test_t5_equals_transformers(size, variant):
    import torch

    config, ours = make(size, variant)
    theirs, named = reference(config)
    copy_weights(config, ours, named)
    source, mask, tokens = example(config)
    weighting = np.random.default_rng(2).normal(size=(ROWS, TARGET, config.vocabulary)).astype(np.float32)
    batch = {"source": jnp.array(source), "source_mask": jnp.array(mask), "tokens": jnp.array(tokens)}

    def score(weights):
        logits = t5.logits(weights, t5.apply(weights, batch, config).hidden)
        return (logits * weighting).mean(), logits

    gradients, logits = jax.jit(jax.grad(score, has_aux=True))(ours)
    arguments = [torch.tensor(x) for x in (source, mask.astype(int), tokens)]
    expected = theirs(input_ids=arguments[0], attention_mask=arguments[1], decoder_input_ids=arguments[2]).logits
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    (expected * torch.tensor(weighting)).mean().backward()
    found = params.flatten(gradients)
    for path, name, layer, transposed in names(config):
        gradient = named[name].grad.numpy()
        mine = found[path] if layer is None else found[path][layer]
        np.testing.assert_allclose(mine, gradient.T if transposed else gradient, atol=1e-5, rtol=1e-4, err_msg=path)


@pytest.mark.parametrize("size", SIZES)
def test_encoder_alone_equals_transformers(size):
    import torch

    config, ours = make(size, V11, seed=3)
    theirs, named = reference(config)
    copy_weights(config, ours, named)
    source, mask, _ = example(config, 4)
    x = t5.embed(ours, {"source": jnp.array(source)}, config)["source"]
    encoded, _ = t5.encode(ours["encoder"], x, jnp.array(mask), config)
    expected = theirs.encoder(input_ids=torch.tensor(source), attention_mask=torch.tensor(mask.astype(int)))
    np.testing.assert_allclose(encoded, expected.last_hidden_state.detach().numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(8, 12), (12, 20), (16, 64), (32, 128), (32, 100), (64, 256)])
def test_buckets_equal_transformers(buckets, distance, causal):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    config = t5.Config(vocabulary=5, width=8, heads=1, buckets=buckets, distance=distance)
    table = {"table": jnp.arange(buckets, dtype=jnp.float32)[:, None]}
    length = 2 * distance + 3
    found = t5.distance_bias(table, jnp.arange(length)[None], length, config, causal=causal)[0, 0]
    relative = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    expected = T5Attention._relative_position_bucket(relative, not causal, buckets, distance)
    np.testing.assert_array_equal(found, expected.numpy())
