"""`minillm drift`: whether texts that come in still look like those that a classifier was judged on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.data.document import Document
from minillm.errors import UserError
from minillm.evaluation import drift
from minillm.experiment import adapters, supervised
from minillm.experiment.ask.predict import answer, as_documents
from minillm.experiment.ask.reopen import open_run, read_data

FOLDS = 3  # of the classifier that tells a window from the reference


class Watched(NamedTuple):
    """A document's text, how sure the model is of its class, and how many of its tokens the tokenizer does not know."""

    text: str
    sure: float
    tokens: list[int]


def watch(root: Path, texts: Sequence[str], window: int = 50, rate: float = 0.05) -> dict[str, Any]:
    """{"thresholds", "windows": [{"first", "last", "statistics", "above"}], "alarm": place of the first window with one}.

    Each statistic's threshold is set on windows of held-out texts of the run, so that one more such window is above it with
    probability `rate` at most; the other held-out texts are the reference. `window`: texts in one; what does not fill the
    last one is left out. Raises: UserError where the run is no classifier or has too few held-out texts.
    """
    opened, trainable, frozen = adapters.weights(open_run(root), None)
    if opened.experiment.objective.name != "classify" or opened.tokenizer is None:
        raise UserError("only a classifier of texts is sure or unsure", str(root), "name a run of classify on texts")
    parts = read_data(opened).documents
    held_out = [*parts["validation"], *parts["test"]]
    count = int(np.ceil(1.0 / rate)) - 1  # the fewest windows that set a threshold at this rate
    if len(held_out) < (count + 1) * window:
        message = f"{len(held_out)} held-out texts are fewer than {count} windows of {window} and a reference"
        raise UserError(message, "--window, --rate", "use a smaller window or a higher rate of false alarms")
    if len(texts) < window:
        raise UserError(f"{len(texts)} texts do not fill a window of {window}", "--window", "use a smaller one")
    order = np.random.default_rng(0).permutation(len(held_out))  # a file may have its texts in order
    look = lambda documents: _look(opened, trainable, frozen, documents)
    known, came = look([held_out[place] for place in order]), look(as_documents(opened, texts, None))
    statistics = _statistics(known[count * window :], getattr(opened.tokenizer, "unk", None))
    before, now = _cut(known[: count * window], window), _cut(came, window)
    thresholds = {
        name: drift.alarm_threshold([statistic(part) for part in before], rate)
        for name, statistic in statistics.items()
    }
    rows = []
    for number, part in enumerate(now):
        found = {name: statistic(part) for name, statistic in statistics.items()}
        above = [name for name, value in found.items() if value > thresholds[name]]
        rows.append({"first": number * window + 1, "last": (number + 1) * window, "statistics": found, "above": above})
    alarm = next((place for place, row in enumerate(rows, start=1) if row["above"]), None)
    return {"run": str(root), "window": window, "rate": rate, "reference": len(known) - count * window,
            "thresholds": thresholds, "windows": rows, "alarm": alarm}  # fmt: skip


def _look(opened, trainable, frozen, documents: Sequence[Document]) -> list[Watched]:
    data = supervised.make_rows(opened.experiment, opened.tokenizer, documents)
    sure = np.asarray(answer(opened, trainable, frozen, documents, data)).max(-1)
    tokens = opened.tokenizer.encode_many([document.text for document in documents])
    return [Watched(*row) for row in zip([d.text for d in documents], map(float, sure), tokens, strict=True)]


def _statistics(reference: Sequence[Watched], unknown: int | None) -> dict[str, Callable[[Sequence[Watched]], float]]:
    usual, texts = [row.sure for row in reference], [row.text for row in reference]
    found = {
        "PSI of the confidence": lambda part: drift.stability_index(usual, [row.sure for row in part], bins=5),
        "KS of the confidence": lambda part: drift.distance(usual, [row.sure for row in part]),
        "AUC, window against reference": lambda part: drift.classifier_area(texts, [row.text for row in part], FOLDS),
    }
    if unknown is not None:
        found["unknown tokens"] = lambda part: drift.unknown_rate([row.tokens for row in part], unknown)
    return found


def _cut(rows: Sequence[Watched], size: int) -> list[Sequence[Watched]]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
