"""Properties of convolutions, ViT and autoencoders and their objectives: what must hold whatever the weights are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.data import images
from minillm.models import MODELS, autoencoder, vit
from minillm.models.contract import bind
from minillm.nn import convolution
from minillm.objectives import OBJECTIVES
from minillm.objectives.denoising import denoising, masked_patches
from minillm.objectives.supervised import classify
from minillm.sharding import RULES, batch_sharding, make_mesh, param_shardings, replicated
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import accumulate, init_state, make_eval_step, make_gradient, make_train_step, means
from minillm.tuning import full

ROWS = 8
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles 3 times faster
DIGITS = images.digits()
TRAIN, VALIDATION = images.split(DIGITS, "train"), images.split(DIGITS, "validation")
ALL = ("pool", "classify", "patches")


def make(seed=0, **settings):
    config = vit.Config(**({"layers": 2, "width": 16, "heads": 2, "tasks": ALL} | settings))
    return config, params.init_params(vit.param_specs(config), jax.random.key(seed))


def make_batch(step=0):
    """A classified, corrupted and masked batch, two of whose images do not count."""
    batch = images.image_batch_at(TRAIN, 0, step, ROWS)
    batch = images.mask_patches(images.corrupt_pixels(batch, 0, step), 0, step, 2)
    batch["weights"][[1, 4]] = 0.0
    return jax.tree.map(jnp.asarray, batch)


def plain(batch):
    return {name: leaf for name, leaf in batch.items() if name != "masked_patches"}


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"atol": 1e-6} | tolerance)), a, b)


# Convolution


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (2, 2, 0), ((3, 2), (2, 1), (0, 1))])
def test_convolution_equals_the_compilers(size, stride, padding):
    """The readable form against `lax.conv_general_dilated`: values and gradients."""
    pair = lambda value: (value, value) if isinstance(value, int) else value
    x, kernel = (
        jax.random.normal(jax.random.key(0), (2, 7, 6, 3)),
        jax.random.normal(jax.random.key(1), (*pair(size), 3, 5)),
    )
    ours = lambda x, kernel: convolution.convolve({"kernel": kernel.reshape(-1, 5)}, x, size, stride, padding)
    theirs = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, pair(stride), [(p, p) for p in pair(padding)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    close(ours(x, kernel), theirs(x, kernel), atol=1e-5)
    score = lambda function: jax.grad(lambda x, kernel: jnp.sin(function(x, kernel)).sum(), (0, 1))(x, kernel)
    close(score(ours), score(theirs), atol=1e-4)


def test_convolution_moves_with_its_input():
    """Equivariance: a shifted input gives a shifted output, away from the border."""
    x = jax.random.normal(jax.random.key(0), (1, 9, 9, 2))
    layer = params.init_params(convolution.convolution_specs((3, 3), 2, 4), jax.random.key(1))
    run = lambda x: convolution.convolve(layer, x, 3)
    close(run(jnp.roll(x, (1, 2), (1, 2)))[:, 1:, 2:], run(x)[:, :-1, :-2])


def test_convolution_is_local():
    layer = params.init_params(convolution.convolution_specs((3,), 1, 1), jax.random.key(1))
    reach = jax.jacobian(lambda x: convolution.convolve(layer, x, 3, padding=1)[0, :, 0])(jnp.ones((1, 7, 1)))
    distance = np.abs(np.arange(7)[:, None] - np.arange(7))
    np.testing.assert_array_equal(np.asarray(reach[:, 0, :, 0]) != 0.0, distance <= 1)


def test_pooling_by_hand():
    x = jnp.array([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, -1.0, -2.0]])[None, :, :, None]
    close(convolution.max_pool(x, 2)[0, 0, :, 0], jnp.array([5.0, 2.0]))
    close(convolution.average_pool(x, 2)[0, 0, :, 0], jnp.array([3.25, -0.25]))
    close(convolution.max_pool(-jnp.abs(x), 2, 1, 1)[0, 0, 0, 0], jnp.array(-1.0))  # padding never wins
    close(convolution.upsample(x[:, :1, :2])[0, :, :, 0], jnp.array([[1.0, 1.0, 5.0, 5.0]] * 2))


def test_patches_are_windows_that_do_not_overlap():
    x = jax.random.normal(jax.random.key(0), (2, 6, 9, 2))
    np.testing.assert_array_equal(convolution.patches(x, 3), convolution.windows(x, 3, 3))
    rows = convolution.merge_windows(convolution.patches(x, 3)).reshape(2, 6, 18)
    np.testing.assert_array_equal(rows, images.cut_patches(np.asarray(x), 3))


def test_impossible_windows_are_refused():
    x = jnp.ones((1, 4, 4, 1))
    with pytest.raises(ValueError, match="larger than the input"):
        convolution.windows(x, 5)
    with pytest.raises(ValueError, match="do not tile"):
        convolution.patches(x, 3)
    with pytest.raises(ValueError, match="names 1 axes"):
        convolution.windows(x, (2,))


# ViT


def test_the_class_token_sees_every_patch_and_every_patch_the_class_token():
    config, weights = make(layers=1)
    x = vit.embed(weights, {"images": jnp.asarray(TRAIN.images[:1])}, config)
    score = lambda x: vit.apply(weights, {}, config, embeddings=x).hidden[0] @ jnp.arange(1.0, 17.0) ** 2
    influence = quick(lambda x: jnp.abs(jax.jacobian(score)(x)[:, 0]).sum(-1))(x)
    assert influence.shape == (17, 17)
    assert jnp.all(influence > 0.0)


def test_every_pixel_reaches_the_class_scores():
    config, weights = make()
    scores = lambda pixels: vit.classify(weights, vit.apply(weights, {"images": pixels}, config).hidden, config)[0, 3]
    assert jnp.all(quick(jax.grad(scores))(jnp.asarray(TRAIN.images[:1]))[0] != 0.0)


def test_without_positions_patches_are_a_set():
    """Permuted patches with their positions permute the hidden states; permuted without, they change the class."""
    config, weights = make()
    batch, order = plain(make_batch()), np.array([0, *np.random.default_rng(0).permutation(16) + 1])
    x = vit.embed(weights, batch, config)
    run = quick(lambda x: vit.apply(weights, batch, config, embeddings=x).hidden)
    close(run(x[:, order]), run(x)[:, order], atol=2e-5)
    positions = weights["position"]["table"]
    moved = run((x - positions)[:, order] + positions)
    assert jnp.abs(moved[:, 0] - run(x)[:, 0]).max() > 0.01


def test_the_same_patch_differs_by_its_place():
    config, weights = make()
    x = vit.embed(weights, {"images": jnp.zeros((1, 8, 8, 1))}, config)[0]
    close(x[1:], weights["patch"]["bias"] + weights["position"]["table"][1:])
    close(x[0], weights["class_token"] + weights["position"]["table"][0])


def test_masked_pixels_do_not_reach_the_model():
    config, weights = make()
    batch = make_batch()
    score = lambda pixels: vit.apply(weights, batch | {"images": pixels}, config).hidden @ jnp.arange(1.0, 17.0) ** 2
    gradient = quick(jax.grad(lambda pixels: score(pixels).sum()))(batch["images"])
    seen = jnp.asarray(images.cut_patches(np.asarray(gradient), 2)).any(-1)
    np.testing.assert_array_equal(seen, ~batch["masked_patches"])


def test_scan_and_remat_change_nothing():
    found = []
    for settings in ({}, {"scan": True, "remat": True}):
        config, weights = make(**settings)
        gradient = quick(make_gradient(classify, bind(vit, config), full(), {}))
        found.append(gradient(weights, {}, {}, plain(make_batch()), None))
    close(*found, atol=1e-5, rtol=1e-5)


def test_dropout_belongs_to_the_example():
    config, weights = make(dropout=0.4)
    batch, key = plain(make_batch()), jax.random.key(3)
    run = quick(lambda batch, key: vit.apply(weights, batch, config, key=key).hidden)
    whole = run(batch, key)
    close(run(jax.tree.map(lambda leaf: leaf[4:], batch), key), whole[4:], atol=1e-5)
    assert jnp.abs(whole - vit.apply(weights, batch, config).hidden).max() > 0.1


def test_every_dropout_of_every_layer_draws_its_own_noise(monkeypatch):
    seen = []
    spy = lambda x, keys, rate: seen.append(keys) or x
    monkeypatch.setattr("minillm.models.vit.dropout.dropout", spy)
    monkeypatch.setattr("minillm.nn.attention.dropout", spy)
    config, weights = make(layers=3, dropout=0.4)
    vit.apply(weights, plain(make_batch()), config, key=jax.random.key(1))
    assert len(seen) == 1 + 3 * 3  # embeddings; weights, attention and feed-forward of each layer
    assert len({tuple(row) for keys in seen for row in jax.random.key_data(keys).tolist()}) == 10 * ROWS


def test_capture_gives_weights_that_sum_to_one_and_changes_nothing():
    config, weights = make()
    batch = plain(make_batch())
    found = vit.apply(weights, batch, config, capture=("attention", "hidden"))
    close(found.hidden, vit.apply(weights, batch, config).hidden)
    close(found.captured["attention"].sum(-1), jnp.ones((2, ROWS, 2, 17)), atol=1e-5)
    final = vit.norm.layer_norm(weights["final_norm"], found.captured["hidden"][-1], vit.EPSILON)
    close(final, found.hidden, atol=1e-5)


def test_tasks_name_the_rows_of_the_table():
    rows = {task: {path.split("/")[0] for path in vit.param_specs(make(tasks=(task,))[0])} for task in ALL}
    body = {"patch", "class_token", "position", "blocks", "final_norm"}
    assert {task: found - body for task, found in rows.items()} == {
        "pool": {"pooler"}, "classify": {"classify"}, "patches": {"patches", "mask_token"},
    }  # fmt: skip
    config, weights = make(tasks=())
    with pytest.raises(ValueError, match=r"no rows for 'classify': name its task in model\.tasks"):
        vit.classify(weights, jnp.ones((1, 17, 16)), config)


@pytest.mark.parametrize(("module", "settings"), [(vit, {"layers": 1}), (autoencoder, {}), (autoencoder, {"form": "convolution", "hidden": (4,)})])  # fmt: skip
def test_bfloat16_keeps_float32_parameters_and_gradients(module, settings):
    objective = classify if module is vit else denoising
    results = []
    for dtype in ("float32", "bfloat16"):
        config = module.Config(**settings, dtype=dtype)
        weights = params.init_params(module.param_specs(config), jax.random.key(0))
        hidden = quick(bind(module, config).apply)(weights, plain(make_batch())).hidden
        assert hidden.dtype == jnp.dtype(dtype)
        gradient = quick(make_gradient(objective, bind(module, config), full(), {}))(
            weights, {}, {}, plain(make_batch()), None
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient[0])} == {jnp.dtype("float32")}
        results.append(hidden.astype(jnp.float32))
    close(*results, atol=0.1)


def test_what_is_impossible_is_refused():
    config, weights = make()
    for settings, message in (
        ({"patch": 3}, "patch must divide both sides"), ({"heads": 3}, "heads must divide width"),
        ({"tasks": ("pool", "pool")}, "names one twice"), ({"dropout": 1.0}, "dropout must be in"), ({"layers": 0}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make(**settings)
    batch = plain(make_batch())
    for options, message in (({"capture": ("gradient",)}, "unknown capture"), ({"carry": {}}, "carry must be None")):
        with pytest.raises(ValueError, match=message):
            vit.apply(weights, batch, config, **options)
    with pytest.raises(ValueError, match=r"images are \(8, 6, 1\)"):
        vit.apply(weights, {"images": batch["images"][:, :, :6]}, config)
    for settings, message in (
        ({"form": "convolution", "hidden": (4,) * 4}, "multiples of 16"),
        ({"code": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            autoencoder.Config(**settings)
    small = autoencoder.Config(hidden=())
    weights = params.init_params(autoencoder.param_specs(small), jax.random.key(0))
    for options, message in (
        ({"capture": ("hidden",)}, "captures and carries nothing"),
        ({"carry": {}}, "carries nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            autoencoder.apply(weights, batch, small, **options)
    with pytest.raises(ValueError, match="the config says"):
        autoencoder.apply(weights, {"images": batch["images"][:, :4]}, small)
    bound = bind(vit, config)
    for objective, name in ((classify, "labels"), (denoising, "clean"), (masked_patches, "masked_patches")):
        short = {key: leaf for key, leaf in make_batch().items() if key != name}
        with pytest.raises(ValueError, match=r"needs a batch of data\.images"):
            objective(bound, weights, short)


# Autoencoder


def make_autoencoder(**settings):
    config = autoencoder.Config(**settings)
    return config, params.init_params(autoencoder.param_specs(config), jax.random.key(0))


def test_the_linear_autoencoder_finds_the_principal_components():
    """Baldi and Hornik 1989: at its optimum it reconstructs like as many components, found here in closed form."""
    flat = TRAIN.images.reshape(-1, 64)
    mean = flat.mean(0)
    _, _, directions = np.linalg.svd(flat - mean, full_matrices=False)
    expected = np.square(flat - mean - (flat - mean) @ directions[:4].T @ directions[:4]).mean()
    config, weights = make_autoencoder(hidden=(), code=4)
    weights["code"]["kernel"], weights["code"]["bias"] = (
        jnp.asarray(directions[:4].T),
        jnp.asarray(-directions[:4] @ mean),
    )
    weights["expand"]["kernel"], weights["expand"]["bias"] = jnp.asarray(directions[:4]), jnp.asarray(mean)
    batch = {"images": jnp.asarray(TRAIN.images), "clean": jnp.asarray(TRAIN.images), "weights": jnp.ones(len(flat))}
    gradient, sums = quick(make_gradient(denoising, bind(autoencoder, config), full(), {}))(
        weights, {}, {}, batch, None
    )
    np.testing.assert_allclose(means(sums)["squared_error"], expected, rtol=1e-4)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-5  # nothing left to gain


@pytest.mark.parametrize("settings", [{}, {"hidden": ()}, {"form": "convolution", "hidden": (4, 6)}, {"form": "convolution", "hidden": ()}, {"shape": (5,), "hidden": (7, 6)}])  # fmt: skip
def test_everything_goes_through_the_code(settings):
    config, weights = make_autoencoder(code=3, **settings)
    x = jax.random.uniform(jax.random.key(1), (2, *config.shape))
    code = autoencoder.apply(weights, {"images": x}, config).hidden
    found = autoencoder.reconstruct(weights, code, config)
    assert code.shape == (2, 3)
    assert found.shape == x.shape
    restore = lambda weights: autoencoder.reconstruct(
        weights, autoencoder.apply(weights, {"images": x}, config).hidden, config
    )
    gradient = quick(jax.grad(lambda weights: jnp.square(restore(weights) - x).sum()))(weights)
    assert all(jnp.any(leaf != 0.0) for leaf in jax.tree.leaves(gradient))


# Objectives


def test_sums_by_their_formulas():
    config, weights = make()
    batch, model = make_batch(), bind(vit, config)
    counts = np.asarray(batch["weights"], np.float64)
    found = classify(model, weights, plain(batch), label_smoothing=0.1)
    scores = np.asarray(model.heads["classify"](weights, model.apply(weights, plain(batch)).hidden), np.float64)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    nll = -logs[np.arange(ROWS), batch["labels"]]
    close(found.metrics["nll"], ((nll * counts).sum(), 6.0), rtol=1e-5)
    close(found.sums["loss"], ((0.9 * nll - 0.1 * logs.mean(-1)) * counts).sum(), rtol=1e-5)
    close(found.metrics["accuracy"][0], ((scores.argmax(-1) == batch["labels"]) * counts).sum())

    found = masked_patches(model, weights, batch)
    pixels = np.asarray(model.heads["patches"](weights, model.apply(weights, batch).hidden))
    errors = np.square(pixels - batch["targets"]).sum(-1) * np.asarray(batch["masked_patches"]) * counts[:, None]
    close(found.metrics["squared_error"], (errors.sum(), 6 * 8 * 4.0), rtol=1e-5)  # images, hidden patches, pixels

    config, weights = make_autoencoder()
    model = bind(autoencoder, config)
    found = denoising(model, weights, batch)
    restored = np.asarray(model.heads["reconstruct"](weights, model.apply(weights, batch).hidden))
    errors = np.square(restored - batch["clean"]).sum((1, 2, 3)) * counts
    close(found.metrics["squared_error"], (errors.sum(), 6 * 64.0), rtol=1e-5)
    close(found.sums["reconstruction"], errors.sum(), rtol=1e-5)


CASES = {
    "classify": (vit, {"layers": 1, "dropout": 0.3}), "masked_patches": (vit, {"layers": 1, "tasks": ("patches",)}),
    "denoising": (autoencoder, {"hidden": (16,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_accumulation_equals_the_full_batch_and_weights_cost_nothing(name):
    module, settings = CASES[name]
    config = module.Config(**settings)
    weights = params.init_params(module.param_specs(config), jax.random.key(0))
    batch = make_batch() if name == "masked_patches" else plain(make_batch())
    gradient = make_gradient(OBJECTIVES[name], bind(module, config), full(), {})
    whole, sums = quick(gradient)(weights, {}, {}, batch, jax.random.key(1))
    parts, added = quick(accumulate(gradient, 4))(weights, {}, {}, batch, jax.random.key(1))
    close(whole, parts, atol=2e-6)
    close(sums._replace(extra=None), added._replace(extra=None), rtol=1e-5)
    compiled = jax.jit(gradient.weights).lower(weights, {}, {}, batch, jax.random.key(0)).compile()
    assert compiled.cost_analysis()["flops"] < 400


def test_the_registries_name_them():
    assert MODELS["vit"] is vit
    assert MODELS["autoencoder"] is autoencoder
    assert [OBJECTIVES[name] for name in CASES] == [classify, masked_patches, denoising]


# Training


def train(module, config, objective, batch_at, steps, jit=jax.jit, mesh=None, **settings):
    """Trains as an experiment does -> losses, parameters."""
    specs, tuning = module.param_specs(config), full()
    optimizer = make_optimizer(OptimizerConfig(**settings), steps, params.decay_mask(specs))
    step = make_train_step(make_gradient(objective, bind(module, config), tuning, {}), optimizer, tuning, {})
    weights, frozen, extra = tuning.init(params.init_params(specs, jax.random.key(0)), jax.random.key(1))
    put = lambda batch: batch
    if mesh is not None:
        weights = jax.device_put(weights, param_shardings(specs, RULES["fsdp"], mesh))
        put = lambda batch: jax.device_put(batch, batch_sharding(mesh))
        frozen = jax.device_put(frozen, replicated(mesh))
    state, losses, step = init_state(weights, extra, optimizer), [], jit(step, donate_argnums=0)
    for number in range(steps):
        state, metrics = step(state, frozen, put(batch_at(number)), jax.random.key(2))
        losses.append(metrics["loss"])
    return np.array(losses), state.trainable


def evaluate(module, config, objective, weights, batches):
    step, totals = jax.jit(make_eval_step(objective, bind(module, config), full())), None
    for batch in batches:
        found, _ = step(weights, {}, batch, {})
        totals = found if totals is None else jax.tree.map(jnp.add, totals, found)
    return {name: float(total / weight) for name, (total, weight) in totals.items()}


@pytest.mark.parametrize(("module", "objective", "settings"), [
    (vit, classify, {"layers": 1, "width": 16, "heads": 4, "dropout": 0.1}),
    (autoencoder, denoising, {"form": "convolution", "hidden": (8,)}),
])  # fmt: skip
def test_sharded_losses_equal_single_device(module, objective, settings):
    config = module.Config(**settings)
    batch_at = lambda step: images.corrupt_pixels(images.image_batch_at(TRAIN, 0, step, 16), 0, step)
    single, _ = train(module, config, objective, batch_at, 6, quick)
    sharded, weights = train(module, config, objective, batch_at, 6, quick, make_mesh(4, 2))
    np.testing.assert_allclose(sharded, single, rtol=2e-5)
    assert any(leaf.addressable_shards[0].data.size < leaf.size for leaf in jax.tree.leaves(weights))


def test_a_tiny_vit_learns_to_read_digits():
    config = vit.Config(patch=4, layers=2, width=64, heads=4)
    batch_at = lambda step: images.image_batch_at(TRAIN, 0, step, 64, shifts=1)
    _, weights = train(vit, config, classify, batch_at, 1000, learning_rate=3e-3, warmup_steps=40)
    found = evaluate(vit, config, classify, weights, images.image_evaluation_batches(VALIDATION, 90))
    assert found["accuracy"] > 0.95, found


def test_a_denoising_autoencoder_removes_noise():
    """Held-out digits: the reconstruction is nearer to the clean image than the corrupted input and the mean image."""
    config = autoencoder.Config(hidden=(128,), code=16)
    batch_at = lambda step: images.corrupt_pixels(images.image_batch_at(TRAIN, 0, step, 64), 0, step, "gaussian", 0.3)
    _, weights = train(autoencoder, config, denoising, batch_at, 600, learning_rate=3e-3, warmup_steps=40)
    batches = [
        images.corrupt_pixels(b, 9, 0, "gaussian", 0.3) for b in images.image_evaluation_batches(VALIDATION, 270)
    ]
    found = evaluate(autoencoder, config, denoising, weights, batches)["squared_error"]
    assert found < 0.5 * 0.3**2, found
    assert found < 0.5 * np.square(VALIDATION.images - TRAIN.images.mean(0)).mean()


def test_a_tiny_vit_fills_in_patches():
    config = vit.Config(patch=2, layers=1, width=32, heads=4, tasks=("patches",))
    batch_at = lambda step: images.mask_patches(images.image_batch_at(TRAIN, 0, step, 64), 0, step, 2)
    _, weights = train(vit, config, masked_patches, batch_at, 300, learning_rate=3e-3, warmup_steps=40)
    batches = [images.mask_patches(b, 9, 0, 2) for b in images.image_evaluation_batches(VALIDATION, 270)]
    found = evaluate(vit, config, masked_patches, weights, batches)["squared_error"]
    hidden = batches[0]["masked_patches"][..., None]
    mean = images.cut_patches(TRAIN.images.mean(0)[None], 2)
    baseline = (np.square(batches[0]["targets"] - mean) * hidden).sum() / (4 * hidden.sum())
    assert found < 0.8 * baseline, (found, baseline)
