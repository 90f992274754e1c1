"""What tags a word or character gives away without a network: its most frequent tag, and a conditional random field.

A linear-chain field (Lafferty, McCallum and Pereira 2001) scores a whole sequence of tags,

    P(tags | units) = exp(sum_i (sum_f w[f, tag_i] f(units, i) + v[tag_(i-1), tag_i])) / Z(units)

with binary features f of the units around i. Weights maximise the likelihood with L1 and L2 penalties (CRFsuite's L-BFGS).
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from minillm.errors import UserError

PENALTIES = {"c1": 0.1, "c2": 0.05}  # L1, L2
OUTSIDE = "O"

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]


def fit_most_frequent(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> Tagger:
    """Each unit gets the tag that it has most often in training, the earlier one of equals; an unknown unit is outside."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for sentence, row in _pairs(sentences, tags):
        for unit, tag in zip(sentence, row, strict=True):
            counts[unit][tag] += 1
    best = {unit: found.most_common(1)[0][0] for unit, found in counts.items()}
    return lambda sentences: [[best.get(unit, OUTSIDE) for unit in sentence] for sentence in sentences]


def fit_field(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], *, iterations: int = 100) -> Tagger:
    """The conditional random field. iterations: of L-BFGS at most; the same data give the same weights."""
    import pycrfsuite

    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(PENALTIES | {"max_iterations": iterations, "feature.possible_transitions": True})
    for sentence, row in _pairs(sentences, tags):
        if sentence:
            trainer.append([list(describe(sentence, i)) for i in range(len(sentence))], list(row))
    with tempfile.TemporaryDirectory() as folder:  # CRFsuite writes models to files only
        path = Path(folder) / "model"
        trainer.train(str(path))
        model = path.read_bytes()

    def tag(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        tagger = pycrfsuite.Tagger()
        tagger.open_inmemory(model)  # does not copy: the bytes must live as long as the tagger
        rows = ([list(describe(sentence, i)) for i in range(len(sentence))] for sentence in sentences)
        return [list(tagger.tag(row)) if row else [] for row in rows]

    return tag


def describe(units: Sequence[str], place: int) -> Iterator[str]:
    """The names of the features that hold at a place: units up to two away, neighbouring pairs, shapes, beginnings, ends."""
    around = {offset: units[place + offset] for offset in range(-2, 3) if 0 <= place + offset < len(units)}
    for offset in range(-2, 3):
        yield f"unit[{offset}]={around.get(offset, '<edge>')}"
    for offset in range(-2, 2):
        yield f"pair[{offset}]={around.get(offset, '<edge>')}\0{around.get(offset + 1, '<edge>')}"
    for offset in range(-1, 2):
        yield f"shape[{offset}]={_shape(around.get(offset, ''))}"
    unit = units[place]
    if len(unit) > 1:
        yield f"lower={unit.lower()}"
        for length in range(1, min(4, len(unit))):
            yield f"begins={unit[:length]}"
            yield f"ends={unit[-length:]}"


def _shape(unit: str) -> str:
    """Like signs of a unit as one letter, runs as one: "Mr." is "Aa.", "1998" is "0", a Chinese word is "c"."""
    found = ""
    for character in unit:
        if character.isdigit():
            kind = "0"
        elif character.isalpha():
            kind = "A" if character.isupper() else "a" if character.islower() else "c"
        else:
            kind = "."
        if not found.endswith(kind):
            found += kind
    return found


def _pairs(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> Iterator[tuple]:
    if not any(len(sentence) for sentence in sentences):
        raise UserError("no units to learn from", "tagging", "use training texts with tags")
    for number, (sentence, row) in enumerate(zip(sentences, tags, strict=True)):
        if len(sentence) != len(row):
            raise UserError(
                f"{len(sentence)} units and {len(row)} tags", f"sentence {number}", "give each unit one tag"
            )
        yield sentence, row
