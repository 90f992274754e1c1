"""What a text gives away without a network: TF-IDF and a linear model, fitted in the same run on the same training texts.

    tfidf(n-gram, text) = (1 + ln count) (ln((1 + texts) / (1 + texts with it)) + 1), each text's vector of length 1

(Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval"; Manning, Raghavan and Schuetze 2008,
chapter 6). The rule for the n-grams: 1 to 3 characters where more than half of the training texts' letters are Chinese or
Japanese, whose words no spaces part, 1 and 2 words elsewhere. The linear model is a logistic regression (one class each),
one of them per class (several classes each) or a ridge regression (numbers); the kind of labels says which:

    integers [examples]             one class each            -> probabilities [texts, classes]
    booleans [examples, classes]    several classes each      -> probabilities [texts, classes]
    floats [examples]               numbers                   -> predictions [texts]

Its strength C is the one that is best on the validation texts, by macro F1 or squared error: nothing else of them, and
nothing of the test texts, is used.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from minillm.errors import UserError
from minillm.evaluation import classification

STRENGTHS = (1.0, 4.0, 16.0, 64.0)  # C of the logistic regression, 1 / penalty of the ridge regression
HEAD_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # the same on features of deviation 1, which are far longer vectors
TOLERANCE = 1e-5  # at scikit-learn's 1e-4 a C of 64 stops so early that it is another C
WITHOUT_SPACES = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
LETTER = re.compile(r"[^\W\d_]")

Predict = Callable[..., np.ndarray]


class Examples(NamedTuple):
    """Texts with their labels, of one of the three kinds above; pairs: the second sentences, where there are such."""

    texts: Sequence[str]
    labels: np.ndarray
    pairs: Sequence[str] | None = None


class Baseline(NamedTuple):
    """predict: (texts, pairs=None) -> probabilities or numbers. settings: what was chosen, and how many features."""

    name: str
    predict: Predict
    settings: dict[str, Any]


def fit_tfidf(train: Examples, validation: Examples, classes: int | None = None) -> Baseline:
    """The baseline of the module's docstring. classes: how many there are; None for numbers.

    Of a pair of sentences the model sees both vectors and their product, which is what they share.
    """
    vectorizer, kind, counted = _fit_vectorizer([*train.texts, *(train.pairs or ())])

    def read(texts: Sequence[str], pairs: Sequence[str] | None) -> sparse.csr_matrix:
        return _join(vectorizer.transform(texts), None if pairs is None else vectorizer.transform(pairs))

    size = len(train.texts)
    rows = (
        _join(counted[:size], None if train.pairs is None else counted[size:]),
        read(validation.texts, validation.pairs),
    )
    labels = np.asarray(train.labels), np.asarray(validation.labels)
    strength, predict = _choose(rows, labels, STRENGTHS, classes)
    model = "ridge regression" if classes is None else "logistic regression"
    settings = {"n-grams": kind, "features": rows[0].shape[1], "C": strength}
    return Baseline(f"TF-IDF + {model}", lambda texts, pairs=None: predict(read(texts, pairs)), settings)


def fit_majority(train: Examples, classes: int | None = None) -> Baseline:
    """Whatever the text: how frequent each class is, or the mean; so the most frequent class is what it decides for."""
    labels = np.asarray(train.labels)
    shares = (
        labels.mean(0) if labels.ndim == 2 or classes is None else np.bincount(labels, minlength=classes) / len(labels)
    )
    name = "mean" if classes is None else "most frequent class"
    return Baseline(name, lambda texts, pairs=None: np.repeat(np.asarray(shares)[None], len(texts), axis=0), {})


def logistic_head(
    train_features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, classes: int | None = None
) -> np.ndarray:
    """The same linear model on frozen features [examples, features], each brought to mean 0 and deviation 1.

    C is chosen on each fifth training example, as `probe.ridge_probe` does, and all are then used.
    """
    labels = np.asarray(labels)
    mean, deviation = train_features.mean(0), np.maximum(train_features.std(0), 1e-8)
    train, test = ((rows - mean) / deviation for rows in (train_features, test_features))
    held_out = np.arange(len(labels)) % 5 == 0
    parts = (train[~held_out], train[held_out]), (labels[~held_out], labels[held_out])
    strength, _ = _choose(*parts, HEAD_STRENGTHS, classes)
    return _fit(train, labels, strength, classes)(test)


def fit_joined(
    train: Examples,
    train_features: np.ndarray,
    validation: Examples,
    validation_features: np.ndarray,
    classes: int | None,
) -> Callable[[Sequence[str], np.ndarray], np.ndarray]:
    """The linear model on words and a network's features at once: (texts, features [texts, features]) -> probabilities.

    Each text's features get the length of its TF-IDF vector, 1, so that neither side drowns the other.
    """
    transform, counted = fit_vectors(train.texts)

    def beside(vectors: sparse.csr_matrix, features: np.ndarray) -> sparse.csr_matrix:
        lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return sparse.hstack([vectors, sparse.csr_matrix(features / lengths)]).tocsr()

    rows = beside(counted, train_features), beside(transform(validation.texts), validation_features)
    labels = np.asarray(train.labels), np.asarray(validation.labels)
    _, predict = _choose(rows, labels, STRENGTHS, classes)
    return lambda texts, features: predict(beside(transform(texts), features))


def parts_words(texts: Sequence[str]) -> bool:
    """Whether spaces part the words: at most half of the letters are Chinese or Japanese."""
    without = sum(len(WITHOUT_SPACES.findall(text)) for text in texts)
    return 2 * without <= sum(len(LETTER.findall(text)) for text in texts)


def fit_vectors(texts: Sequence[str]) -> tuple[Callable[[Sequence[str]], sparse.csr_matrix], sparse.csr_matrix]:
    """(texts -> TF-IDF vectors of length 1 as these texts weigh n-grams, the vectors of these texts)."""
    vectorizer, _, rows = _fit_vectorizer(texts)
    return vectorizer.transform, rows


def _join(first: sparse.csr_matrix, second: sparse.csr_matrix | None) -> sparse.csr_matrix:
    return first if second is None else sparse.hstack([first, second, first.multiply(second)]).tocsr()


def _fit_vectorizer(texts: Sequence[str]) -> tuple[Any, str, sparse.csr_matrix]:
    """(what turns texts into vectors, its n-grams in words, the vectors of these texts)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = parts_words(texts)
    units = {"analyzer": "word", "ngram_range": (1, 2)} if words else {"analyzer": "char", "ngram_range": (1, 3)}
    vectorizer = TfidfVectorizer(**units, token_pattern=r"\w+" if words else None, sublinear_tf=True)
    try:
        rows = vectorizer.fit_transform(texts)
    except ValueError:
        message = "the training texts have no words to count"
        raise UserError(message, "TF-IDF", "use texts with letters or digits") from None
    return vectorizer, "1 and 2 words" if words else "1 to 3 characters", rows


def _choose(rows: tuple, labels: tuple, strengths: Sequence[float], classes: int | None) -> tuple[float, Predict]:
    """(the strength that is best on the second part of rows and labels, what was fitted with it on the first)."""
    fitted = [_fit(rows[0], labels[0], strength, classes) for strength in strengths]
    judged = [_judge(labels[1], predict(rows[1])) for predict in fitted]
    best = int(np.argmax(judged))
    return strengths[best], fitted[best]


def _judge(labels: np.ndarray, found: np.ndarray) -> float:
    if found.ndim == 1:
        return -float(classification.regression(labels, found)["squared_error"])
    metric = classification.multi_label if labels.ndim == 2 else classification.single_label
    return float(metric(labels, found)["macro_f1"])


def _fit(rows: Any, labels: np.ndarray, strength: float, classes: int | None) -> Predict:
    """One thread: the same bits on any number of cores, and no threads that wait for each other's few numbers."""
    from sklearn.linear_model import Ridge
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        if classes is None:
            return Ridge(alpha=1.0 / strength).fit(rows, labels).predict
        if labels.ndim == 1:
            return _fit_classes(rows, labels, strength, classes)
        columns = [_fit_classes(rows, column.astype(int), strength, 2) for column in labels.T]
    return lambda rows: np.stack([predict(rows)[:, 1] for predict in columns], axis=1)


def _fit_classes(rows: Any, labels: np.ndarray, strength: float, classes: int) -> Predict:
    """Classes that no example has get the probability 0."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) > 1:
        found = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=5000).fit(rows, labels).predict_proba
    else:
        found = lambda rows: np.ones((rows.shape[0], 1))

    def predict(rows: Any) -> np.ndarray:
        probabilities = np.zeros((rows.shape[0], classes))
        probabilities[:, present] = found(rows)
        return probabilities

    return predict
