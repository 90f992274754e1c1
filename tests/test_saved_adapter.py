"""Saved adapters: small files that are switched over one base, and put beside no other."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillm import config as configs
from minillm import params
from minillm.errors import UserError
from minillm.models import MODELS
from minillm.models.contract import bind
from minillm.sections.experiment import TuningConfig
from minillm.tuning import METHODS, make_tuning
from minillm.tuning.saved import base_hash, load_adapter, read_about, save_adapter

BERT = {"layers": 2, "width": 16, "heads": 2, "context": 20, "vocabulary": 11, "tasks": ("classify",)}
HEADS = ("classify/*", "pooler/*")
BATCH = {"tokens": jnp.arange(24, dtype=jnp.int32).reshape(2, 12) % 11}
SETTINGS = {
    "freeze": {"freeze": ("embedding/*", "blocks/*")},
    "lora": {"rank": 3},
    "adalora": {"rank": 3, "target_rank": 2.0},
}


def base_of(seed=0, **settings):
    """(model, its parameters)."""
    module = MODELS["bert"]
    config = module.Config(**BERT | settings)
    return bind(module, config), params.init_params(module.param_specs(config), jax.random.key(seed))


def trained(section, weights, seed=3):
    """(tuning, trainable as if it had been trained, frozen)."""
    tuning = make_tuning(section, heads=HEADS, steps=9)
    trainable, frozen, _ = tuning.init(weights, jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return tuning, jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), trainable), frozen


def logits(model, tuning, trainable, frozen):
    model, weights = tuning.wrap(model), tuning.attach(trainable, frozen)
    return np.asarray(model.heads["classify"](weights, model.apply(weights, BATCH).hidden))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
def test_what_is_loaded_is_what_was_saved(method, tmp_path):
    (model, weights), section = base_of(), TuningConfig(method, **SETTINGS.get(method, {}))
    tuning, trainable, frozen = trained(section, weights)
    about = {"labels": ["negative", "positive"], "model": {"kind": "bert"}}
    for _ in range(2):
        save_adapter(tmp_path / "a.safetensors", trainable, frozen, section, about)
        data = (tmp_path / "a.safetensors").read_bytes()
        save_adapter(tmp_path / "a.safetensors", trainable, frozen, section, about)
        assert data == (tmp_path / "a.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    found, again, said = load_adapter(tmp_path / "a.safetensors", frozen)
    assert said == about == read_about(tmp_path / "a.safetensors")[1]
    assert configs.validate(TuningConfig, again, "file") == section
    assert jax.tree.structure(found) == jax.tree.structure(trainable)
    jax.tree.map(np.testing.assert_array_equal, found, trainable)
    np.testing.assert_array_equal(logits(model, tuning, found, frozen), logits(model, tuning, trainable, frozen))


def test_adapters_are_switched_over_one_base(tmp_path):
    """Each gives what its own run gave, in any order; the base in memory is one."""
    model, weights = base_of()
    sections = {
        "a": TuningConfig("lora", rank=2),
        "b": TuningConfig("lora", rank=5, alpha=3.0),
        "c": TuningConfig("adalora", rank=4),
    }
    own, bases = {}, {}
    for seed, (name, section) in enumerate(sections.items()):
        tuning, trainable, frozen = trained(section, weights, seed)
        own[name], bases[name] = logits(model, tuning, trainable, frozen), frozen
        save_adapter(tmp_path / name, trainable, frozen, section, {})
    assert len({base_hash(frozen) for frozen in bases.values()}) == 1
    for name in "abcacb":
        trainable, section, _ = load_adapter(tmp_path / name, bases["a"])
        tuning = make_tuning(configs.validate(TuningConfig, section, name), heads=(), steps=9)
        np.testing.assert_array_equal(logits(model, tuning, trainable, bases["a"]), own[name])
    assert np.abs(own["a"] - own["b"]).max() > 1e-2


def test_another_base_is_refused_by_the_name_of_what_differs(tmp_path):
    _, weights = base_of()
    _, trainable, frozen = trained(TuningConfig("lora"), weights)
    save_adapter(tmp_path / "a", trainable, frozen, TuningConfig("lora"), {})
    flat = params.flatten(frozen)
    path, missing = "blocks/feedforward/up/kernel", flat.keys() - {"position/table"}
    others = {
        f"{path} has other numbers": flat | {path: flat[path].at[0, 0, 0].add(1e-7)},
        f"{path} has the type bfloat16, not float32": flat | {path: flat[path].astype(jnp.bfloat16)},
        "position/table is missing": {name: flat[name] for name in missing},
        "more/kernel is one leaf too many": flat | {"more/kernel": flat[path]},
        "blocks/attention/key/bias has the shape [2, 32], not [2, 16]": params.flatten(trained(TuningConfig("lora"), base_of(width=32)[1])[2]),
    }  # fmt: skip
    for words, other in others.items():
        with pytest.raises(UserError, match="another base") as caught:
            load_adapter(tmp_path / "a", params.unflatten(other))
        assert words in str(caught.value)
        assert base_hash(params.unflatten(other)) != base_hash(frozen)


def test_a_damaged_file_is_refused(tmp_path):
    _, weights = base_of()
    _, trainable, frozen = trained(TuningConfig("lora"), weights)
    path, section = tmp_path / "a", TuningConfig("lora")
    save_adapter(path, trainable, frozen, section, {"labels": ["no", "yes"]})
    data = path.read_bytes()
    for place in [*range(0, 8), *range(8, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(UserError, match=r"damaged|safetensors|no saved adapter"):
            load_adapter(path, frozen)
    for part in (b"", data[:40], data[:-1], data + b"x"):
        path.write_bytes(part)
        with pytest.raises(UserError, match="safetensors"):
            load_adapter(path, frozen)
    save_adapter(path, trainable, frozen, section, {})
    leaves = load_file(path)
    save_file(leaves, path)
    with pytest.raises(UserError, match="no saved adapter"):
        load_adapter(path, frozen)
    with pytest.raises(UserError, match="no such file"):
        load_adapter(tmp_path / "none", frozen)


def test_leaves_that_were_changed_after_saving_are_named(tmp_path):
    from safetensors import safe_open

    _, weights = base_of()
    _, trainable, frozen = trained(TuningConfig("lora"), weights)
    save_adapter(tmp_path / "a", trainable, frozen, TuningConfig("lora"), {})
    with safe_open(tmp_path / "a", framework="numpy") as file:
        metadata = file.metadata()
    leaves = load_file(tmp_path / "a")
    name = "blocks/attention/query/lora/down"
    for changed in (leaves | {name: leaves[name] + 1.0}, {path: leaf for path, leaf in leaves.items() if path != name}):
        save_file(changed, tmp_path / "a", metadata)
        with pytest.raises(UserError, match=rf"damaged: {name}"):
            load_adapter(tmp_path / "a", frozen)
    forged = {
        key: json.dumps({"record": json.loads(text)["record"] + " ", "sha256": json.loads(text)["sha256"]})
        for key, text in metadata.items()
    }
    save_file(leaves, tmp_path / "a", forged)
    with pytest.raises(UserError, match="its record"):
        load_adapter(tmp_path / "a", frozen)


def test_a_model_that_was_trained_wholly_is_no_adapter(tmp_path):
    _, weights = base_of()
    _, trainable, frozen = trained(TuningConfig(), weights)
    with pytest.raises(UserError, match="every parameter was trained"):
        save_adapter(tmp_path / "a", trainable, frozen, TuningConfig(), {})
    assert not list(tmp_path.iterdir())
