"""`minillm replies`: how well a causal run on question -> reply texts finds the right reply, and how it writes its own."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from minillm.errors import UserError
from minillm.evaluation import replies as metrics
from minillm.experiment.ask.reopen import Opened, open_run, read_data
from minillm.experiment.saved import judged_step, restore
from minillm.inference.generate import Sampling, generate
from minillm.inference.prompting import score_rows

DIALOGUES = ("dialogue-en", "dialogue-zh")
DEPTHS = (1, 2, 5)
WAYS = {"greedy": Sampling(0.0), "temperature 0.8": Sampling(0.8), "top-p 0.9": Sampling(1.0, 0, 0.9)}


class Model(NamedTuple):
    """What answers."""

    opened: Opened
    params: Any


def replies(
    root: Path, split: str = "validation", candidates: int = 10, limit: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Recall at k of several ways to choose among candidates, distinct-n of written replies, perplexity of the true ones.

    Raises: UserError for a run that has not learned from turns and replies.
    """
    opened = open_run(root)
    experiment = opened.experiment
    if experiment.objective.name != "causal" or experiment.data.source not in DIALOGUES:
        message = f"a run of {experiment.objective.name} on {experiment.data.source} answers nobody"
        raise UserError(message, str(root), f"name a causal run on {' or '.join(DIALOGUES)}")
    if split not in ("validation", "test"):
        raise UserError(f"unknown split {split!r}", "--split", "use validation or test")
    if candidates < 2:
        raise UserError(f"{candidates} candidates leave no choice", "--candidates", "use at least 2")
    texts = read_data(opened).texts
    if not texts.get(split):
        raise UserError(f"the split {split!r} is empty", "--split", "use validation, or set data.test above 0")
    pairs = [text.split("\n", 1) for text in texts[split]]  # others' replies are held out, too
    questions, answers = (column[:limit] for column in zip(*pairs, strict=True))
    state, frozen, _ = restore(opened.folder, opened.setup, judged_step(opened.folder))
    model = Model(opened, opened.setup.tuning.attach(state.trainable, frozen))
    rows = metrics.draw_candidates(answers, [reply for _, reply in pairs], candidates, seed)
    scores = choose(model, questions, rows, texts["train"])
    own = log_likelihood(model, questions, answers)
    return {
        "run": str(root), "questions": len(questions), "candidates": candidates,
        "recall": {name: {f"recall@{k}": metrics.recall_at(found, k) for k in DEPTHS} for name, found in scores.items()}
        | {"chance": {f"recall@{k}": min(k / candidates, 1.0) for k in DEPTHS}},
        "reply_perplexity": math.exp(-own.sum() / sum(_size(model, reply) for reply in answers)),
        "distinct": {name: {f"distinct-{n}": metrics.distinct(said, n) for n in (1, 2)}
                     for name, said in (write(model, questions, seed) | {"people": answers}).items()},
    }  # fmt: skip


def choose(
    model: Model, questions: Sequence[str], rows: Sequence[Sequence[str]], known: Sequence[str]
) -> dict[str, np.ndarray]:
    """Way of scoring -> [questions, candidates]."""
    flat = [reply for row in rows for reply in row]
    asked = [question for question, row in zip(questions, rows, strict=True) for _ in row]
    shape = (len(rows), -1)
    given = log_likelihood(model, asked, flat)
    alone = log_likelihood(model, [""] * len(flat), flat)
    sizes = np.array([_size(model, reply) for reply in flat])
    return {
        "likelihood": given.reshape(shape), "likelihood per token": (given / sizes).reshape(shape),
        "likelihood against that without the question (PMI)": (given - alone).reshape(shape),
        "TF-IDF, question and reply": metrics.tfidf_scores([text.replace("\n", " ") for text in known], questions, rows),
    }  # fmt: skip


def log_likelihood(model: Model, questions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """log p(reply and its end | question, line break), in nats."""
    pieces = model.opened.tokenizer
    befores = [[pieces.bos, *pieces.encode(f"{question}\n")] for question in questions]
    rows = [[*before, *pieces.encode(reply), pieces.eos] for before, reply in zip(befores, answers, strict=True)]
    bound, context = model.opened.setup.model, model.opened.setup.config.context
    starts = [min(len(before), context - 1) for before in befores]
    return score_rows(bound.apply, bound.logits, model.params, rows, starts, pad=pieces.pad, context=context)


def write(model: Model, questions: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Way of sampling -> a reply per question, of at most 40 tokens."""
    setup, pieces = model.opened.setup, model.opened.tokenizer
    tokens = min(40, setup.config.context // 2)
    prompts = [[pieces.bos, *pieces.encode(f"{question}\n")] for question in questions]
    prompts = [prompt[-(setup.config.context - tokens) :] for prompt in prompts]
    found = {}
    for name, sampling in WAYS.items():
        new = generate(setup.module, setup.config, model.params, prompts, tokens, key=jax.random.key(seed),
                       sampling=sampling, stop=(pieces.eos,))  # fmt: skip
        found[name] = [pieces.decode(row) for row in new]
    return found


def _size(model: Model, reply: str) -> int:
    return len(model.opened.tokenizer.encode(reply)) + 1
