"""Transformer-XL against a naive form in torch, float64: one query, key, head and term at a time, with autograd.

(The authors' model is no longer in transformers.) Two segments, so that the memory, and what must not flow into it, count.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import transformer_xl as xl

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

SIZES = [
    (11, 3, 2, 1, 8, 2),
    (17, 4, 6, 2, 12, 3),
    (7, 2, 3, 3, 8, 1),
]  # vocabulary, segment, memory, layers, width, heads


def random_params(config):
    draw = np.random.default_rng(0)
    born = lambda path, row: (1.0 if path.endswith("scale") else 0.0) + 0.3 * draw.normal(size=row.shape)
    rows = xl.param_specs(config).items()  # u, v and biases too, where initialisation has zeros
    return {path: born(path, row).astype(np.float32) for path, row in rows}


def naive_encoding(distance, width):
    import torch

    angle = lambda place: distance / 10000 ** ((place - place % 2) / width)
    return torch.tensor([np.cos(angle(k)) if k % 2 else np.sin(angle(k)) for k in range(width)], dtype=torch.float64)


def naive_attention(p, x, memory, heads):
    """Lists of vectors; the four terms (a) to (d) of section 3.3."""
    import torch

    width, seen, output = len(x[0]), [*memory, *x], []
    head = width // heads
    for i in range(len(x)):
        parts = []
        for h in range(heads):
            mine = slice(h * head, (h + 1) * head)
            query, u, v = (x[i] @ p["query/kernel"])[mine], p["content_bias"][mine], p["position_bias"][mine]
            scores, values = [], []
            for j in range(len(memory) + i + 1):
                key = (seen[j] @ p["key/kernel"])[mine]
                relative = (naive_encoding(len(memory) + i - j, width) @ p["position/kernel"])[mine]
                scores.append((query @ key + query @ relative + u @ key + v @ relative) / head**0.5)
                values.append((seen[j] @ p["value/kernel"])[mine])
            weights = torch.stack(scores).softmax(0)
            parts.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
        output.append(torch.cat(parts) @ p["output/kernel"])
    return output


def naive_segment(named, ids, config, memories):
    """ids of one row, one list of vectors per layer -> (hidden states, each layer's inputs)."""
    import torch

    x, inputs = [named["embedding/table"][token] for token in ids], []
    for layer in range(config.layers):
        part = lambda name, layer=layer: {
            path.removeprefix(f"blocks/{name}/"): leaf[layer]
            for path, leaf in named.items()
            if path.startswith(f"blocks/{name}/")
        }
        norms = {name: part(f"{name}_norm") for name in ("attention", "feedforward")}
        normalise = lambda name, y, norms=norms: torch.nn.functional.layer_norm(
            y, (config.width,), norms[name]["scale"], norms[name]["bias"]
        )
        f = part("feedforward")
        mlp = lambda y, f=f: torch.relu(y @ f["up/kernel"] + f["up/bias"]) @ f["down/kernel"] + f["down/bias"]
        inputs.append([vector.detach() for vector in x])
        memory = memories[layer]
        if config.placement == "post":
            attended = naive_attention(part("attention"), x, memory, config.heads)
            x = [normalise("attention", a + b) for a, b in zip(x, attended, strict=True)]
            x = [normalise("feedforward", y + mlp(y)) for y in x]
        else:
            normed, memory = ([normalise("attention", y) for y in part] for part in (x, memory))
            attended = naive_attention(part("attention"), normed, memory, config.heads)
            x = [a + b for a, b in zip(x, attended, strict=True)]
            x = [y + mlp(normalise("feedforward", y)) for y in x]
    if config.placement == "pre":
        final = named["final_norm/scale"], named["final_norm/bias"]
        x = [torch.nn.functional.layer_norm(y, (config.width,), *final) for y in x]
    return x, inputs


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("size", SIZES)
def test_two_segments_equal_the_naive_form(size, placement):
    import torch

    vocabulary, length, memory, layers, width, heads = size
    config = xl.Config(vocabulary=vocabulary, context=length, memory=memory, layers=layers, width=width, heads=heads,
                       hidden=2 * width, placement=placement)  # fmt: skip
    flat, draw = random_params(config), np.random.default_rng(1)
    ids = draw.integers(vocabulary, size=(2, 2 * length))
    weighting = draw.normal(size=(2, 2 * length, vocabulary)).astype(np.float32)

    def score(weights):
        carry, hidden = xl.init_carry(weights, {"tokens": ids}, config, 2 * length), []
        for start in (0, length):
            output = xl.apply(weights, {"tokens": jnp.array(ids[:, start : start + length])}, config, carry=carry)
            carry = output.carry
            hidden.append(output.hidden)
        logits = xl.logits(weights, jnp.concatenate(hidden, axis=1))
        return (logits * weighting).mean(), logits

    gradients, logits = jax.jit(jax.grad(score, has_aux=True))(params.unflatten(flat))

    named = {path: torch.tensor(leaf, dtype=torch.float64, requires_grad=True) for path, leaf in flat.items()}
    rows = []
    for row in ids:
        first, inputs = naive_segment(named, row[:length], config, [[]] * layers)
        second, _ = naive_segment(named, row[length:], config, [states[-memory:] for states in inputs])
        rows.append(torch.stack([*first, *second]) @ named["embedding/table"].T)
    expected = torch.stack(rows)
    (expected * torch.tensor(weighting)).mean().backward()

    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    for path, leaf in params.flatten(gradients).items():
        np.testing.assert_allclose(leaf, named[path].grad.numpy(), atol=1e-5, rtol=1e-4, err_msg=path)
