"""Labels that somebody had to write: which texts get one, and which of them are wrong.

Which texts: as if an annotator went on from text to text, always with the class that is furthest behind its share, so that
the first 50 of 100 labelled texts are those of a budget of 50. Within a class the order is that of a hash of (seed, text).

Wrong labels, exactly round(rate * labels) of them (of each class, for "pair"), with the truth known to who injects them:

    symmetric   any other class, each as likely
    pair        the next class in order, as if annotators took one class for another (Han et al. 2018, section 4)

A model may annotate, too, as a teacher in self-training: `surest` says which of its answers count.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from minillm.data.document import Document
from minillm.errors import UserError


def choose(documents: Sequence[Document], count: int, seed: int) -> np.ndarray:
    """[documents] bool: the `count` documents that get labels, at least one of each class.

    Raises: UserError for fewer labels than classes, or more than documents.
    """
    sizes = Counter(document.label for document in documents)
    if not len(sizes) <= count <= len(documents):
        message = f"{count} labels for {len(documents)} training texts of {len(sizes)} classes"
        mend = f"take {len(sizes)} to {len(documents)}"
        raise UserError(message, "annotation.labels", mend)
    queues = {name: [] for name in sorted(sizes)}
    for place in sorted(range(len(documents)), key=lambda place: _key(seed, documents[place])):
        queues[documents[place].label].append(place)
    taken, chosen = dict.fromkeys(queues, 0), np.zeros(len(documents), bool)
    for _ in range(count):  # Sainte-Lague's rule: a class's first label comes before any other's second
        ready = [name for name in queues if taken[name] < sizes[name]]
        behind = lambda name: (taken[name] == 0, sizes[name] / (2 * taken[name] + 1))
        name = max(ready, key=behind)
        chosen[queues[name][taken[name]]] = True
        taken[name] += 1
    return chosen


def flip(labels: np.ndarray, classes: int, rate: float, seed: int, kind: str = "symmetric") -> np.ndarray:
    """Labels [examples] int, of which a share is wrong: a new array. See the module's docstring."""
    labels = np.asarray(labels)
    random, found = np.random.default_rng([seed, 23]), labels.copy()
    groups = [np.arange(len(labels))] if kind == "symmetric" else [np.flatnonzero(labels == c) for c in range(classes)]
    for group in groups:
        wrong = random.permutation(group)[: round(rate * len(group))]
        away = random.integers(1, classes, len(wrong)) if kind == "symmetric" else 1
        found[wrong] = (labels[wrong] + away) % classes
    return found


def surest(probabilities: Float[np.ndarray, "texts classes"], share: float) -> Bool[np.ndarray, "texts"]:
    """Of the texts of each answered class the surest `share`, rounded: no class crowds out the others, as one threshold lets it."""
    best, sure = probabilities.argmax(1), probabilities.max(1)
    found = np.zeros(len(best), bool)
    for number in np.unique(best):
        rows = np.flatnonzero(best == number)
        found[rows[np.argsort(-sure[rows], kind="stable")][: round(share * len(rows))]] = True
    return found


def _key(seed: int, document: Document) -> bytes:
    """Another hash than the split's, which has sorted the training part already."""
    text = f"annotation {seed}\0{document.text}\0{document.pair or ''}"
    return hashlib.sha256(text.encode("utf8", "surrogatepass")).digest()
