"""Entities of BIO tags, counted as conlleval does (Tjong Kim Sang and De Meulder 2003) and seqeval in its default mode.

"B-PER" begins a person, "I-PER" goes on with one, "O" is outside. An entity is right if its type, its first and its last
unit are. What breaks the scheme still counts: an "I-PER" behind "O" or behind another type begins an entity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from minillm.errors import UserError
from minillm.evaluation.classification import Counts, Metrics, Weights, averages, score

OUTSIDE = "O"


class Entity(NamedTuple):
    """A type and the places of its first and last unit."""

    type: str
    first: int
    last: int


class Counted(NamedTuple):
    """Entities of each sentence by type: right ones, predicted ones, true ones."""

    types: tuple[str, ...]
    hits: Float64[np.ndarray, "sentences types"]
    predicted: Float64[np.ndarray, "sentences types"]
    actual: Float64[np.ndarray, "sentences types"]


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Tags of one sentence -> its entities in order. Raises: UserError for a tag that is not O, B-TYPE or I-TYPE."""
    found: list[Entity] = []
    before = OUTSIDE
    for place, tag in enumerate(tags):
        sign, _, kind = tag.partition("-")
        if tag != OUTSIDE and not (sign in ("B", "I") and kind):
            raise UserError(f"{tag!r} is no tag, expected O, B-TYPE or I-TYPE", f"unit {place}", "mend the tags")
        if tag != OUTSIDE:
            if sign == "I" and before.partition("-")[2] == kind:
                found[-1] = found[-1]._replace(last=place)
            else:
                found.append(Entity(kind, place, place))
        before = tag
    return found


def count_entities(actual: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Counted:
    """Per sentence and type. Types are those that occur in either. Raises: UserError where lengths differ."""
    if len(actual) != len(predicted):
        message = f"{len(actual)} sentences with true tags and {len(predicted)} with predicted ones"
        raise UserError(message, "entities", "tag each sentence once")
    for number, (left, right) in enumerate(zip(actual, predicted, strict=True)):
        if len(left) != len(right):
            raise UserError(f"{len(left)} true and {len(right)} predicted tags", f"sentence {number}", "tag each unit")
    sets = [[set(find_entities(tags)) for tags in rows] for rows in (actual, predicted)]
    types = sorted({entity.type for rows in sets for row in rows for entity in row})
    both = [left & right for left, right in zip(*sets, strict=True)]
    tables = [np.zeros((len(actual), len(types))) for _ in range(3)]
    for table, rows in zip(tables, (both, sets[1], sets[0]), strict=True):
        for number, row in enumerate(rows):
            for entity in row:
                table[number, types.index(entity.type)] += 1.0
    return Counted(tuple(types), *tables)


def entity_scores(counted: Counted, weights: Weights = None) -> Metrics:
    """Macro and micro precision, recall and F1; `weights` say how often each sentence counts, [*draws, sentences]."""
    return averages(_sum(counted, weights))


def type_f1(counted: Counted, weights: Weights = None) -> Metrics:
    """F1 of each type by its name."""
    found = score(_sum(counted, weights)).f1
    return {name: found[..., place] for place, name in enumerate(counted.types)}


def describe_types(counted: Counted) -> list[dict]:
    """A row per type for a table: name, precision, recall, f1, how many there are and how many are predicted."""
    sums = _sum(counted, None)
    found = score(sums)
    return [
        {"class": name, "precision": float(found.precision[place]), "recall": float(found.recall[place]),
         "f1": float(found.f1[place]), "actual": int(sums.actual[place]), "predicted": int(sums.predicted[place])}
        for place, name in enumerate(counted.types)
    ]  # fmt: skip


def _sum(counted: Counted, weights: Weights) -> Counts:
    """Without any entity there is one class without counts, so that averages are 0 and undefined rather than missing."""
    rows = np.ones(len(counted.hits)) if weights is None else weights
    found = [rows @ part for part in counted[1:]]
    return Counts(*(part if counted.types else np.zeros((*part.shape[:-1], 1)) for part in found))
