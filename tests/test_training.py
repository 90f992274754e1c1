"""Optimisers, schedules, the step and the loop: by their formulas, and by what they leave alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minillm import params
from minillm.errors import Diverged, UserError
from minillm.objectives.contract import Sums
from minillm.training import loop
from minillm.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from minillm.training.state import State
from minillm.training.step import accumulate, init_state, make_gradient, make_train_step
from minillm.tuning import freeze, full

NAMES = ("sgd", "momentum", "adam", "adamw", "adafactor")


@pytest.mark.parametrize(("schedule", "formula"), [
    ("constant", lambda t: 1.0), ("linear", lambda t: 1.0 - 0.9 * t / 90), ("cosine", lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t / 90)) / 2),
    ("inverse_square_root", lambda t: math.sqrt(10 / (10 + t))),
])  # fmt: skip
def test_warm_up_then_the_named_decay(schedule, formula):
    rate = make_schedule(OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup_steps=10, final_ratio=0.1), 100)
    np.testing.assert_allclose(
        [rate(step) for step in range(10)], [2.0 * (step + 1 * (1 - step / 10)) / 10 for step in range(10)], rtol=1e-5
    )
    np.testing.assert_allclose(
        [rate(10 + t) for t in (0, 1, 45, 89)], [2.0 * formula(t) for t in (0, 1, 45, 89)], rtol=1e-5
    )


def test_without_warm_up_the_first_step_has_the_peak():
    assert float(make_schedule(OptimizerConfig(learning_rate=0.5), 10)(0)) == 0.5


def quadratic(model, weights, batch, key, extra):
    """sum of weight * (x . w - y)^2 / 2 over the examples."""
    error = batch["x"] @ weights["layer"]["kernel"] + weights["layer"]["bias"] - batch["y"]
    return Sums(
        {"loss": (0.5 * error**2 * batch["weights"][:, None]).sum()}, {"loss": batch["weights"].sum()}, {}, extra
    )


SPECS = {
    "layer/kernel": params.ParamSpec((3, 2), (None, None), scale=0.5),
    "layer/bias": params.ParamSpec((2,), (None,), "ones"),
}


def problem(**settings):
    weights = params.init_params(SPECS, jax.random.key(0))
    x, y, w = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(8, 3), (8, 2), (8,)]))
    optimizer = make_optimizer(OptimizerConfig(**settings), 50, params.decay_mask(SPECS))
    return weights, {"x": x, "y": y, "weights": jnp.abs(w).at[3].set(0.0)}, optimizer


def norm(tree):
    return np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def step_of(optimizer, tuning=None, shards=1):
    tuning = tuning or full()
    gradient = accumulate(make_gradient(quadratic, None, tuning, {}), shards)
    return jax.jit(make_train_step(gradient, optimizer, tuning, {}))


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_descends_and_accumulation_changes_nothing(name):
    weights, batch, optimizer = problem(name=name, learning_rate=0.05, schedule="constant")
    results = []
    for shards in (1, 4):
        state, step, losses = init_state(weights, {}, optimizer), step_of(optimizer, shards=shards), []
        for _ in range(50):
            state, metrics = step(state, {}, batch, jax.random.key(0))
            losses.append(float(metrics["loss"]))
        results.append((losses, state.trainable))
        assert losses[-1] < 0.8 * losses[0]
        assert int(state.step) == 50
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=2e-4)


def test_decay_reaches_matrices_only_and_is_decoupled_from_the_gradient():
    weights, _, optimizer = problem(learning_rate=0.1, schedule="constant", weight_decay=0.3)
    state = init_state(weights, {}, optimizer)
    zero = jax.tree.map(jnp.zeros_like, weights)
    updates, _ = optimizer.update(zero, state.optimizer, weights)
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.1 * 0.3 * weights["layer"]["kernel"], rtol=1e-6)
    assert not updates["layer"]["bias"].any()


def test_clipping_scales_all_leaves_by_one_factor_and_reports_the_norm_before():
    weights, batch, _ = problem()
    optimizer = make_optimizer(
        OptimizerConfig(name="sgd", learning_rate=1.0, schedule="constant", clip_norm=0.01), 5, params.decay_mask(SPECS)
    )
    state, metrics = step_of(optimizer)(init_state(weights, {}, optimizer), {}, batch, jax.random.key(0))
    change = jax.tree.map(jnp.subtract, state.trainable, weights)
    gradients, _ = make_gradient(quadratic, None, full(), {})(weights, {}, {}, batch, None)
    np.testing.assert_allclose(norm(change), 0.01, rtol=1e-4)
    np.testing.assert_allclose(metrics["gradient_norm"], norm(gradients), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(change), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, -0.01 * b / norm(gradients), atol=1e-6)


def test_frozen_leaves_do_not_move_and_have_no_optimizer_state():
    tuning = freeze(["layer/kernel"])
    weights, batch, _ = problem()
    trainable, frozen, extra = tuning.init(weights, None)
    optimizer = make_optimizer(OptimizerConfig(), 5, params.decay_mask(tuning.specs(SPECS)))
    state, _ = step_of(optimizer, tuning)(init_state(trainable, extra, optimizer), frozen, batch, jax.random.key(0))
    assert set(params.flatten(state.trainable)) == {"layer/bias"}
    assert not any(leaf.shape == (3, 2) for leaf in jax.tree.leaves(state))
    np.testing.assert_array_equal(tuning.attach(state.trainable, frozen)["layer"]["kernel"], weights["layer"]["kernel"])
    for patterns, words in ((["nothing/*"], "matches no parameter"), (["*"], "every parameter is frozen")):
        with pytest.raises(UserError, match=words):
            freeze(patterns).init(weights, None)


def drive(losses, patience, steps=100, stop_at=None):
    """The loop over a step that does nothing; evaluation number i gives losses[i]."""
    seen = {"evaluations": 0, "saved": [], "logged": []}

    def evaluate(step, state):
        seen["evaluations"] += 1
        return losses[min(seen["evaluations"], len(losses)) - 1]

    hooks = loop.Hooks(
        batch=lambda step: {"number": step}, place=lambda batch: batch,
        log=lambda step, number, batch, metrics, seconds, state: seen["logged"].append((step, batch["number"], state is None)),
        evaluate=evaluate, save=lambda state, progress: seen["saved"].append((int(state.step), progress)),
        stopping=lambda: stop_at is not None and len(seen["logged"]) >= stop_at,
    )  # fmt: skip
    plan = loop.Plan(steps, 10, 20, 7, patience, True)
    step = lambda state, frozen, batch, key: (state._replace(step=state.step + 1), {"loss": 1.0})
    state, progress, ended = loop.fit(step, State(0, None, None, None), None, None, plan, loop.Progress(), hooks)
    return state.step, progress, ended, seen


def test_early_stopping_waits_for_patience_and_remembers_the_best():
    step, progress, ended, seen = drive([3.0, 2.0, 2.5, 2.1, 1.0], patience=2)
    assert (step, progress.best, progress.best_step, progress.finished, ended) == (40, 2.0, 20, True, True)
    assert seen["saved"][-1][0] == 40
    assert drive([3.0, 2.0, 2.5, 2.1, 1.0], patience=None)[0] == 100


def test_every_step_is_logged_once_in_order_with_its_own_batch():
    _, _, _, seen = drive([1.0], None, steps=25)
    assert [step for step, _, _ in seen["logged"]] == list(range(1, 26))
    assert all(number == step - 1 for step, number, _ in seen["logged"])
    assert [step for step, _, without in seen["logged"] if not without] == [
        7,
        14,
        21,
    ]  # hashed with the state of that step


def test_a_stop_saves_at_the_step_where_it_stands():
    step, _, ended, seen = drive([1.0], None, stop_at=13)
    assert not ended
    assert seen["saved"][-1][0] == step == seen["logged"][-1][0]


def test_a_loss_that_is_not_finite_ends_training():
    hooks = loop.Hooks(
        lambda step: {}, lambda batch: batch, lambda *a: None, lambda *a: 1.0, lambda *a: None, lambda: False
    )
    step = lambda state, frozen, batch, key: (state._replace(step=state.step + 1), {"loss": math.nan})
    with pytest.raises(Diverged, match="became nan at step 1"):
        loop.fit(
            step, State(0, None, None, None), None, None, loop.Plan(5, 5, 5, 0, None, True), loop.Progress(), hooks
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_skipped_step_changes_nothing_but_step_and_schedule(name):
    weights, batch, optimizer = problem(name=name, learning_rate=0.05, warmup_steps=3)
    gradient = make_gradient(quadratic, None, full(), {})
    plain, guarded = (jax.jit(make_train_step(gradient, optimizer, full(), {}, skip)) for skip in (False, True))
    before, _ = plain(init_state(weights, {}, optimizer), {}, batch, jax.random.key(0))
    for a, b in zip(
        *(jax.tree.leaves(step(before, {}, batch, jax.random.key(0))) for step in (plain, guarded)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    after, metrics = guarded(before, {}, batch | {"y": batch["y"].at[0].set(jnp.inf)}, jax.random.key(0))
    assert not np.isfinite(metrics["loss"])
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]
    assert (int(after.step), same.count(False)) == (2, 2)  # the step and the schedule's count, which gives the rate
    (count,) = (s.count for s in jax.tree.leaves(after.optimizer, is_leaf=is_schedule) if is_schedule(s))
    assert int(count) == 2


def is_schedule(part):
    return isinstance(part, optax.ScaleByScheduleState)
