"""Our side: the library's own setup, training step, evaluation step and generation, and this machine's limits."""

import dataclasses
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from minillm import config, params
from minillm.bench import products
from minillm.bench.sizes import BETAS, CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY, Sizes, fastest, random_tokens
from minillm.data import batches
from minillm.experiment.setup import make_setup, new_state
from minillm.inference import generate
from minillm.training import provenance
from minillm.training.optimizer import OptimizerConfig

TARGETS = {"lora": ("*/query/kernel", "*/value/kernel"), "lora_all": ("blocks/*/kernel",)}


class Side:
    """Everything that the bench may ask of us; what is not asked for is never built."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        self.states: dict[str, tuple] = {}  # kind of step -> (state, frozen)
        self.versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}

    def step(self, kind: str = "gpt") -> dict:
        """One training step, from the batch on the host to the loss on the host.

        "gpt": the GPT. "bert": BERT on two classes. "lora", "lora_all": the GPT with LoRA on query and value, or on all.
        """
        setup, batch = self.setups[kind], self.labelled if kind == "bert" else self.batch
        state, frozen = self.states.pop(kind, None) or new_state(setup)
        start = time.perf_counter()
        state, metrics = setup.train_step(state, frozen, jax.device_put(batch, setup.shardings[2]), setup.key)
        loss = float(jax.block_until_ready((state, metrics))[1]["loss"])
        seconds = time.perf_counter() - start
        self.states[kind] = (state, frozen)
        return {"seconds": seconds, "loss": loss, "compilations": setup.train_step._cache_size(),
                "optimizer_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state.optimizer))}  # fmt: skip

    def host(self) -> dict:
        """What the loop does between two steps: a batch is cut from a text, hashed, recorded and placed."""
        sizes, setup = self.sizes, self.setups["gpt"]
        text = random_tokens(64, sizes.length, sizes.vocabulary).reshape(-1)
        dataset, seconds = batches.make_dataset([text], sizes.length), []
        for step in range(20):
            start = time.perf_counter()
            batch = batches.batch_at(dataset, 0, step, sizes.batch)
            provenance.record(provenance.START, step, provenance.hash_arrays(batch), "", 0.0)
            jax.block_until_ready(jax.device_put(batch, setup.shardings[2]))
            seconds.append(time.perf_counter() - start)
        return {"seconds": statistics.median(seconds)}

    def evaluate(self) -> dict:
        """One evaluation step."""
        start = time.perf_counter()
        (state, frozen), setup = self.states["gpt"], self.setups["gpt"]
        batch = jax.device_put(self.batch, setup.shardings[2])
        total, weight = setup.eval_step(state.trainable, frozen, batch, {})[0]["nll"]
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
        """FLOPs of a training step and the bytes that XLA counts for it; bytes and FLOPs of a generated token."""
        _, _, weights = self.generator
        size, setup = sum(leaf.nbytes for leaf in jax.tree.leaves(weights)), self.setups["gpt"]
        batch = jax.device_put(self.batch, setup.shardings[2])
        step = setup.train_step.lower(*self.states["gpt"], batch, setup.key).compile()
        return {"step_flops": step_flops(setup.specs, self.sizes), "model_bytes": size, "token_flops": size / 2,
                "step_bytes": float(step.cost_analysis()["bytes accessed"])}  # fmt: skip

    def matmul(self) -> dict:
        """Best FLOP/s of a square float32 product."""
        size = self.sizes.product
        a = jnp.full((size, size), 0.5)
        return {"flops_per_second": 2 * size**3 / fastest(lambda: self.product(a, a))}

    def products(self) -> dict:
        """Seconds of the training step's matrix products alone."""
        return {"seconds": products.seconds(products.of_step(self.sizes))}

    def read(self) -> dict:
        """Best bytes per second of reading as much memory as the generating model's weights take, again and again."""
        x = jnp.ones(self.work()["model_bytes"] // 4)
        return {"bytes_per_second": x.nbytes / fastest(lambda: self.total(x))}

    @functools.cached_property
    def setups(self) -> "Setups":
        return Setups(self.sizes)

    @functools.cached_property
    def batch(self) -> dict:
        sizes = self.sizes
        tokens = random_tokens(sizes.batch, sizes.length, sizes.vocabulary)
        weights = np.ones(tokens.shape, np.float32)
        weights[:, -1] = 0.0  # the last token has no next one
        index = np.arange(sizes.batch, dtype=np.int32)
        return {"tokens": tokens, "targets": np.roll(tokens, -1, axis=1), "weights": weights, "index": index}

    @functools.cached_property
    def labelled(self) -> dict:
        sizes = self.sizes
        tokens = random_tokens(sizes.tune_batch, sizes.tune_length, sizes.tune_vocabulary)
        index = np.arange(sizes.tune_batch, dtype=np.int32)
        return {"tokens": tokens, "token_types": np.zeros_like(tokens), "mask": np.ones(tokens.shape, bool),
                "labels": index % 2, "weights": np.ones(len(index), np.float32), "index": index}  # fmt: skip

    @functools.cached_property
    def generator(self) -> tuple:
        module = self.setups["gpt"].module
        settings = module.Config(self.sizes.generate_vocabulary, self.sizes.length, self.sizes.layers,
                                 self.sizes.width, self.sizes.heads)  # fmt: skip
        return module, settings, params.init_params(module.param_specs(settings), jax.random.key(0))

    product = staticmethod(jax.jit(jnp.matmul))
    total = staticmethod(jax.jit(jnp.sum))


class Setups(dict):
    """Kind of step -> its setup, built when it is first asked for."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes

    def __missing__(self, kind: str):
        sizes = self.sizes
        optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant", weight_decay=WEIGHT_DECAY,
                                    beta1=BETAS[0], beta2=BETAS[1], clip_norm=CLIP_NORM)  # fmt: skip
        data = config.DataConfig("copy")  # not read: the bench brings its own tokens
        train = config.TrainConfig(batch_size=sizes.batch)
        model = {"context": sizes.length, "layers": sizes.layers, "width": sizes.width, "heads": sizes.heads}
        whole = config.Experiment(data, model, optimizer=optimizer, train=train)
        vocabulary = sizes.vocabulary
        if kind == "bert":
            model = {"kind": "bert", "context": sizes.tune_length, "layers": sizes.tune_layers, "labels": 2,
                     "width": sizes.tune_width, "heads": sizes.tune_heads, "dropout": 0.0, "tasks": ["classify"]}  # fmt: skip
            train, objective = config.TrainConfig(batch_size=sizes.tune_batch), config.ObjectiveConfig("classify")
            whole = dataclasses.replace(whole, model=model, objective=objective, train=train)
            vocabulary = sizes.tune_vocabulary
        elif kind != "gpt":
            tuning = config.TuningConfig("lora", rank=sizes.rank, targets=TARGETS[kind])
            whole = dataclasses.replace(whole, tuning=tuning)
        self[kind] = make_setup(whole, vocabulary)
        return self[kind]


def step_flops(specs: params.Specs, sizes: Sizes) -> float:
    """6 per weight of a matrix product and token, and 12 * layers * length * width for attention, masked half included.

    Kaplan et al. 2020, section 2.1, with the output layer (here the embedding) counted and the lookup not.
    """
    products = sum(spec.size for path, spec in specs.items() if path.endswith("kernel"))
    products += sizes.vocabulary * sizes.width
    return float(sizes.batch * sizes.length * (6 * products + 12 * sizes.layers * sizes.length * sizes.width))
