"""Shell or original? Copies of every kind of one small model, and models that only look alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minillm.evaluation import origin
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.params import flatten, init_params, unflatten

CONFIG = gpt.Config(vocabulary=64, context=16, layers=2, width=32, heads=4)
SPECS = gpt.param_specs(CONFIG)
AXES = {path: spec.axes for path, spec in SPECS.items()}
MODEL = bind(gpt, CONFIG)
HEAD = CONFIG.width // CONFIG.heads


def batch(key, multiplier):
    """Sequences in which most tokens are a function of the one before."""
    keys = jax.random.split(key, 17)

    def step(token, key):
        other = jax.random.randint(key, (32,), 0, 64)
        token = jnp.where(jax.random.bernoulli(key, 0.8, (32,)), (multiplier * token + 7) % 64, other)
        return token, token

    return jax.lax.scan(step, jax.random.randint(keys[0], (32,), 0, 64), keys[1:])[1].T


@jax.jit
def train(params, steps, rate, seed, multiplier):
    """Steps, rate and task are arguments of one compiled function."""
    optimizer = optax.adamw(rate)

    def loss(params, tokens):
        hidden = MODEL.apply(params, {"tokens": tokens[:, :-1]}).hidden
        losses = optax.softmax_cross_entropy_with_integer_labels(MODEL.logits(params, hidden), tokens[:, 1:])
        return losses.mean()

    def step(number, state):
        params, moments = state
        gradients = jax.grad(loss)(params, batch(jax.random.fold_in(jax.random.key(seed), number), multiplier))
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    return jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]


def plain(params):
    return {path: np.array(leaf) for path, leaf in flatten(params).items()}


@pytest.fixture(scope="module")
def original():
    return plain(train(init_params(SPECS, jax.random.key(0)), 200, 3e-3, 0, 3))


def judge(left, right, axes=AXES):
    found = origin.compare(unflatten(left), unflatten(right), axes, CONFIG.heads)
    return found["verdict"]["words"], found


def reorder(flat, seed: int = 0):
    """The same function: in each layer heads and feed-forward units stand in another order."""
    found, random = {path: leaf.copy() for path, leaf in flat.items()}, np.random.default_rng(seed)
    hidden = flat["blocks/feedforward/up/kernel"].shape[-1]
    for layer in range(CONFIG.layers):
        heads = (random.permutation(CONFIG.heads)[:, None] * HEAD + np.arange(HEAD)).ravel()
        orders = {"attention": heads, "hidden": random.permutation(hidden)}
        for path in found:
            for axis, order in orders.items():
                if axis in AXES[path]:
                    found[path][layer] = np.take(found[path][layer], order, axis=AXES[path].index(axis) - 1)
    return found


def rotate_heads(flat):
    """The same function: in each head keys and queries, values and outputs are turned, R R^T = 1."""
    found, random = {path: leaf.copy() for path, leaf in flat.items()}, np.random.default_rng(0)
    name = "blocks/attention/{}/{}".format
    for layer in range(CONFIG.layers):
        for start in range(0, CONFIG.width, HEAD):
            part = slice(start, start + HEAD)
            turns = [np.linalg.qr(random.normal(size=(HEAD, HEAD)))[0] for _ in range(2)]
            for which, turn in zip(("query", "key", "value"), (turns[0], turns[0], turns[1]), strict=True):
                found[name(which, "kernel")][layer][:, part] = found[name(which, "kernel")][layer][:, part] @ turn
                found[name(which, "bias")][layer][part] = found[name(which, "bias")][layer][part] @ turn
            output = found[name("output", "kernel")]
            output[layer][part] = turns[1].T @ output[layer][part]
    return found


def reorder_residual(flat):
    """The same function: the residual stream's coordinates stand in another order everywhere."""
    order, found = np.random.default_rng(0).permutation(CONFIG.width), {}
    for path, leaf in flat.items():
        axes = ["model" if "norm" in path and axis is None else axis for axis in AXES[path]]
        found[path] = np.take(leaf, order, axis=axes.index("model")) if "model" in axes else leaf
    return found


def quantise(flat, levels: int, axis: int | None):
    def rounded(leaf):
        step = np.abs(leaf).max(axis=axis, keepdims=True) / levels
        return np.round(leaf / np.where(step > 0, step, 1)) * step

    matrices = [path for path in flat if SPECS[path].decays]
    return flat | {path: rounded(flat[path]).astype(np.float32) for path in matrices}


def cast(flat, kind):
    return {path: np.asarray(jnp.asarray(leaf).astype(kind).astype(jnp.float32)) for path, leaf in flat.items()}


def add_low_rank(flat, rank: int = 3):
    found, random = dict(flat), np.random.default_rng(0)
    for which in ("query", "value"):
        path = f"blocks/attention/{which}/kernel"
        down, up = random.normal(size=(2, 32, rank)), 0.005 * random.normal(size=(2, rank, 32))
        found[path] = (flat[path] + down @ up).astype(np.float32)
    return found


@jax.jit
def logits(flat):
    params = unflatten(flat)
    return MODEL.logits(params, MODEL.apply(params, {"tokens": batch(jax.random.key(9), 3)[:, :-1]}).hidden)


def test_an_identical_copy(original):
    words, found = judge(original, {path: leaf.copy() for path, leaf in original.items()})
    assert words == "the same weights"
    assert found["equal_tensors"] == found["compared"] == 1.0
    assert all(row["cosine"] == pytest.approx(1.0) and row["difference"] == 0.0 for row in found["rows"])


@pytest.mark.parametrize(("steps", "rate"), [(5, 1e-6), (5, 1e-4), (20, 1e-3), (200, 1e-3)])
def test_a_few_and_many_steps_on_another_task(original, steps, rate):
    tuned = plain(train(unflatten(original), steps, rate, 5, 5))
    words, found = judge(original, tuned)
    assert words == "fine-tuned from it, or both from one start"
    assert found["moved"] == 0
    assert not any(row["rounded"] for row in found["rows"])
    words, found = judge(original, reorder(tuned))  # and disguised
    assert words == "fine-tuned from it, or both from one start"
    assert "heads and units stand elsewhere" in found["verdict"]["reason"]


def test_a_merged_lora_shows_its_rank(original):
    words, found = judge(original, add_low_rank(original))
    assert words == "fine-tuned from it, or both from one start"
    assert "the difference of 2 is of rank 3 or less" in found["verdict"]["reason"]
    assert "2 of 8 matrices differ" in found["verdict"]["reason"]


def test_a_table_of_which_few_rows_were_read_is_no_low_rank(original):
    """Training moves the rows of a lookup that it meets: few of many, and yet each freely."""
    axes, random = ("vocab", "model"), np.random.default_rng(0)
    table = random.normal(size=(64, 32)).astype(np.float32)
    read = table.copy()
    read[:6] += 0.1 * random.normal(size=(6, 32)).astype(np.float32)
    assert origin.low_rank(table, read, axes) is None
    everywhere = (table + random.normal(size=(64, 6)) @ random.normal(size=(6, 32)) * 0.01).astype(np.float32)
    assert origin.low_rank(table, everywhere, axes) == 6


def test_tuned_biases_alone(original):
    tuned = {path: leaf + 0.01 if path.endswith("/bias") else leaf for path, leaf in original.items()}
    words, found = judge(original, tuned)
    assert words == "fine-tuned from it, or both from one start"
    assert "all matrices are the same, biases or scales are not" in found["verdict"]["reason"]


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "int8 by column", "int4 by column"])
def test_rounded_copies(original, kind):
    settings = {"int8": (127, None), "int8 by column": (127, -2), "int4 by column": (7, -2)}
    copy = quantise(original, *settings[kind]) if kind in settings else cast(original, kind)
    assert judge(original, copy)[0] == judge(copy, original)[0] == "the same weights, rounded"
    assert judge(original, reorder(copy))[0] == "the same weights, rounded, in another order"


def test_heads_and_units_in_another_order(original):
    copy = reorder(original)
    np.testing.assert_allclose(logits(copy), logits(original), atol=1e-4)
    words, found = judge(original, copy)
    assert words == "the same weights, in another order"
    rows = {row["path"]: row for row in found["rows"]}
    assert rows["blocks/feedforward/up/kernel"]["cosine"] < 0.2
    assert rows["blocks/feedforward/up/kernel"]["aligned_cosine"] == pytest.approx(1.0)
    assert found["spectrum"]["difference"] < 1e-6


@pytest.mark.parametrize("disguise", [rotate_heads, reorder_residual])
def test_another_basis_keeps_the_singular_values(original, disguise):
    copy = disguise(original)
    np.testing.assert_allclose(logits(copy), logits(original), atol=1e-4)
    assert judge(original, copy)[0] == "the same weights, in another basis"


def test_another_seed_is_unrelated_trained_or_not(original):
    start = init_params(SPECS, jax.random.key(1))
    for other in (plain(start), plain(train(start, 200, 3e-3, 1, 3))):
        words, found = judge(original, other)
        assert words == "unrelated"
        assert all(abs(row["cosine"]) < 0.1 for row in found["rows"] if row["matrix"] and row["size"] > 500)
    starts = plain(init_params(SPECS, jax.random.key(0))), plain(start)
    assert judge(*starts)[0] == "unrelated"  # though the spectra of two random starts are alike
    scales = [row for row in found["rows"] if row["path"].endswith("norm/scale")]
    assert all(row["cosine"] > 0.9 for row in scales)  # which is why they are not judged


def test_one_start_and_two_tasks_leave_a_trace(original):
    other = plain(train(init_params(SPECS, jax.random.key(0)), 200, 3e-3, 7, 5))
    assert judge(original, other)[0] in ("a trace of one start", "partly the same")


def test_half_of_the_layers_taken(original):
    copy = plain(init_params(SPECS, jax.random.key(1)))
    for path, leaf in original.items():
        if path.startswith("blocks/"):
            copy[path][0] = leaf[0]
    words, _ = judge(original, copy)
    assert words == "partly the same"


def test_what_only_one_has_is_named_and_not_judged(original):
    other = {path: leaf for path, leaf in original.items() if path != "position/table"} | {
        "head/kernel": np.ones((30, 20))
    }
    other["final_norm/scale"] = np.ones(7, np.float32)
    words, found = judge(original, other, AXES | {"head/kernel": ("model", None)})
    assert words == "the same weights"
    assert (found["only_left"], found["only_right"]) == (["position/table"], ["head/kernel"])
    assert found["other_shape"] == ["final_norm/scale"]
    assert "of the second's numbers were compared" in found["verdict"]["reason"]
    nothing = judge(original, {"head/kernel": np.ones((30, 20))}, AXES | {"head/kernel": ("model", None)})
    assert nothing[0] == "nothing to compare"


def test_another_vocabulary_is_compared_by_its_shared_pieces(original):
    random = np.random.default_rng(0)
    order = random.permutation(64)[:40]  # the right one's ids 0, 1, ... are these pieces of the left one
    table = np.concatenate([original["embedding/table"][order], random.normal(size=(10, 32)).astype(np.float32)])
    other = original | {"embedding/table": table}
    ids = order, np.arange(40)
    found = origin.compare(unflatten(original), unflatten(other), AXES, CONFIG.heads, ids)
    assert found["verdict"]["words"] == "the same weights"
    total = sum(leaf.size for leaf in other.values())
    assert found["compared"] == pytest.approx((total - 10 * 32) / total)
    nothing = np.zeros(0, np.int64)
    found = origin.compare(unflatten(original), unflatten(other), AXES, CONFIG.heads, (nothing, nothing))
    assert found["other_shape"] == ["embedding/table"]


def test_zeros_and_singular_values():
    assert origin.cosine(np.zeros(3), np.zeros(3)) == 1.0
    assert origin.cosine(np.zeros(3), np.ones(3)) == 0.0
    matrix = np.random.default_rng(0).normal(size=(5, 9))
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(origin.singular_values(matrix), expected, rtol=1e-7)
    np.testing.assert_allclose(origin.singular_values(matrix.T), expected, rtol=1e-7)
