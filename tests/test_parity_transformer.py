"""The encoder-decoder Transformer against torch.nn.Transformer: values and gradients in float32, with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import transformer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

SIZES = [(1, 1, 8, 2, 12), (2, 1, 12, 3, 20), (2, 3, 16, 4, 16)]  # encoder, decoder layers; width, heads, hidden
SOURCE, TARGET, ROWS = 7, 5, 3


def random_params(config, seed):
    born = params.init_params(transformer.param_specs(config), jax.random.key(seed))
    noise = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * jnp.array(noise.normal(size=leaf.shape), jnp.float32), born)


def names(config):
    """Path -> (torch name, layer, part of the fused query, key, value). Kernels are transposed in torch."""
    rows = []
    for side, layers in (("encoder", config.layers), ("decoder", config.decoder_depth)):
        cross = side == "decoder"
        norms = (
            {"self_attention": 1, "cross_attention": 2, "feedforward": 3}
            if cross
            else {"self_attention": 1, "feedforward": 2}
        )
        for i in range(layers):
            ours, theirs = f"{side}/blocks", f"{side}.layers.{i}"
            for kind, number in norms.items():
                for leaf, name in (("scale", "weight"), ("bias", "bias")):
                    rows.append((f"{ours}/{kind}_norm/{leaf}", i, f"{theirs}.norm{number}.{name}", None))
            for leaf, name in (("kernel", "weight"), ("bias", "bias")):
                for kind, module in (("self_attention", "self_attn"), ("cross_attention", "multihead_attn"))[
                    : 1 + cross
                ]:
                    for part, letter in enumerate(("query", "key", "value")):
                        rows.append((f"{ours}/{kind}/{letter}/{leaf}", i, f"{theirs}.{module}.in_proj_{name}", part))
                    rows.append((f"{ours}/{kind}/output/{leaf}", i, f"{theirs}.{module}.out_proj.{name}", None))
                rows.append((f"{ours}/feedforward/up/{leaf}", i, f"{theirs}.linear1.{name}", None))
                rows.append((f"{ours}/feedforward/down/{leaf}", i, f"{theirs}.linear2.{name}", None))
        if config.placement == "pre":
            for leaf, name in (("scale", "weight"), ("bias", "bias")):
                rows.append((f"{side}/final_norm/{leaf}", None, f"{side}.norm.{name}", None))
    return rows


def reference(config):
    """torch's Transformer; post-norm without the final norms that torch adds and the paper has not."""
    import torch
    from torch import nn

    settings = dict(d_model=config.width, nhead=config.heads, dim_feedforward=config.hidden, dropout=0.0,
                    batch_first=True, norm_first=config.placement == "pre")  # fmt: skip
    last = lambda: nn.LayerNorm(config.width) if config.placement == "pre" else None
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**settings), config.layers, last(), enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**settings), config.decoder_depth, last())
    model = nn.Transformer(**settings, custom_encoder=encoder, custom_decoder=decoder)
    return model.train(), torch  # train: the fused inference path has no gradients; dropout is 0


def parts(named, name, part, width):
    return named[name] if part is None else named[name].split(width, dim=0)[part]


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("size", SIZES)
def test_transformer_equals_torch(size, placement):
    layers, decoder_layers, width, heads, hidden = size
    config = transformer.Config(vocabulary=13, context=8, layers=layers, decoder_layers=decoder_layers, width=width,
                                heads=heads, hidden=hidden, placement=placement)  # fmt: skip
    ours = random_params(config, 0)
    flat = params.flatten(ours)
    theirs, torch = reference(config)
    named = dict(theirs.named_parameters())
    table = names(config)
    assert {path for path, *_ in table} == set(flat) - {"embedding/table"}
    with torch.no_grad():
        for path, layer, name, part in table:
            value = flat[path] if layer is None else flat[path][layer]
            parts(named, name, part, width).copy_(torch.tensor(np.ascontiguousarray(value.T)))
    random = np.random.default_rng(1)
    source, target = (random.normal(size=(ROWS, n, width)).astype(np.float32) for n in (SOURCE, TARGET))
    mask = np.arange(SOURCE) < np.array([[7], [4], [1]])
    weighting = random.normal(size=(ROWS, TARGET, width)).astype(np.float32)
    batch = {"tokens": jnp.zeros((ROWS, TARGET), int), "source": jnp.zeros((ROWS, SOURCE), int), "source_mask": mask}

    def score(weights, source, target):
        hidden = transformer.apply(weights, batch, config, embeddings={"source": source, "tokens": target}).hidden
        return (hidden * weighting).mean(), hidden

    gradients, hidden = jax.jit(jax.grad(score, argnums=(0, 1, 2), has_aux=True))(ours, source, target)
    inputs = [torch.tensor(x, requires_grad=True) for x in (source, target)]
    padding = torch.tensor(~mask)
    causal = torch.ones(TARGET, TARGET).triu(1).bool()
    expected = theirs(*inputs, tgt_mask=causal, src_key_padding_mask=padding, memory_key_padding_mask=padding)
    np.testing.assert_allclose(hidden, expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    (expected * torch.tensor(weighting)).mean().backward()
    found = params.flatten(gradients[0])
    for path, layer, name, part in table:
        gradient = parts({name: named[name].grad}, name, part, width).numpy().T
        mine = found[path] if layer is None else found[path][layer]
        np.testing.assert_allclose(mine, gradient, atol=1e-5, rtol=1e-4, err_msg=path)
    for mine, expected in zip(gradients[1:], inputs, strict=True):
        np.testing.assert_allclose(mine, expected.grad.numpy(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_encoder_alone_equals_torch(size):
    layers, decoder_layers, width, heads, hidden = size
    config = transformer.Config(vocabulary=13, layers=layers, decoder_layers=decoder_layers, width=width, heads=heads,
                                hidden=hidden)  # fmt: skip
    ours = random_params(config, 3)
    theirs, torch = reference(config)
    named, flat = dict(theirs.named_parameters()), params.flatten(ours)
    with torch.no_grad():
        for path, layer, name, part in names(config):
            value = flat[path] if layer is None else flat[path][layer]
            parts(named, name, part, width).copy_(torch.tensor(np.ascontiguousarray(value.T)))
    source = np.random.default_rng(4).normal(size=(ROWS, SOURCE, width)).astype(np.float32)
    mask = np.arange(SOURCE) < np.array([[7], [4], [1]])
    encoded, _ = transformer.encode(ours["encoder"], jnp.asarray(source), jnp.asarray(mask), config)
    expected = theirs.encoder(torch.tensor(source), src_key_padding_mask=torch.tensor(~mask)).detach().numpy()
    np.testing.assert_allclose(encoded, expected, atol=1e-5, rtol=1e-5)


def test_embeddings_and_tied_logits_by_their_formulas():
    config = transformer.Config(vocabulary=13, layers=1, width=8, heads=2, hidden=8)
    ours = random_params(config, 5)
    ids = jnp.array([[3, 1, 12], [0, 7, 7]])
    embedded = transformer.embed(ours, {"source": ids, "tokens": ids}, config)
    expected = np.zeros((2, 3, 8))
    for row in range(2):
        for p in range(3):
            for i in range(4):
                angle = p / 10000 ** (2 * i / 8)
                expected[row, p, 2 * i], expected[row, p, 2 * i + 1] = np.sin(angle), np.cos(angle)
    expected += np.asarray(ours["embedding"]["table"])[np.asarray(ids)] * 8**0.5
    np.testing.assert_allclose(embedded["source"], expected, atol=1e-5)
    np.testing.assert_allclose(embedded["tokens"], expected, atol=1e-5)
    hidden = jnp.asarray(np.random.default_rng(6).normal(size=(2, 3, 8)), jnp.float32)
    np.testing.assert_allclose(transformer.logits(ours, hidden), hidden @ ours["embedding"]["table"].T, atol=1e-5)
