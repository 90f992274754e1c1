"""A translator that remembers: the answer to the training text that is most like the question.

Alike is the cosine of TF-IDF vectors of 2 to 4 characters inside words (see `textual.py`), the first where several are.
That is what a translator's translation memory proposes, and for headlines those of other news.
"""

from collections.abc import Sequence

import numpy as np

from minillm.evaluation.similarity import nearest


def answer_alike(sources: Sequence[str], answers: Sequence[str], questions: Sequence[str]) -> list[str]:
    """For each question the answer of the nearest source."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    known, asked = vectorizer.fit_transform(sources), vectorizer.transform(questions)
    return [answers[place] for place in nearest(known, asked)[:, 0]]
