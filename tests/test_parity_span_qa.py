"""The loss of answers' places and its gradients against transformers' BertForQuestionAnswering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity_bert import make_theirs, random_params, torch_tensors

from minillm import params
from minillm.models import bert
from minillm.models.contract import bind
from minillm.objectives.contract import total_loss
from minillm.objectives.supervised import span_qa

pytestmark = pytest.mark.parity


def test_loss_and_gradients_are_theirs():
    import torch

    vocabulary, length, rows, size = 50, 12, 3, (50, 12, 2, 8, 2)
    config = bert.Config(vocabulary=vocabulary, context=length, layers=2, width=8, heads=2, tasks=("span",))
    ours, model, generator = random_params(config, 0), bind(bert, config), np.random.default_rng(0)
    batch = {
        "tokens": generator.integers(0, vocabulary, (rows, length)).astype(np.int32),
        "token_types": generator.integers(0, 2, (rows, length)).astype(np.int32),
        "mask": np.arange(length) < generator.integers(6, length + 1, (rows, 1)),
        "labels": generator.integers(0, 6, (rows, 2)).astype(np.int32),
        "weights": np.ones(rows, np.float32),
        "answerable": np.ones((rows, length), bool),  # they look for answers everywhere
    }
    theirs, named = make_theirs("BertForQuestionAnswering", size, ours, 2)
    whole = {name: torch.tensor(batch[name]).long() for name in ("tokens", "mask", "token_types", "labels")}
    expected = theirs(
        input_ids=whole["tokens"], attention_mask=whole["mask"], token_type_ids=whole["token_types"],
        start_positions=whole["labels"][:, 0], end_positions=whole["labels"][:, 1],
    ).loss  # fmt: skip

    def loss(weights):
        sums = span_qa(model, weights, jax.tree.map(jnp.asarray, batch))
        return total_loss(sums, sums.weights, {})

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    expected.backward()
    for path, found in torch_tensors(params.flatten(gradients), False).items():
        np.testing.assert_allclose(found, named[path].grad.numpy(), atol=1e-5, rtol=1e-4, err_msg=path)


def test_tokens_that_cannot_answer_take_no_share():
    """A passage's loss is that of its own tokens and the class token, whatever stands beside them."""
    config = bert.Config(vocabulary=9, context=6, layers=1, width=4, heads=1, tasks=("span",), dropout=0.0)
    weights, model = random_params(config, 1), bind(bert, config)
    batch = {"tokens": jnp.arange(6)[None], "labels": jnp.array([[3, 4]]), "weights": jnp.ones(1)}
    answerable = np.array([[True, False, False, True, True, False]])
    found = span_qa(model, weights, batch | {"answerable": jnp.asarray(answerable)})
    scores = np.asarray(model.heads["span"](weights, model.apply(weights, batch).hidden))[0][answerable[0]]
    likely = scores - np.log(np.exp(scores).sum(0))
    np.testing.assert_allclose(found.sums["loss"], -(likely[1, 0] + likely[2, 1]) / 2, rtol=1e-5)
    assert float(found.weights["loss"]) == 1.0
