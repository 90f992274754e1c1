"""ViT and its heads against transformers: values and gradients in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import vit
from minillm.models.contract import bind

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

# image, channels, patch, layers, width, heads
SIZES = [((4, 4), 1, 2, 1, 8, 2), ((6, 9), 2, 3, 2, 12, 3), ((8, 8), 3, 4, 3, 16, 4)]
ROWS = 3

# path -> torch name; "@" stands for the layer; kernels are transposed, the patch kernel becomes a convolution's
BLOCK = {
    "attention/query": "attention.q_proj", "attention/key": "attention.k_proj", "attention/value": "attention.v_proj",
    "attention/output": "attention.o_proj", "attention_norm": "layernorm_before", "feedforward_norm": "layernorm_after",
    "feedforward/up": "mlp.fc1", "feedforward/down": "mlp.fc2",
}  # fmt: skip
BODY = {"patch": "embeddings.patch_embeddings.projection", "class_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token", "position/table": "embeddings.position_embeddings",
        "final_norm": "layernorm", "pooler": "pooler.dense"}  # fmt: skip
HEADS = {"classify": "classifier", "patches": "decoder.0"}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}

CASES = {
    "bare": (("pool",), "ViTModel", {"last_hidden_state": None, "pooler_output": "pool"}),
    "classification": (("classify",), "ViTForImageClassification", {"logits": "classify"}),
    "masked patches": (("patches",), "ViTForMaskedImageModeling", {"reconstruction": "patches"}),
}


def torch_name(path: str, bare: bool) -> str:
    """blocks/attention/query/kernel -> vit.layers.@.attention.q_proj.weight"""
    before = "" if bare else "vit."
    if path in BODY:
        return before + BODY[path]
    module, leaf = path.rsplit("/", 1)
    if module in HEADS:
        return f"{HEADS[module]}.{LEAVES[leaf]}"
    name = f"layers.@.{BLOCK[module[7:]]}" if module.startswith("blocks/") else BODY[module]
    return f"{before}{name}.{LEAVES[leaf]}"


def pixel_order(value, config):
    """The rows (row, column, channel) of a patch as torch's (channel, row, column)."""
    value = value.reshape(*value.shape[:-1], config.patch, config.patch, config.channels)
    return np.moveaxis(value, -1, -3)


def torch_tensor(path: str, value: np.ndarray, config) -> np.ndarray:
    if path in ("class_token", "mask_token"):
        return value[None, None]
    if path == "position/table":
        return value[None]
    if path == "patch/kernel":
        return pixel_order(value.T, config)
    if path == "patches/kernel":
        return pixel_order(value, config).reshape(len(value), -1).T[..., None, None]
    if path == "patches/bias":
        return pixel_order(value, config).reshape(-1)
    return value.T if path.endswith("kernel") else value


def torch_tensors(flat: dict, config, bare: bool) -> dict[str, np.ndarray]:
    """Our flat parameters (or gradients) under their torch names, layer by layer."""
    tensors = {}
    for path, value in flat.items():
        name, value = torch_name(path, bare), np.asarray(value)
        layers = enumerate(value) if path.startswith("blocks/") else [("", value)]
        tensors |= {name.replace("@", str(layer)): torch_tensor(path, part, config) for layer, part in layers}
    return tensors


def make(size, tasks, seed):
    image, channels, patch, layers, width, heads = size
    config = vit.Config(image=image, channels=channels, patch=patch, layers=layers, width=width, heads=heads, tasks=tasks, labels=5)  # fmt: skip
    born, generator = params.init_params(vit.param_specs(config), jax.random.key(seed)), np.random.default_rng(seed)
    weights = jax.tree.map(lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape).astype(np.float32), born)
    batch = {"images": generator.normal(size=(ROWS, *image, channels)).astype(np.float32)}
    if "patches" in tasks:
        batch["masked_patches"] = generator.random((ROWS, config.patches)) < 0.5
    return config, weights, batch


def make_theirs(name, config, ours):
    import torch
    import transformers

    square = config.image[0] == config.image[1]
    settings = transformers.ViTConfig(
        hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
        intermediate_size=4 * config.width, image_size=config.image[0] if square else config.image, patch_size=config.patch, num_channels=config.channels,
        layer_norm_eps=vit.EPSILON, num_labels=config.labels, encoder_stride=config.patch, attn_implementation="eager")  # fmt: skip
    theirs = getattr(transformers, name)(settings).eval()
    tensors = torch_tensors(params.flatten(ours), config, name == "ViTModel")
    named = dict(theirs.named_parameters())
    assert set(named) == set(tensors), set(named) ^ set(tensors)
    with torch.no_grad():
        for path, value in tensors.items():
            assert named[path].shape == value.shape, path
            named[path].copy_(torch.tensor(np.array(value)))
    return theirs, named


def run_theirs(theirs, batch, **options):
    import torch

    images = torch.tensor(np.moveaxis(batch["images"], -1, 1).copy(), requires_grad=True)
    masked = {"bool_masked_pos": torch.tensor(batch["masked_patches"])} if "masked_patches" in batch else {}
    return theirs(pixel_values=images, **masked, **options), images


def image_patches(images, config):
    """torch's images [batch, channels, height, width] as our patches [batch, patches, pixels]."""
    rows, columns = (side // config.patch for side in config.image)
    cut = images.reshape(len(images), config.channels, rows, config.patch, columns, config.patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(len(images), config.patches, config.pixels)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_vit_equals_transformers(case, size):
    import torch

    tasks, name, fields = case
    if "patches" in tasks and size[0][0] != size[0][1]:
        size = ((9, 9), *size[1:])  # theirs reconstructs squares only
    config, ours, batch = make(size, tasks, 0)
    model, (theirs, named) = bind(vit, config), make_theirs(name, config, ours)
    inputs = jax.tree.map(jnp.asarray, batch)
    answer, images = run_theirs(theirs, batch)
    expected = {field: answer[field] for field in fields}
    if "reconstruction" in expected:
        expected["reconstruction"] = image_patches(expected["reconstruction"], config)
    generator = np.random.default_rng(2)
    weighting = {f: generator.normal(size=expected[f].shape).astype(np.float32) for f in fields}

    def score(weights, pixels):
        hidden = model.apply(weights, inputs | {"images": pixels}).hidden
        found = {field: model.heads[head](weights, hidden) if head else hidden for field, head in fields.items()}
        return sum((found[field] * weighting[field]).mean() for field in fields), found

    (by_weights, by_pixels), found = jax.jit(jax.grad(score, (0, 1), has_aux=True))(ours, inputs["images"])
    for field in fields:
        np.testing.assert_allclose(found[field], expected[field].detach().numpy(), atol=1e-5, rtol=1e-5, err_msg=field)
    sum((expected[field] * torch.tensor(weighting[field])).mean() for field in fields).backward()
    np.testing.assert_allclose(np.moveaxis(by_pixels, -1, 1), images.grad.numpy(), atol=1e-5, rtol=1e-4)
    for path, value in torch_tensors(params.flatten(by_weights), config, name == "ViTModel").items():
        np.testing.assert_allclose(value, named[path].grad.numpy(), atol=1e-5, rtol=1e-4, err_msg=path)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_sublayer_equals_transformers(size):
    """Embedding with positions, then block by block: attention weights and hidden states."""
    config, ours, batch = make(size, ("pool",), 3)
    theirs, _ = make_theirs("ViTModel", config, ours)
    expected, _ = run_theirs(theirs, batch, output_attentions=True, output_hidden_states=True)
    batch = jax.tree.map(jnp.asarray, batch)
    found = vit.apply(ours, batch, config, capture=("attention", "hidden")).captured
    close = lambda a, b: np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-5, rtol=1e-5)
    close(vit.embed(ours, batch, config), expected.hidden_states[0])
    for layer in range(config.layers):
        close(found["attention"][layer], expected.attentions[layer])
        close(found["hidden"][layer], expected.hidden_states[layer + 1])
