"""SimCSE, supervised contrastive and R-Drop beside PyTorch, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm.objectives import consistency, contrastive

pytestmark = pytest.mark.parity


def vectors(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


def compare(ours, theirs, *arrays):
    """Values, and gradients by every array."""
    import torch

    value, gradients = jax.value_and_grad(ours, argnums=tuple(range(len(arrays))))(*map(jnp.asarray, arrays))
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = theirs(*leaves)
    expected.backward()
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-5)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_simcse_is_torch_s_cross_entropy_of_cosines():
    import torch

    real = jnp.ones(5, bool)

    def ours(first, second):
        first, second = (rows / jnp.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
        return contrastive.view_losses(first, second, real, 0.05)[0].mean()

    def theirs(first, second):
        cosines = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=-1) / 0.05
        return torch.nn.functional.cross_entropy(cosines, torch.arange(5))

    compare(ours, theirs, vectors(5, 0), vectors(5, 1))


def test_the_supervised_loss_is_that_of_the_authors_code_with_one_view():
    import torch

    labels, real = np.array([0, 1, 0, 1, 1, 2]), jnp.ones(6, bool)

    def ours(rows):
        rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        losses, paired = contrastive.label_losses(rows, jnp.asarray(labels), real, 0.1)
        return losses.sum() / paired.sum()

    def theirs(rows):
        rows = torch.nn.functional.normalize(rows)
        scores = rows @ rows.T / 0.1
        scores = scores - scores.max(dim=1, keepdim=True).values.detach()
        other = 1 - torch.eye(6)
        same = torch.tensor(labels[:, None] == labels[None]).float() * other
        log_shares = scores - torch.log((torch.exp(scores) * other).sum(1, keepdim=True))
        has = same.sum(1) > 0
        return -((same * log_shares).sum(1)[has] / same.sum(1)[has]).mean()

    compare(ours, theirs, vectors(6, 2))


def test_divergence_is_torch_s_kl_both_ways():
    import torch

    def theirs(left, right):
        logs = [torch.log_softmax(rows, dim=1) for rows in (left, right)]
        kl = lambda p, q: torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")
        return (kl(*logs) + kl(*logs[::-1])) / 2

    compare(lambda left, right: consistency.divergence(left, right).sum(), theirs, vectors(4, 3), vectors(4, 4))
