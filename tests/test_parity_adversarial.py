"""The fast gradient method beside PyTorch, on a model that both can say in a line."""

import numpy as np
import pytest
from test_adversarial import PARAMS, make_batch, plain

from minillm.training.adversarial import adversarial

pytestmark = pytest.mark.parity


def test_fgm_is_torch_s_normalised_gradient():
    import torch

    batch, (table, head) = make_batch(), (PARAMS["table"], PARAMS["head"])
    found, sums = adversarial(plain(), "fgm", 0.7)(PARAMS, {}, {}, batch, None)

    leaves = [torch.tensor(table, requires_grad=True), torch.tensor(head, requires_grad=True)]
    mask, tokens = torch.tensor(np.array(batch["mask"])), torch.tensor(np.array(batch["tokens"]), dtype=torch.long)
    labels, weights = (
        torch.tensor(np.array(batch["labels"]), dtype=torch.long),
        torch.tensor(np.array(batch["weights"])),
    )

    def loss(change):
        hidden = ((leaves[0][tokens] + change) * mask[..., None]).sum(1)
        losses = torch.nn.functional.cross_entropy(torch.tanh(hidden) @ leaves[1], labels, reduction="none")
        return (losses * weights).sum() / weights.sum()

    change = torch.zeros((*tokens.shape, 5), requires_grad=True)
    clean = loss(change)
    slope = torch.autograd.grad(clean, change, retain_graph=True)[0]
    length = slope.flatten(1).norm(dim=1)[:, None, None]
    worse = loss(torch.where(length > 0, 0.7 * slope / length, torch.zeros(())))
    expected = torch.autograd.grad(0.5 * clean + 0.5 * worse, leaves)
    np.testing.assert_allclose(found["table"], expected[0], atol=1e-6)
    np.testing.assert_allclose(found["head"], expected[1], atol=1e-6)
    assert float(sums.metrics["nll"][0] / 3.0) == pytest.approx(clean.item(), rel=1e-5)
    assert float(sums.metrics["adversarial_loss"][0] / 3.0) == pytest.approx(worse.item(), rel=1e-5)
