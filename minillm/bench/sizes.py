"""What is measured: sizes that both sides share, and the same tokens for both."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """A GPT and its work; no dropout, float32, tied output layer."""

    layers: int = 6
    heads: int = 6
    width: int = 384
    length: int = 256  # also the context
    batch: int = 8
    vocabulary: int = 65
    generate_vocabulary: int = 4096  # of the model that generates
    tune_layers: int = 4  # of a BERT that learns two classes
    tune_heads: int = 4
    tune_width: int = 256
    tune_length: int = 128
    tune_batch: int = 32
    tune_vocabulary: int = 8192
    rank: int = 8  # of LoRA
    prompt: int = 16
    tokens: int = 200  # new ones
    product: int = 2048  # side of the square matrices that find the matmul limit
    step_rounds: int = 9
    generate_rounds: int = 5


SIZES = {
    "full": Sizes(),
    "quick": Sizes(
        layers=2, heads=2, width=32, length=32, batch=2, generate_vocabulary=128,
        tune_layers=1, tune_heads=2, tune_width=32, tune_length=16, tune_batch=4, tune_vocabulary=128, rank=2,
        prompt=4, tokens=8, product=256, step_rounds=3, generate_rounds=2,
    ),
}  # fmt: skip
LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 0.1, 1.0


def random_tokens(rows: int, length: int, vocabulary: int) -> np.ndarray:
    """[rows, length] ids, always the same."""
    return np.random.default_rng(0).integers(vocabulary, size=(rows, length), dtype=np.int32)


def fastest(work: Callable, repeats: int = 5) -> float:
    """Seconds of the fastest of a few runs, after one that compiles; waits for jax where it answers with its arrays."""
    wait = lambda found: getattr(found, "block_until_ready", lambda: None)()
    wait(work())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        wait(work())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
