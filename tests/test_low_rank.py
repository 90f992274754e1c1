"""LoRA and AdaLoRA: they start as the pretrained model, train their own rows only, merge, and move their ranks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.errors import UserError
from minillm.experiment.paper.describe import product_flops
from minillm.models import MODELS
from minillm.models.contract import bind
from minillm.nn.linear import LowRank, linear
from minillm.objectives.contract import Sums
from minillm.sections.experiment import TuningConfig
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import accumulate, init_state, make_gradient, make_train_step
from minillm.tuning import make_tuning
from minillm.tuning.adalora import Budget, live_ranks, non_orthogonality, triplet_scores
from minillm.tuning.lora import merge, unmerge

TOKENS = jnp.arange(24, dtype=jnp.int32).reshape(2, 12) % 11
TRANSFORMER = {"layers": 2, "width": 16, "heads": 2, "context": 12, "vocabulary": 11, "dropout": 0.0}
VIT = {
    "layers": 2,
    "width": 16,
    "heads": 2,
    "image": (8, 8),
    "patch": 4,
    "channels": 1,
    "tasks": ("classify",),
    "dropout": 0.0,
}
IMAGES = jax.random.normal(jax.random.key(5), (2, 8, 8, 1))
BATCH = {
    "tokens": TOKENS,
    "targets": (TOKENS + 1) % 11,
    "weights": jnp.ones((2, 12)),
    "source": TOKENS,
    "images": IMAGES,
}
# model -> its settings, patterns over the kernels
CASES = {
    "bert": (TRANSFORMER | {"tasks": ("classify", "masked")}, ("*/query/kernel", "*/up/kernel")),
    "gpt": (TRANSFORMER | {"tied": False}, ("*/query/kernel", "head/kernel")),
    "t5": (TRANSFORMER, ("*/cross_attention/*/kernel", "encoder/*/down/kernel")),
    "vit": (VIT, ("patch/kernel", "*/value/kernel")),
    "lstm": ({"layers": 2, "width": 16, "vocabulary": 11, "dropout": 0.0}, ("*/recurrent/kernel", "*/input/kernel")),
}  # fmt: skip
METHODS = ("lora", "adalora")


def model_of(name, **settings):
    """(model, table, its patterns); no dropout."""
    module, (sizes, targets) = MODELS[name], CASES[name]
    config = module.Config(**sizes | settings)
    return bind(module, config), module.param_specs(config), targets


def tuning_of(method, targets, steps=40, heads=("classify/*", "pooler/*"), **settings):
    return make_tuning(TuningConfig(method, targets=targets, rank=4, **settings), heads=heads, steps=steps)


def shaken(tree, seed=3):
    """Every leaf with noise, so that no product is zero."""
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), tree)


def mean_square(model, weights, batch, key, extra):
    """An objective that every model can be asked for."""
    hidden = model.apply(weights, batch).hidden
    if "classify" in model.heads and "classify" in weights:
        hidden = model.heads["classify"](weights, hidden)
    elif model.logits is not None:
        hidden = model.logits(weights, hidden)
    return Sums({"loss": jnp.square(hidden - 1.0).sum()}, {"loss": jnp.asarray(hidden.size, float)}, {}, extra)


def low_rank_kernel(values, key=0, layers=()):
    keys = jax.random.split(jax.random.key(key), 4)
    draw = lambda place, *shape: jax.random.normal(keys[place], (*layers, *shape))
    return LowRank(draw(0, 6, 5), draw(1, 6, 3), draw(2, 3, 5), draw(3, 3) if values else None, 0.7)


@pytest.mark.parametrize("values", [False, True])
def test_a_low_rank_leaf_multiplies_as_its_sum_which_is_never_built(values):
    kernel, x = low_rank_kernel(values), jax.random.normal(jax.random.key(9), (2, 7, 6))
    middle = kernel.down * (1.0 if kernel.values is None else kernel.values)
    dense = np.asarray(kernel.base) + 0.7 * np.asarray(middle) @ np.asarray(kernel.up)
    np.testing.assert_allclose(linear({"kernel": kernel}, x), x @ dense, rtol=1e-4, atol=1e-5)
    program = jax.make_jaxpr(lambda kernel: linear({"kernel": kernel}, x))(kernel)
    built = [equation for equation in program.jaxpr.eqns if equation.outvars[0].aval.shape == (6, 5)]
    assert not built
    assert linear({"kernel": kernel}, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_it_starts_as_the_model_and_merges_to_the_same(name, method):
    model, specs, targets = model_of(name)
    weights, tuning = params.init_params(specs, jax.random.key(0)), tuning_of(method, targets)
    trainable, frozen, _ = tuning.init(weights, jax.random.key(1))
    hidden = jax.jit(lambda weights: model.apply(weights, BATCH).hidden)
    np.testing.assert_array_equal(hidden(tuning.attach(trainable, frozen)), hidden(weights))
    attached = tuning.attach(shaken(trainable), frozen)
    merged = merge(attached)
    assert jax.tree.structure(merged) == jax.tree.structure(weights)
    assert np.abs(hidden(merged) - hidden(weights)).max() > 1e-2
    np.testing.assert_allclose(hidden(merged), hidden(attached), rtol=1e-4, atol=1e-4)
    back = unmerge(merged, attached)
    assert jax.tree.structure(back) == jax.tree.structure(attached)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(attached), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [pytest.param("bert", marks=pytest.mark.slow), "gpt"])
def test_scanned_checkpointed_narrow_and_unstacked_layers_know_it(name, method):
    _, specs, targets = model_of(name)
    tuning = tuning_of(method, targets)
    trainable, frozen, _ = tuning.init(params.init_params(specs, jax.random.key(0)), jax.random.key(1))
    trainable = shaken(trainable)

    def gradient(**settings):
        model, _, _ = model_of(name, **settings)
        loss = lambda trainable: mean_square(model, tuning.attach(trainable, frozen), BATCH, None, {}).sums["loss"]
        return jax.jit(jax.value_and_grad(loss))(trainable)

    plain, gradients = gradient()
    for settings in ({"scan": True}, {"remat": True}, {"scan": True, "remat": True}):
        value, found = gradient(**settings)
        np.testing.assert_allclose(value, plain, rtol=1e-5)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, gradients)
    for scan in (False, True):
        value, _ = gradient(dtype="bfloat16", scan=scan)
        np.testing.assert_allclose(value, plain, rtol=3e-2)
    attached = tuning.attach(trainable, frozen)
    layers = params.unstack_blocks(attached)["blocks"]
    assert [type(layer["attention"]["query"]["kernel"]) for layer in layers] == [LowRank, LowRank]
    np.testing.assert_array_equal(
        layers[1]["attention"]["query"]["kernel"].up, attached["blocks"]["attention"]["query"]["kernel"].up[1]
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_its_own_rows_and_the_heads_train_and_nothing_else(name, method):
    model, specs, targets = model_of(name)
    tuning, weights = tuning_of(method, targets), params.init_params(specs, jax.random.key(0))
    trainable, frozen, extra = tuning.init(weights, jax.random.key(1))
    rows = tuning.specs(specs)
    assert {path: leaf.shape for path, leaf in params.flatten(trainable).items()} == {
        path: row.shape for path, row in rows.items()
    }
    names = ("down", "up", "values")[: 3 if method == "adalora" else 2]
    assert all(
        path.split("/")[-2:] in [["lora", name] for name in names] or path.split("/")[0] in ("classify", "pooler")
        for path in rows
    )
    assert params.flatten(frozen).keys() == specs.keys() - rows.keys()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 4, params.decay_mask(rows))
    step = jax.jit(make_train_step(make_gradient(mean_square, model, tuning, {}), optimizer, tuning, {}))
    state = init_state(trainable, extra, optimizer)
    assert all(leaf.shape in {(), *(row.shape for row in rows.values())} for leaf in jax.tree.leaves(state))
    for _ in range(3):
        state, _ = step(state, frozen, BATCH, jax.random.key(0))
    for path, leaf in params.flatten(state.trainable).items():
        assert np.abs(leaf - params.flatten(trainable)[path]).max() > 0.0, path


@pytest.mark.parametrize("scan", [False, True])
def test_the_frozen_kernels_get_no_gradient_computation(scan):
    """At rank 1 and width 64 a full gradient is 3 products per kernel, this one 2 (and less below the first kernel)."""
    model, specs, _ = model_of("bert", width=64, tasks=("classify",), scan=scan)
    weights = params.init_params(specs, jax.random.key(0))
    work = {}
    for method in ("full", "lora"):
        section = TuningConfig() if method == "full" else TuningConfig("lora", rank=1)
        tuning = make_tuning(section, heads=("classify/*", "pooler/*"), steps=1)
        trainable, frozen, extra = tuning.init(weights, jax.random.key(1))
        program = jax.make_jaxpr(make_gradient(mean_square, model, tuning, {}))(
            trainable, frozen, extra, BATCH, jax.random.key(0)
        )
        work[method] = product_flops(program.jaxpr)
    assert 0.5 < work["lora"] / work["full"] < 0.7


def adalora_problem(steps=40, shards=1, **settings):
    """Two kernels, of which only the first one's output counts: x W1 shall become a matrix of rank 4."""
    specs = {f"{name}/kernel": params.ParamSpec((8, 8), (None, None), scale=0.1) for name in ("used", "unused")} | {
        "blocks/few/kernel": params.ParamSpec((2, 8, 8), ("layers", None, None), scale=0.1)
    }
    tuning = tuning_of("adalora", ("*/kernel",), steps, heads=(), target_rank=1.5, **settings)
    target = jax.random.normal(jax.random.key(7), (8, 4)) @ jax.random.normal(jax.random.key(8), (4, 8))

    def objective(model, weights, batch, key, extra):
        few = weights["blocks"]["few"]["kernel"]
        layer = LowRank(few.base[1], few.down[1], few.up[1], few.values[1], few.scale)
        error = linear(weights["used"], batch["x"]) - batch["x"] @ target
        other = linear({"kernel": layer}, batch["x"]) - batch["x"] @ target[:, :1]
        return Sums(
            {"loss": jnp.square(error).sum() + 0.1 * jnp.square(other).sum()},
            {"loss": jnp.asarray(4.0 * len(batch["x"]))},
            {},
            extra,
        )

    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=3e-2, schedule="constant"), steps, params.decay_mask(tuning.specs(specs))
    )
    step = jax.jit(
        make_train_step(accumulate(make_gradient(objective, None, tuning, {}), shards), optimizer, tuning, {})
    )
    trainable, frozen, extra = tuning.init(params.init_params(specs, jax.random.key(0)), jax.random.key(1))
    return (
        tuning,
        step,
        init_state(trainable, extra, optimizer),
        frozen,
        {"x": jax.random.normal(jax.random.key(2), (16, 8))},
    )


def test_ranks_move_to_the_kernels_that_matter_and_meet_the_budget():
    _, step, state, frozen, batch = adalora_problem()
    totals, history = [], []
    for number in range(1, 41):
        state, _ = step(state, frozen, batch, jax.random.key(0))
        ranks = live_ranks(state.extra)
        totals.append(sum(sum(row) for row in ranks.values()))
        history.append(ranks)
        values = params.flatten(state.trainable)
        nonzero = {path: (np.asarray(leaf) != 0.0).sum(-1) for path, leaf in values.items() if path.endswith("values")}
        for path, row in nonzero.items():
            assert (row <= np.array(ranks[path.replace("lora/values", "kernel")])).all(), "a pruned value is not zero"
        assert totals[-1] == int(Budget(4, 1.5, 40).after(number, 4))
    assert totals[:4] == [16] * 4, "the first tenth of the run prunes nothing"
    assert sorted(totals, reverse=True) == totals
    assert totals[28:] == [6] * 12
    assert all(ranks == history[-1] for ranks in history[28:]), "the last part of the run moves no rank"
    assert history[-1]["used/kernel"] == [4]
    assert history[-1]["unused/kernel"] == [0]
    assert history[-1]["blocks/few/kernel"][1] > history[-1]["blocks/few/kernel"][0]


def test_accumulated_gradients_give_the_same_ranks():
    found = []
    for shards in (1, 4):
        _, step, state, frozen, batch = adalora_problem(shards=shards)
        for _ in range(20):
            state, _ = step(state, frozen, batch, jax.random.key(0))
        found.append(state)
    assert live_ranks(found[0].extra) == live_ranks(found[1].extra)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, found[0].trainable, found[1].trainable)


def test_a_pruned_value_comes_back_when_it_matters():
    """One value of a kernel has the largest gradient, then another; the optimizer moves every weight by 0.01."""
    tuning, _, state, _, _ = adalora_problem()
    trainable, extra, path, seen = state.trainable, state.extra, "used/lora/values", []
    for number in range(6, 28):
        favourite = 0 if number < 17 else 3
        small = params.flatten(jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), trainable))
        gradients = small | {path: small[path].at[favourite].set(10.0)}
        gradients = {path: leaf * (1 + number % 2) for path, leaf in gradients.items()}
        moved = jax.tree.map(lambda leaf: leaf + 0.01, trainable)
        trainable, extra = tuning.update(moved, extra, params.unflatten(gradients), number)
        seen.append(np.asarray(params.flatten(extra["live"])[path]))
        np.testing.assert_array_equal(np.asarray(params.flatten(trainable)[path]) != 0.0, seen[-1])
    assert seen[10][0]
    assert not seen[10][3], "the last value was pruned while it did not matter"
    assert seen[-1][3], "and it is back"


def test_scores_and_penalty_are_the_papers_formulas():
    tuning, _, state, frozen, _ = adalora_problem(orthogonality=0.5)
    trainable, extra, sensitivity, uncertainty = shaken(state.trainable), state.extra, 0.0, 0.0
    for number in range(3):
        gradients = shaken(jax.tree.map(jnp.zeros_like, trainable), seed=number)
        now = jax.tree.map(lambda w, g: np.abs(np.asarray(w) * np.asarray(g)), trainable, gradients)
        now = {path: leaf for path, leaf in params.flatten(now).items() if path.startswith("blocks/few")}
        sensitivity = {p: 0.85 * (sensitivity[p] if number else 0.0) + 0.15 * leaf for p, leaf in now.items()}
        uncertainty = {
            p: 0.85 * (uncertainty[p] if number else 0.0) + 0.15 * np.abs(leaf - sensitivity[p])
            for p, leaf in now.items()
        }
        trainable, extra = tuning.update(trainable, extra, gradients, 0)
    score = {path.split("/")[-1]: sensitivity[path] * uncertainty[path] for path in sensitivity}
    expected = score["values"] + score["down"].mean(1) + score["up"].mean(2)
    np.testing.assert_allclose(triplet_scores(extra)["blocks/few/lora/values"], expected, rtol=1e-4)
    wanted = 0.0
    for path, leaf in params.flatten(trainable).items():
        for matrix in np.asarray(leaf, np.float64).reshape(-1, *leaf.shape[-2:]) if not path.endswith("values") else ():
            gram = matrix.T @ matrix if path.endswith("down") else matrix @ matrix.T
            wanted += np.square(gram - np.eye(4)).sum()
    np.testing.assert_allclose(tuning.penalty(trainable, frozen), 0.5 * wanted, rtol=1e-5)
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 4)))[0]
    assert float(non_orthogonality({"down": basis, "up": basis.T})) < 1e-9
    assert tuning_of("adalora", ("*/kernel",), orthogonality=0.0).penalty is None


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_budget_falls_from_rank_to_target_rank(steps):
    budget = Budget(8, 2.5, steps)
    falls = np.asarray(jax.vmap(lambda step: budget.after(step, 6))(jnp.arange(steps + 3)))
    assert falls[0] == 48
    assert (np.diff(falls) <= 0).all()
    assert (falls[steps - int(0.3 * steps) :] == 15).all()
    assert bool(budget.settled(steps)) == (int(0.3 * steps) > 0)


def test_patterns_and_ranks_that_do_not_fit_are_refused():
    _, specs, _ = model_of("lstm")
    refused = {"matches no kernel": ("*/query/kernel",), "there are: blocks/input/kernel": ("*/kernel", "*/bias")}
    for words, targets in refused.items():
        with pytest.raises(UserError, match=words):
            tuning_of("lora", targets).specs(specs)
    with pytest.raises(UserError, match=r"tuning\.rank.*no rank of 17"):
        make_tuning(TuningConfig("lora", targets=("*/recurrent/kernel",), rank=17), heads=(), steps=1).specs(specs)
    for settings, words in (
        ({"target_rank": 9.0}, "at most rank"),
        ({"targets": ()}, "at least one"),
        ({"adapter_size": 3}, "says nothing"),
    ):
        with pytest.raises(ValueError, match=words):
            TuningConfig("adalora", **settings)
