"""Every method of few parameters learns more from a trained base than a head on its frozen features does.

The base reads one word of each of six groups, in any order, among them a question, and says which word of the group that is
asked for it has seen. The second task never asks: it always wants the word of group 1. All methods have the same steps and
rate, and new heads. It says nothing of what the base is worth: LoRA learns this task on a random body too.
"""

import jax
import numpy as np
import pytest

from minillm import params
from minillm.models import bert
from minillm.models.contract import bind
from minillm.objectives import OBJECTIVES
from minillm.sections.experiment import TuningConfig
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning import make_tuning

GROUPS, WORDS, ROWS = 6, 6, 64
QUESTIONS = 1 + GROUPS * WORDS  # the first of them; 0 is the class token
BLANK = QUESTIONS + GROUPS  # stands in a question's place, and the base has never seen it
CONFIG = bert.Config(vocabulary=BLANK + 1, context=16, layers=2, width=32, heads=4, hidden=64, tasks=("classify",),
                     labels=WORDS, dropout=0.0, init_scale=0.1)  # fmt: skip
SPECS, MODEL, HEADS = bert.param_specs(CONFIG), bind(bert, CONFIG), ("classify/*", "pooler/*")
HEAD = TuningConfig("freeze", freeze=("embedding*", "position/*", "token_type/*", "blocks/*"))
METHODS = {
    "houlsby": TuningConfig("adapter", adapter_size=4),
    "pfeiffer": TuningConfig("adapter", adapter_size=4, placement="pfeiffer"),
    "prefix": TuningConfig("prefix", prefix_length=4), "prompt": TuningConfig("prompt", prompt_length=4),
    "bitfit": TuningConfig("bitfit"), "lora": TuningConfig("lora", rank=4),
    "adalora": TuningConfig("adalora", rank=4, target_rank=2.0),
}  # fmt: skip


def draw(task, number, rows=ROWS):
    """The batch of that number: rows [class token, and in any order a word of each group and a question or none]."""
    generator = np.random.default_rng([task == "second", number])
    words = generator.integers(WORDS, size=(rows, GROUPS))
    asked = generator.integers(GROUPS, size=rows) if task == "first" else np.ones(rows, int)
    question = QUESTIONS + asked if task == "first" else np.full(rows, BLANK)
    body = np.concatenate([1 + np.arange(GROUPS) * WORDS + words, question[:, None]], axis=1)
    tokens = np.concatenate([np.zeros((rows, 1), int), generator.permuted(body, axis=1)], axis=1).astype(np.int32)
    labels, index = words[np.arange(rows), asked].astype(np.int32), np.arange(rows, dtype=np.int32)
    return {"tokens": tokens, "labels": labels, "weights": np.ones(rows, np.float32), "index": index}


def fit(weights, section, task, steps, rate):
    """(the parameters, their accuracy on new rows) after training."""
    tuning = make_tuning(section, heads=HEADS, steps=steps)
    settings = OptimizerConfig(name="adam", learning_rate=rate, warmup_steps=10)
    optimizer = make_optimizer(settings, steps, params.decay_mask(tuning.specs(SPECS)))
    trainable, frozen, extra = tuning.init(weights, jax.random.key(1))
    gradient = make_gradient(OBJECTIVES["classify"], MODEL, tuning, {})
    step, state = jax.jit(make_train_step(gradient, optimizer, tuning, {})), init_state(trainable, extra, optimizer)
    for number in range(steps):
        state, _ = step(state, frozen, draw(task, number), jax.random.key(0))
    weights, model, batch = tuning.attach(state.trainable, frozen), tuning.wrap(MODEL), draw(task, 10**6, 512)
    said = jax.jit(lambda weights, batch: model.heads["classify"](weights, model.apply(weights, batch).hidden))
    return weights, float(np.mean(said(weights, batch).argmax(1) == batch["labels"]))


def tune(start, section):
    return fit(start, section, "second", 200, 1e-2)[1]


@pytest.mark.slow
def test_every_method_learns_what_a_head_on_frozen_features_does_not():
    knowing, accuracy = fit(params.init_params(SPECS, jax.random.key(0)), TuningConfig(), "first", 400, 3e-3)
    assert accuracy > 0.9
    new = params.init_params(SPECS, jax.random.key(5))
    base = knowing | {name: new[name] for name in ("classify", "pooler")}
    head = tune(base, HEAD)
    assert 2.0 / WORDS < head < 0.85
    found = {method: tune(base, section) for method, section in METHODS.items()}
    assert min(found.values()) > head + 0.05, (head, found)
