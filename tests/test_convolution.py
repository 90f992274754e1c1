"""The plain convolution against the fast one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.nn import convolution


@pytest.mark.parametrize(("space", "size", "stride", "padding"), [
    ((7, 6), 3, 1, 1), ((7, 6), 2, 2, 0), ((7, 6), (3, 2), (2, 1), (0, 1)), ((9,), 3, 2, 1),
])  # fmt: skip
def test_the_plain_convolution_equals_the_fast_one(space, size, stride, padding):
    """Values and gradients, in one dimension and two."""
    layer = params.init_params(
        convolution.convolution_specs((size,) * len(space) if isinstance(size, int) else size, 3, 5, scale=0.5),
        jax.random.key(0),
    )
    layer["bias"] = layer["bias"] + 0.7
    x = jax.random.normal(jax.random.key(1), (2, *space, 3))
    results = []
    for function in (convolution.convolve, convolution.convolve_windows):
        score = lambda layer, x, f=function: (jnp.sin(y := f(layer, x, size, stride, padding)).sum(), y)
        results.append(jax.grad(score, (0, 1), has_aux=True)(layer, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *results)


def test_another_kind_of_kernel_goes_through_linear(monkeypatch):
    """What `linear` learns to multiply with, a convolution can use."""
    x, kernel = jax.random.normal(jax.random.key(0), (1, 5, 5, 2)), jax.random.normal(jax.random.key(1), (18, 4))
    monkeypatch.setattr(convolution, "linear", lambda layer, windows: windows @ layer["kernel"]["half"] * 2)
    found = convolution.convolve({"kernel": {"half": kernel / 2}}, x, 3)
    np.testing.assert_allclose(found, convolution.convolve({"kernel": kernel}, x, 3), atol=1e-5)
