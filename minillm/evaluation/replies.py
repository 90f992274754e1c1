"""What replies are worth: how varied those are that a model writes, and how often it picks the right one of several.

distinct-n    different n-grams / all n-grams of the replies together: a common variant of Li et al. 2016a, section 5.3, who
              divide by the tokens
recall at k   share of questions whose own reply is among the k best of all candidates   Lowe et al. 2015, section 5
PMI           log p(reply | question) - log p(reply): not the reply that suits every question   Li et al. 2016a, section 3
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from minillm.errors import UserError
from minillm.evaluation.retrieval import ranks
from minillm.evaluation.textual import fit_vectors, parts_words


def units(texts: Sequence[str]) -> list[list[str]]:
    """Words between blanks, or characters where none part the words."""
    words = parts_words(texts)
    return [text.split() if words else list("".join(text.split())) for text in texts]


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams, 0 where there are none."""
    found = [tuple(row[i : i + n]) for row in units(texts) for i in range(len(row) - n + 1)]
    return len(set(found)) / max(len(found), 1)


def draw_candidates(replies: Sequence[str], others: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """For each reply itself, first, and `count` - 1 different ones of `others`, drawn by (seed, place).

    Raises: UserError where there are not as many.
    """
    found, pool = [], list(dict.fromkeys(others))
    if len(pool) < count:
        raise UserError(f"{len(pool)} different replies for {count} candidates", "--candidates", "use fewer")
    for place, reply in enumerate(replies):
        generator = np.random.Generator(np.random.Philox(key=[seed, place]))
        drawn = [pool[i] for i in generator.permutation(len(pool))[:count] if pool[i] != reply][: count - 1]
        found.append([reply, *drawn])
    return found


def recall_at(scores: Float[np.ndarray, "questions candidates"], depth: int) -> float:
    """Share of the questions whose first candidate, the right one, is among the `depth` best."""
    return float((ranks(scores, np.zeros(len(scores), int)) <= depth).mean())


def tfidf_scores(known: Sequence[str], questions: Sequence[str], candidates: Sequence[Sequence[str]]) -> np.ndarray:
    """[questions, candidates] cosines of question and candidate, as the known texts weigh their n-grams."""
    transform, _ = fit_vectors(known)
    asked = transform(questions)  # sparse, as the candidates: a text has few of all n-grams
    found = (transform(row) @ asked[place].T for place, row in enumerate(candidates))
    return np.stack([scores.toarray()[:, 0] for scores in found])
