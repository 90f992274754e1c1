"""What a run that learned to compare texts is judged by: whether the nearest training text has the same label."""

from typing import Any

import numpy as np

from minillm.evaluation import textual
from minillm.evaluation.similarity import nearest_accuracy
from minillm.experiment import supervised
from minillm.experiment.data import split_documents
from minillm.experiment.job import Run
from minillm.experiment.setup import new_state
from minillm.sections.data import is_labelled


def judge_similarity(job: Run, weights: tuple, base: dict) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """({"nearest": share of validation texts}, the same of TF-IDF and of the vectors before training).

    weights = (trainable, frozen); base: what the run began with. Both are empty where the texts have no labels.
    """
    if not is_labelled(job.experiment.data):
        return {}, {}
    section, splits = job.experiment.contrastive, split_documents(job.experiment)[0]
    parts = {"train": splits.train, "validation": splits.validation}
    labels = {name: np.array([document.label for document in part]) for name, part in parts.items()}
    texts = {name: [document.text for document in part] for name, part in parts.items()}
    extract = supervised.extractor(job.setup, "mean" if section is None else section.pooling)
    batches = {name: supervised.text_batches(job.experiment, job.data.tokenizer, part) for name, part in parts.items()}
    before, frozen = new_state(job.setup, base)

    def judged(vectors: dict[str, Any]) -> dict[str, float]:
        pairs = (vectors["train"], labels["train"], vectors["validation"], labels["validation"])
        return {"nearest": nearest_accuracy(*pairs)}

    own = judged({name: extract(*weights, found) for name, found in batches.items()})
    start = judged({name: extract(before.trainable, frozen, found) for name, found in batches.items()})
    vectorizer, _ = textual.fit_vectors(texts["train"])
    tfidf = judged({name: vectorizer(found) for name, found in texts.items()})
    return own, {"before training": start, "TF-IDF": tfidf}
