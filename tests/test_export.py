"""What runs on accelerators that no machine here has: the training step is exported for them, and the fused form agrees."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import config as configs
from minillm.commands import shared
from minillm.errors import UserError
from minillm.experiment.data import vocabulary_size
from minillm.experiment.paper.describe import step_arguments
from minillm.experiment.setup import make_setup, refuse_kernel, with_own_kernel
from minillm.nn import attention

MODEL = {"context": 24, "layers": 2, "width": 32, "heads": 4}


def experiment(**sections):
    return configs.check({"data": {"source": "copy"}, "model": MODEL, "train": {"batch_size": 16}} | sections, "test")


@pytest.mark.parametrize("sections", [{}, {"mesh": {"data": 4, "model": 2, "rules": "fsdp"}},
                                      {"mesh": {"data": 4}, "train": {"batch_size": 16, "shards": 8}}],
                         ids=["one", "fsdp", "shards"])  # fmt: skip
def test_the_training_step_is_exported_for_cuda_and_tpu(sections):
    found = experiment(model=MODEL | {"dtype": "bfloat16", "dropout": 0.1}, **sections)
    setup = make_setup(found, vocabulary_size(found))
    exported = jax.export.export(setup.train_step, platforms=["cuda", "tpu"])(*step_arguments(found, setup))
    assert exported.platforms == ("cuda", "tpu")
    assert exported.nr_devices == found.mesh.data * found.mesh.model
    assert len(exported.mlir_module_serialized) > 10_000


@pytest.mark.parametrize("packed", [False, True])
def test_a_kernel_s_attention_is_ours_in_values_and_gradients(packed):
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value, weight = (jax.random.normal(k, (2, 12, 3, 8)) for k in keys)
    segments = jnp.array([[1] * 5 + [2] * 7, [1] * 12]) if packed else None
    ours = lambda *heads: (attention.causal_attention(*heads, segments) * weight).sum()
    theirs = lambda *heads: (attention.kernel_attention(*heads, segments, kernel="xla") * weight).sum()
    for a, b in zip(*(jax.value_and_grad(f, (0, 1, 2))(query, key, value) for f in (ours, theirs)), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


def test_cudnn_is_refused_where_it_cannot_run():
    with pytest.raises(UserError, match="needs dtype = 'bfloat16'"):
        experiment(model=MODEL | {"kernel": "cudnn"})
    found = experiment(model=MODEL | {"kernel": "cudnn", "dtype": "bfloat16"})
    with pytest.raises(UserError, match="cuDNN runs on NVIDIA GPUs, this is a cpu"):
        refuse_kernel(found)
    assert make_setup(with_own_kernel(found), vocabulary_size(found)).config.kernel == "own"


def test_the_fused_kernel_is_chosen_where_it_was_measured_to_be_faster(monkeypatch):
    query = jnp.zeros((2, 256, 3, 64), jnp.bfloat16)
    assert not attention.fused_is_faster(query, None, 0.0), "this is no GPU"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert attention.fused_is_faster(query, None, 0.0)
    others = {
        "float32": (query.astype(jnp.float32), None, 0.0), "dropout": (query, None, 0.1),
        "packed": (query, jnp.ones((2, 256), jnp.int32), 0.0), "short": (query[:, :128], None, 0.0),
        "odd": (query[:, :250], None, 0.0),
    }  # fmt: skip
    assert not [name for name, found in others.items() if attention.fused_is_faster(*found)]
    found = experiment(model=MODEL | {"dtype": "bfloat16"})
    assert make_setup(found, vocabulary_size(found)).config.kernel == "auto"
    several = experiment(model=MODEL | {"dtype": "bfloat16"}, mesh={"data": 2})
    assert make_setup(several, vocabulary_size(several)).config.kernel == "own"


def test_a_gpu_is_told_to_add_in_the_same_order(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shared.fix_order()
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x", "no plugin of jax for CUDA is installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "jax_cuda13_plugin" or None)
    for _ in range(2):
        shared.fix_order()
        assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_gpu_deterministic_ops=true"
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    shared.fix_order()
    assert os.environ["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=false", "the user's own goes before"
