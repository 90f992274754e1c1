"""Our side: the library's own setup, training step, evaluation step and generation, and this machine's limits."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from minillm import config, params
from minillm.bench.sizes import BETAS, CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY, Sizes, random_tokens
from minillm.experiment.setup import make_setup, new_state
from minillm.inference import generate
from minillm.training.optimizer import OptimizerConfig


class Side:
    """Everything that the bench may ask of us; what is not asked for is never built."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        self.state = None
        self.versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}

    def step(self) -> dict:
        """One training step, from the batch on the host to the loss on the host."""
        if self.state is None:
            self.state, self.frozen = new_state(self.setup)
        start = time.perf_counter()
        batch = jax.device_put(self.batch, self.setup.shardings[2])
        self.state, metrics = self.setup.train_step(self.state, self.frozen, batch, self.setup.key)
        loss = float(jax.block_until_ready((self.state, metrics))[1]["loss"])
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "loss": loss, "compilations": self.setup.train_step._cache_size()}

    def evaluate(self) -> dict:
        """One evaluation step."""
        start = time.perf_counter()
        batch = jax.device_put(self.batch, self.setup.shardings[2])
        total, weight = self.setup.eval_step(self.state.trainable, self.frozen, batch, {})[0]["nll"]
        loss = float(total) / float(weight)
        return {"seconds": time.perf_counter() - start, "loss": loss}

    def generate(self, rows: int) -> dict:
        """`rows` continuations drawn at temperature 1."""
        prompts = random_tokens(rows, self.sizes.prompt, self.sizes.generate_vocabulary).tolist()
        module, settings, weights = self.generator
        before = generate._generate._cache_size()
        start = time.perf_counter()
        new = generate.generate(module, settings, weights, prompts, self.sizes.tokens, key=jax.random.key(0))
        seconds = time.perf_counter() - start
        compilations = generate._generate._cache_size() - before
        return {"seconds": seconds, "tokens": sum(map(len, new)), "compilations": compilations}

    def work(self) -> dict:
        """FLOPs of a training step, and the bytes that one generated token has to read."""
        _, _, weights = self.generator
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
        return {"step_flops": step_flops(self.setup.specs, self.sizes), "model_bytes": size}

    def matmul(self) -> dict:
        """Best FLOP/s of a square float32 product."""
        size = self.sizes.product
        a = jnp.full((size, size), 0.5)
        return {"flops_per_second": 2 * size**3 / _fastest(lambda: self.product(a, a))}

    def read(self) -> dict:
        """Best bytes per second of reading as much memory as the generating model's weights take, again and again."""
        x = jnp.ones(self.work()["model_bytes"] // 4)
        return {"bytes_per_second": x.nbytes / _fastest(lambda: self.total(x))}

    @functools.cached_property
    def setup(self):
        sizes = self.sizes
        optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant", weight_decay=WEIGHT_DECAY,
                                    beta1=BETAS[0], beta2=BETAS[1], clip_norm=CLIP_NORM)  # fmt: skip
        model = {"context": sizes.length, "layers": sizes.layers, "width": sizes.width, "heads": sizes.heads}
        train = config.TrainConfig(batch_size=sizes.batch)
        data = config.DataConfig("copy")  # not read: the bench brings its own tokens
        return make_setup(config.Experiment(data, model, optimizer=optimizer, train=train), sizes.vocabulary)

    @functools.cached_property
    def batch(self) -> dict:
        sizes = self.sizes
        tokens = random_tokens(sizes.batch, sizes.length, sizes.vocabulary)
        weights = np.ones(tokens.shape, np.float32)
        weights[:, -1] = 0.0  # the last token has no next one
        index = np.arange(sizes.batch, dtype=np.int32)
        return {"tokens": tokens, "targets": np.roll(tokens, -1, axis=1), "weights": weights, "index": index}

    @functools.cached_property
    def generator(self) -> tuple:
        module = self.setup.module
        settings = module.Config(self.sizes.generate_vocabulary, self.sizes.length, self.sizes.layers,
                                 self.sizes.width, self.sizes.heads)  # fmt: skip
        return module, settings, params.init_params(module.param_specs(settings), jax.random.key(0))

    product = staticmethod(jax.jit(jnp.matmul))
    total = staticmethod(jax.jit(jnp.sum))


def step_flops(specs: params.Specs, sizes: Sizes) -> float:
    """6 per weight of a matrix product and token, and 12 * layers * length * width for attention, masked half included.

    Kaplan et al. 2020, section 2.1, with the output layer (here the embedding) counted and the lookup not.
    """
    products = sum(spec.size for path, spec in specs.items() if path.endswith("kernel"))
    products += sizes.vocabulary * sizes.width
    return float(sizes.batch * sizes.length * (6 * products + 12 * sizes.layers * sizes.length * sizes.width))


def _fastest(work: Callable, repeats: int = 5) -> float:
    """Seconds of the fastest of a few runs, after one that compiles."""
    jax.block_until_ready(work())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
