"""Layers against torch and flax: values and gradients in float32, at random tiny sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import gpt
from minillm.nn import attention, feedforward, linear, norm

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

SIZES = [(1, 5, 8, 2), (2, 7, 12, 3), (3, 4, 20, 5)]  # batch, length, width, heads


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def noisy(specs, seed):
    """Random values in every leaf, so that no bias is zero and no scale one."""
    return params.unflatten({path: 0.5 * normal(seed + i, *spec.shape) for i, (path, spec) in enumerate(specs.items())})


def same_gradients(ours, theirs, leaves, pairs):
    """ours(tree) and theirs(tensors), scalars of the same numbers, have the same gradients."""
    import torch

    tensors = {name: torch.tensor(np.array(leaf), requires_grad=True) for name, leaf in leaves.items()}
    theirs(tensors).backward()
    gradients = jax.grad(ours)(leaves)
    for name in pairs:
        np.testing.assert_allclose(gradients[name], tensors[name].grad.numpy(), atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_equal_torch(kind, size):
    import torch

    batch, length, width, _ = size
    leaves = {"x": normal(1, batch, length, width) * 3, "scale": normal(2, width), "bias": normal(3, width)}
    weighting = normal(4, batch, length, width)
    if kind == "layer":
        ours = lambda t: (norm.layer_norm({"scale": t["scale"], "bias": t["bias"]}, t["x"], 1e-5) * weighting).sum()
        theirs = lambda t: (
            torch.nn.functional.layer_norm(t["x"], (width,), t["scale"], t["bias"], 1e-5)
            * torch.tensor(np.array(weighting))
        ).sum()
    else:
        ours = lambda t: (norm.rms_norm({"scale": t["scale"]}, t["x"], 1e-6) * weighting).sum()
        theirs = lambda t: (
            torch.nn.functional.rms_norm(t["x"], (width,), t["scale"], 1e-6) * torch.tensor(np.array(weighting))
        ).sum()
    tensors = {name: torch.tensor(np.array(leaf)) for name, leaf in leaves.items()}
    np.testing.assert_allclose(ours(leaves), theirs(tensors).numpy(), rtol=1e-5)
    same_gradients(ours, theirs, leaves, ("x", "scale", "bias") if kind == "layer" else ("x", "scale"))


@pytest.mark.parametrize("activation", ["gelu", "gelu_exact", "silu", "relu"])
@pytest.mark.parametrize("gated", [False, True])
def test_feedforward_equals_torch(activation, gated):
    import torch

    activate = {"gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"), "gelu_exact": torch.nn.functional.gelu,
                "silu": torch.nn.functional.silu, "relu": torch.nn.functional.relu}[activation]  # fmt: skip
    leaves = params.flatten(noisy(feedforward.feedforward_specs(6, 10, gated=gated), 5)) | {"x": normal(9, 2, 4, 6)}

    def ours(t):
        tree = params.unflatten({name: leaf for name, leaf in t.items() if name != "x"})
        return jnp.square(feedforward.feedforward(tree, t["x"], activation)).sum()

    def theirs(t):
        dense = lambda name, x: x @ t[f"{name}/kernel"] + t[f"{name}/bias"]
        hidden = activate(dense("gate", t["x"])) * dense("up", t["x"]) if gated else activate(dense("up", t["x"]))
        return dense("down", hidden).square().sum()

    same_gradients(ours, theirs, leaves, leaves)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask_kind", ["none", "causal", "padding", "arbitrary"])
def test_multi_head_attention_equals_flax(mask_kind, size):
    import flax.linen

    batch, length, width, heads = size
    weights = noisy(attention.attention_specs(width, width), 3)
    x = normal(7, batch, length, width)
    valid = np.arange(length) < np.maximum(np.arange(batch)[:, None] + 2, 1)
    arbitrary = np.random.default_rng(1).random((batch, 1, length, length)) < 0.5
    mask = {"none": None, "causal": attention.causal_mask(length), "padding": attention.padding_mask(jnp.asarray(valid)),
            "arbitrary": jnp.asarray(arbitrary | np.eye(length, dtype=bool))}[mask_kind]  # fmt: skip
    full = None if mask is None else jnp.broadcast_to(mask, (batch, 1, length, length))
    head = width // heads
    split = lambda p: {"kernel": p["kernel"].reshape(width, heads, head), "bias": p["bias"].reshape(heads, head)}
    join = lambda p: {"kernel": p["kernel"].reshape(heads, head, width), "bias": p["bias"]}

    def theirs(w):
        named = {
            "query": split(w["query"]),
            "key": split(w["key"]),
            "value": split(w["value"]),
            "out": join(w["output"]),
        }
        layer = flax.linen.MultiHeadDotProductAttention(heads, qkv_features=width)
        return layer.apply({"params": named}, x, x, mask=full)

    ours = lambda w: attention.multi_head_attention(w, x, heads, full)
    np.testing.assert_allclose(ours(weights), theirs(weights), atol=1e-5, rtol=1e-5)
    gradients = [jax.grad(lambda w, f=f: jnp.square(f(w)).sum())(weights) for f in (ours, theirs)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), *gradients)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("size", SIZES)
def test_block_equals_torch_encoder_layer_under_a_causal_mask(placement, size):
    import torch

    batch, length, width, heads = size
    config = gpt.Config(
        vocabulary=5,
        context=length,
        layers=1,
        width=width,
        heads=heads,
        hidden=3 * width,
        placement=placement,
        activation="gelu_exact",
    )
    weights = noisy(gpt.param_specs(config), 11)
    block = jax.tree.map(lambda leaf: leaf[0], weights["blocks"])
    layer = torch.nn.TransformerEncoderLayer(
        width, heads, 3 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=placement == "pre"
    )
    a, f = block["attention"], block["feedforward"]
    stacked = lambda leaf: np.concatenate([np.asarray(a[name][leaf]).T for name in ("query", "key", "value")])
    named = {
        "self_attn.in_proj_weight": stacked("kernel"), "self_attn.in_proj_bias": stacked("bias"),
        "self_attn.out_proj.weight": a["output"]["kernel"].T, "self_attn.out_proj.bias": a["output"]["bias"],
        "linear1.weight": f["up"]["kernel"].T, "linear1.bias": f["up"]["bias"],
        "linear2.weight": f["down"]["kernel"].T, "linear2.bias": f["down"]["bias"],
        "norm1.weight": block["attention_norm"]["scale"], "norm1.bias": block["attention_norm"]["bias"],
        "norm2.weight": block["feedforward_norm"]["scale"], "norm2.bias": block["feedforward_norm"]["bias"],
    }  # fmt: skip
    layer.load_state_dict({name: torch.tensor(np.array(leaf)) for name, leaf in named.items()})
    x = normal(13, batch, length, width)
    scope = gpt.Scope(jnp.broadcast_to(jnp.arange(length), (batch, length)), None, ())
    ours, gradient = jax.value_and_grad(lambda x: jnp.square(gpt.block(block, x, config, scope)[0]).sum())(
        jnp.asarray(x)
    )
    tensor = torch.tensor(np.array(x), requires_grad=True)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(length)
    theirs = layer(tensor, src_mask=mask, is_causal=True).square().sum()
    theirs.backward()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-4, rtol=1e-4)


def test_linear_equals_torch_for_any_number_of_leading_axes():
    import torch

    weights = noisy(linear.linear_specs(6, 4, (None, None)), 1)
    for shape in ((6,), (3, 6), (2, 3, 6), (2, 2, 2, 6)):
        x = normal(2, *shape)
        theirs = torch.nn.functional.linear(
            torch.tensor(np.array(x)),
            torch.tensor(np.array(weights["kernel"].T)),
            torch.tensor(np.array(weights["bias"])),
        )
        np.testing.assert_allclose(linear.linear(weights, jnp.asarray(x)), theirs.numpy(), atol=1e-5)
