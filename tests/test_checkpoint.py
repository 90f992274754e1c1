"""Checkpoints: what is loaded is what was saved, or an error says which leaf or file is damaged."""

import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minillm.errors import UserError
from minillm.training import checkpoint, provenance
from minillm.training.state import State


def tree():
    trainable = {"block": {"kernel": jnp.arange(600.0).reshape(20, 30), "bias": jnp.array([jnp.nan, -0.0])},
                 "half": jnp.ones((7,), jnp.bfloat16)}  # fmt: skip
    return State(jnp.int32(5), trainable, optax.adamw(1e-3).init(trainable), {})


def test_round_trip_is_bitwise(tmp_path):
    checkpoint.save(tmp_path, 5, tree(), {"best": 1.5})
    found, meta = checkpoint.restore(tmp_path, 5, tree())
    assert meta == {"best": 1.5}
    assert jax.tree.structure(found) == jax.tree.structure(tree())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8)),
                 [x[None] for x in jax.tree.leaves(found)], [x[None] for x in jax.tree.leaves(tree())])  # fmt: skip
    assert checkpoint.steps(tmp_path) == [5]


def test_a_hundred_flipped_bits_are_a_hundred_errors_that_name_leaf_or_file(tmp_path):
    path = checkpoint.save(tmp_path, 5, tree(), {"best": 1.5})
    leaves = {name.replace("/", "."): name for name in checkpoint.leaf_hashes(tree())}
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size)
    chooser, kinds = random.Random(0), set()
    for _ in range(100):
        damaged = chooser.choice(files)
        whole = damaged.read_bytes()
        data = bytearray(whole)
        data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
        damaged.write_bytes(bytes(data))
        with pytest.raises(UserError) as error:
            checkpoint.restore(tmp_path, 5, tree())
        damaged.write_bytes(whole)
        leaf = leaves.get(damaged.parent.name)
        kinds.add(leaf is None)
        assert (leaf or damaged.name) in str(error.value)
    assert kinds == {True, False}
    checkpoint.restore(tmp_path, 5, tree())


def test_missing_truncated_and_extra_files_are_refused(tmp_path):
    path = checkpoint.save(tmp_path / "good", 5, tree(), {})
    for name in sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file()):
        for damage in ("delete", "truncate"):
            shutil.rmtree(tmp_path / "bad", ignore_errors=True)
            shutil.copytree(tmp_path / "good", tmp_path / "bad")
            file = tmp_path / "bad" / path.name / name
            if damage == "delete":
                file.unlink()
            elif file.stat().st_size:
                file.write_bytes(file.read_bytes()[:-1])
            else:
                continue
            with pytest.raises(UserError):
                checkpoint.restore(tmp_path / "bad", 5, tree())
    (path / "extra").write_text("x")
    with pytest.raises(UserError, match="extra"):
        checkpoint.restore(tmp_path / "good", 5, tree())


def test_another_dtype_or_structure_is_refused(tmp_path):
    checkpoint.save(tmp_path, 5, {"a": jnp.ones(3)}, {})
    for template in (
        {"a": jnp.ones(3, jnp.int32)},
        {"a": jnp.ones(4)},
        {"b": jnp.ones(3)},
        {"a": jnp.ones(3), "b": jnp.ones(1)},
    ):
        with pytest.raises(UserError):
            checkpoint.restore(tmp_path, 5, template)


def test_prune_keeps_the_last_and_the_protected(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, {"a": jnp.ones(3)}, {})
    checkpoint.prune(tmp_path, 2, [1])
    assert checkpoint.steps(tmp_path) == [1, 3, 4]


def test_any_changed_character_breaks_the_chain(tmp_path):
    path, chain = tmp_path / "log.jsonl", provenance.START
    for step in range(1, 6):
        line = provenance.record(chain, step, "b", "k", 1.0 / step, {"leaf": "h"} if step == 3 else None)
        provenance.append(path, line)
        chain = line["chain"]
    assert len(provenance.read(path)) == 5
    whole = path.read_bytes()
    chooser = random.Random(1)
    for place in chooser.sample(range(len(whole) - 1), 150):
        bad = bytearray(whole)
        bad[place] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises(UserError, match="line"):
            provenance.read(path)
    path.write_bytes(whole + b'{"step": 6, "torn')
    provenance.cut(path, 3)
    assert [line["step"] for line in provenance.read(path)] == [1, 2, 3]
