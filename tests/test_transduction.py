"""Both encoder-decoders learn to copy and to reverse, exactly, on strings that they have never seen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minillm import params
from minillm.data.synthetic import BEGIN, END, FIRST
from minillm.data.transduction import TASKS, transduction_batch
from minillm.inference.generate import Sampling, generate
from minillm.models import t5, transformer
from minillm.models.contract import bind
from minillm.objectives.contract import total_loss
from minillm.objectives.sequence_to_sequence import sequence_to_sequence

LENGTH, SYMBOLS, STEPS, ROWS = 5, 6, 1400, 64


def strings(batch):
    """(source, target) of every row, without the end."""
    cut = lambda ids, keep: [row[real].tolist()[:-1] for row, real in zip(ids, keep, strict=True)]
    return cut(batch["source"], batch["source_mask"]), cut(batch["targets"], batch["weights"] > 0.0)


@pytest.mark.parametrize("task", TASKS)
def test_batches_hold_the_task(task):
    seen = {}
    for split in ("train", "validation"):
        batch = transduction_batch(0, 3, 200, LENGTH, SYMBOLS, task, split)
        sources, targets = strings(batch)
        assert targets == [source if task == "copy" else source[::-1] for source in sources]
        assert {len(source) for source in sources} == set(range(1, LENGTH + 1))
        assert all((sum(source) - FIRST * len(source)) % 4 == 0 for source in sources) == (split == "validation")
        real = batch["weights"] > 0.0
        np.testing.assert_array_equal(batch["tokens"][:, 1:][real[:, 1:]], batch["targets"][:, :-1][real[:, 1:]])
        assert np.all(batch["tokens"][:, 0] == BEGIN)
        seen[split] = {tuple(source) for source in sources}
    assert not seen["train"] & seen["validation"]


def train(module, config, weights, batches):
    """Adam over a stack of batches, in one compiled loop."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(4e-3, STEPS)))
    model = bind(module, config)

    def loss(weights, batch):
        sums = sequence_to_sequence(model, weights, batch)
        return total_loss(sums, sums.weights, {})

    def step(state, batch):
        weights, optimizer_state = state
        updates, optimizer_state = optimizer.update(jax.grad(loss)(weights, batch), optimizer_state, weights)
        return (optax.apply_updates(weights, updates), optimizer_state), None

    return jax.lax.scan(step, (weights, optimizer.init(weights)), batches)[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("module", [transformer, t5], ids=["transformer", "t5"])
def test_copy_and_reverse_are_learned_exactly(module):
    config = module.Config(vocabulary=FIRST + SYMBOLS, context=16, layers=1, width=32, heads=4, hidden=64)
    weights = params.init_params(module.param_specs(config), jax.random.key(0))
    stacked = lambda rows: jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    batch = lambda task, step: transduction_batch(0, step, ROWS, LENGTH, SYMBOLS, task)
    batches = stacked([stacked([batch(task, step) for step in range(STEPS)]) for task in TASKS])
    run = jax.jit(jax.vmap(lambda batches: train(module, config, weights, batches)))  # both tasks in one compilation
    trained = run(batches)
    for number, task in enumerate(TASKS):
        own = jax.tree.map(lambda leaf, number=number: jnp.asarray(leaf[number]), trained)
        sources, targets = strings(transduction_batch(0, 0, 128, LENGTH, SYMBOLS, task, "validation"))
        found = generate(module, config, own, [[BEGIN]] * 128, LENGTH + 1, key=jax.random.key(0), sampling=Sampling(0.0),
                         stop=(END,), sources=[[*source, END] for source in sources])  # fmt: skip
        assert found == targets
