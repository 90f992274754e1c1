"""Attention as we write it beside the platform's fused kernel: alone at several lengths, and in a GPT's training step.

Both compute the same causal attention in bfloat16. How far each is from float32 says whether "the same" holds.
"""

import dataclasses
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from minillm import config
from minillm.bench.sizes import BETAS, CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY, fastest, random_tokens
from minillm.data import batches
from minillm.errors import UserError
from minillm.experiment.setup import make_setup, new_state
from minillm.nn import attention
from minillm.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """GPT-2 small; attention alone reads as many tokens at each length as the step does."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    batch: int = 16
    length: int = 1024
    vocabulary: int = 50304
    lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    rounds: int = 10


QUICK = Sizes(layers=2, heads=2, width=32, batch=2, length=32, vocabulary=64, lengths=(32, 64), rounds=3)


def measure(sizes: Sizes, kernel: str = "cudnn") -> dict[str, Any]:
    """Seconds, the kernel's error and the memory of both. Raises: UserError where the kernel does not run here."""
    if kernel == "cudnn" and jax.default_backend() != "gpu":
        message = f"cuDNN runs on NVIDIA GPUs, this is a {jax.default_backend()}"
        raise UserError(message, "--kernels", "run it where there is one")
    return {
        "device": jax.devices()[0].device_kind, "jax": jax.__version__, "kernel": kernel, "sizes": dataclasses.asdict(sizes),
        "attention": [alone(sizes, length, kernel) for length in sizes.lengths],
        "step": {name: step(sizes, name) for name in ("own", *([kernel] if kernel == "cudnn" else []))},
    }  # fmt: skip


def alone(sizes: Sizes, length: int, kernel: str) -> dict[str, Any]:
    """Attention and its gradient at one length: seconds, and the largest error against float32 over the largest value."""
    rows = max(sizes.batch * sizes.length // length, 1)
    shape = (rows, length, sizes.heads, sizes.width // sizes.heads)
    exact = [jax.random.normal(jax.random.key(number), shape) for number in range(4)]
    forms = {"own": attention.causal_attention, kernel: functools.partial(attention.kernel_attention, kernel=kernel)}

    def gradient(form, *arrays):
        query, key, value, weight = arrays
        loss = lambda *heads: (form(*heads).astype(jnp.float32) * weight).sum()
        return jax.grad(loss, argnums=(0, 1, 2))(query, key, value)

    with jax.default_matmul_precision("highest"):
        expected = jax.jit(functools.partial(gradient, attention.causal_attention))(*exact)
    rounded, found = [array.astype(jnp.bfloat16) for array in exact], {"length": length, "rows": rows}
    for name, form in forms.items():
        run = jax.jit(functools.partial(gradient, form))
        pairs = zip(run(*rounded), expected, strict=True)
        error = max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)
        seconds = fastest(lambda: jax.block_until_ready(run(*rounded))[0], sizes.rounds)  # noqa: B023
        found[name] = {"seconds": seconds, "error": error}
    return found


def step(sizes: Sizes, kernel: str) -> dict[str, Any]:
    """The whole training step in bfloat16: median seconds, the first losses, and the bytes of its intermediate values."""
    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant", weight_decay=WEIGHT_DECAY,
                                beta1=BETAS[0], beta2=BETAS[1], clip_norm=CLIP_NORM)  # fmt: skip
    model = {"context": sizes.length, "layers": sizes.layers, "width": sizes.width, "heads": sizes.heads,
             "dtype": "bfloat16", "kernel": kernel}  # fmt: skip
    train = config.TrainConfig(batch_size=sizes.batch)
    setup = make_setup(
        config.Experiment(config.DataConfig("copy"), model, optimizer=optimizer, train=train), sizes.vocabulary
    )
    text = random_tokens(2 * sizes.batch, sizes.length, sizes.vocabulary).reshape(-1)
    batch = batches.batch_at(batches.make_dataset([text], sizes.length), 0, 0, sizes.batch)
    batch = jax.device_put(batch, setup.shardings[2])
    state, frozen = new_state(setup)
    compiled = setup.train_step.lower(state, frozen, batch, setup.key).compile()
    seconds, losses = [], []
    for _ in range(sizes.rounds + 2):
        start = time.perf_counter()
        state, metrics = compiled(state, frozen, batch, setup.key)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[2:]), "losses": losses[:3],
            "tokens_per_second": sizes.batch * sizes.length / statistics.median(seconds[2:]),
            "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes}  # fmt: skip
