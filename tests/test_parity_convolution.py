"""Convolution and pooling against torch: values and gradients in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm.nn import convolution

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

# space, channels, outputs, size, stride, padding
CASES = [
    ((5,), 1, 1, (2,), (1,), (0,)), ((9,), 3, 4, (3,), (2,), (1,)), ((4, 4), 1, 2, (1, 1), (1, 1), (0, 0)),
    ((7, 6), 3, 5, (3, 3), (1, 1), (1, 1)), ((8, 9), 2, 3, (3, 2), (2, 3), (1, 0)), ((6, 6), 2, 4, (2, 2), (2, 2), (0, 0)),
]  # fmt: skip


def to_torch(x, grad=True):
    """[batch, *space, channels] as torch's [batch, channels, *space]."""
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy(), requires_grad=grad)


def compare(ours, theirs, arguments, tensors, back):
    """Values, and the gradients of a random weighting of them."""
    import torch

    expected = theirs(*tensors)
    weighting = np.random.default_rng(1).normal(size=ours(*arguments).shape).astype(np.float32)
    found, gradients = jax.value_and_grad(
        lambda *inputs: (ours(*inputs) * weighting).sum(), tuple(range(len(arguments)))
    )(*arguments)
    np.testing.assert_allclose(np.moveaxis(ours(*arguments), -1, 1), expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    total = (expected * torch.tensor(np.moveaxis(weighting, -1, 1).copy())).sum()
    np.testing.assert_allclose(found, total.item(), atol=1e-4, rtol=1e-5)
    total.backward()
    for gradient, tensor, turn in zip(gradients, tensors, back, strict=True):
        np.testing.assert_allclose(turn(np.asarray(gradient)), tensor.grad.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolve(case):
    import torch

    space, channels, outputs, size, stride, padding = case
    generator = np.random.default_rng(0)
    x, kernel, bias = (
        jnp.asarray(generator.normal(size=shape), jnp.float32)
        for shape in ((2, *space, channels), (np.prod(size) * channels, outputs), (outputs,))
    )
    turn = lambda matrix: np.moveaxis(np.asarray(matrix).T.reshape(outputs, *size, channels), -1, 1)
    convolve = getattr(torch.nn.functional, f"conv{len(space)}d")
    compare(
        lambda x, kernel, bias: convolution.convolve({"kernel": kernel, "bias": bias}, x, size, stride, padding),
        lambda x, kernel, bias: convolve(x, kernel, bias, stride, padding),
        (x, kernel, bias),
        (
            to_torch(x),
            torch.tensor(turn(kernel).copy(), requires_grad=True),
            torch.tensor(np.array(bias), requires_grad=True),
        ),
        (lambda x: np.moveaxis(x, -1, 1), turn, lambda x: x),
    )


@pytest.mark.parametrize("case", [case for case in CASES if max(case[3]) > 1], ids=str)
@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling(kind, case):
    import torch

    space, channels, _, size, stride, padding = case
    x = np.random.default_rng(3).normal(size=(2, *space, channels)).astype(np.float32)
    ours = convolution.max_pool if kind == "max" else convolution.average_pool
    theirs = getattr(torch.nn.functional, f"{'max' if kind == 'max' else 'avg'}_pool{len(space)}d")
    compare(
        lambda x: ours(x, size, stride, padding),
        lambda x: theirs(x, size, stride, padding),
        (jnp.asarray(x),),
        (to_torch(x),),
        (lambda x: np.moveaxis(x, -1, 1),),
    )
