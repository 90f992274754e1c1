"""Checks of lesson 25: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake
from minillm.data import relations
from minillm.evaluation import entities

number = functools.partial(as_array, shape=(), what="F1", infinite="is something divided by 0?")

# to_tags

SENTENCES = [
    (7, [("PER", 0, 1), ("LOC", 4, 6)]),
    (5, [("ORG", 3, 3), ("PER", 0, 2)]),
    (4, [("PER", 0, 1), ("PER", 2, 3)]),
    (3, []),
]
WRITTEN = {
    "inside": "an entity begins with I-: its first unit is B-, or two neighbours of one kind become one",
    "begins": "every unit of an entity is B-: only the first one is, the others go on with I-",
    "short": "the last unit of an entity is missing: `last` belongs to it",
    "kind": "the kinds are missing: the tag is B- and I- with the kind, such as B-PER",
}


def _write(length, found, slip=None):
    tags = ["O"] * length
    for kind, first, last in found:
        for place in range(first, last + (slip != "short")):
            sign = "I" if slip == "inside" else "B" if slip == "begins" or place == first else "I"
            tags[place] = sign if slip == "kind" else f"{sign}-{kind}"
    return tags


def _in_order(length, found):
    """Only right where entities come in order."""
    tags = []
    for kind, first, last in found:
        tags += ["O"] * (first - len(tags)) + [f"B-{kind}"] + [f"I-{kind}"] * (last - first)
    return (tags + ["O"] * (length - len(tags)))[:length]


def check_to_tags(function: Callable) -> None:
    """Four sentences, one with its entities out of order, one with neighbours of one kind, one without any."""
    found = []
    for length, known in SENTENCES:
        tags = function(length, list(known))
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise Mistake("the function should return a list of strings, a tag per unit")
        if len(tags) != length:
            raise Mistake(f"{len(tags)} tags for a sentence of {length} units: each unit has one")
        found.append(tags)
    if found == [_write(*sentence) for sentence in SENTENCES]:
        return
    for slip, message in WRITTEN.items():
        if found == [_write(*sentence, slip) for sentence in SENTENCES]:
            raise Mistake(message)
    place = next(i for i, sentence in enumerate(SENTENCES) if found[i] != _write(*sentence))
    raise Mistake(f"{SENTENCES[place][1]} are {_write(*SENTENCES[place])}, not {found[place]}; they come in any order")


# entity_f1

RANDOM = np.random.default_rng(25)


def _draw(rows):
    """Well formed tags."""
    made = []
    for _ in range(rows):
        tags, place = ["O"] * 10, 0
        while place < 9:
            size, kind = int(RANDOM.integers(1, 4)), str(RANDOM.choice(["PER", "LOC"]))
            if RANDOM.random() < 0.6:
                tags[place : place + size] = [f"B-{kind}", *[f"I-{kind}"] * (size - 1)][: 10 - place]
            place += size
        made.append(tags)
    return made


ACTUAL, PREDICTED = _draw(12), _draw(12)
PREDICTED[:6] = [list(row) for row in ACTUAL[:6]]
PREDICTED[0] = [tag.replace("PER", "LOC") for tag in PREDICTED[0]]
PREDICTED[1] = ["O"] * 10
PREDICTED[2] = [*ACTUAL[2][:-2], "O", "O"]
ACTUAL += [["B-PER", "I-PER", "I-PER", *"OOOOOOO"], ["B-LOC", "I-LOC", *"OOOOOOOO"]]
PREDICTED += [["B-PER", "I-PER", *"OOOOOOOO"], ["B-LOC", *"OOOOOOOOO"]]
COUNTS = {
    "tags": "this counts tags, not entities: half a name is no name",
    "accuracy": "this is the share of right tags, most of which are O",
    "kinds": "kinds are not compared: a place that is called a person is wrong",
    "sentences": "the number of the sentence is not compared: the same name at the same place of another one counts as right",
    "begins": "only where entities begin is compared: their last unit must be right too",
    "precision": "this is precision alone: what was not found counts too",
    "mean": "this is the mean over sentences: count right, predicted and true over all of them first",
}


def _find(rows, slip):
    found = []
    for place, tags in enumerate(rows):
        for kind, first, last in entities.find_entities(tags):
            found.append((0 if slip == "sentences" else place, "" if slip == "kinds" else kind, first,
                          first if slip == "begins" else last))  # fmt: skip
    return set(found)


def _score(actual, predicted, slip=None):
    if slip == "accuracy":
        return float(np.mean(np.array(actual) == np.array(predicted)))
    if slip == "mean":
        return float(np.mean([_score([a], [b]) for a, b in zip(actual, predicted, strict=True)]))
    if slip == "tags":
        true, said = (
            {(i, j, tag) for i, tags in enumerate(rows) for j, tag in enumerate(tags) if tag != "O"}
            for rows in (actual, predicted)
        )
    else:
        true, said = _find(actual, slip), _find(predicted, slip)
    if slip == "precision":
        return len(true & said) / len(said) if said else 0.0
    return 2.0 * len(true & said) / (len(true) + len(said)) if true or said else 0.0


def check_entity_f1(function: Callable) -> None:
    """Against the library's, and where there is nothing to find."""
    copy = lambda rows: [list(row) for row in rows]
    found = float(number(function(copy(ACTUAL), copy(PREDICTED))))
    expected = float(entities.entity_scores(entities.count_entities(ACTUAL, PREDICTED))["micro_f1"])
    if abs(found - expected) > 1e-6:
        for slip, message in COUNTS.items():
            if abs(found - _score(ACTUAL, PREDICTED, slip)) < 1e-6:
                raise Mistake(message)
        raise Mistake(f"F1 is {expected:.4f}, not {found:.4f}: print the entities of each sentence")
    if float(number(function([["O", "O"]], [["O", "O"]]))) != 0.0:
        raise Mistake("where there is no entity at all, F1 is 0.0 here")


def _divides(actual, predicted):
    """By zero, where there is nothing."""
    true, said = _find(actual, None), _find(predicted, None)
    with np.errstate(invalid="ignore"):
        return np.float64(2.0 * len(true & said)) / np.float64(len(true) + len(said))


# mark

TEXTS = [
    ("Ghana's capital is Accra.", (0, 5), (19, 24)),
    ("Accra is the capital of Ghana", (24, 29), (0, 5)),
    ("Bern is in Bern canton.", (11, 15), (0, 4)),
]
MARKED = {
    "shifted": "the second phrase is marked in the wrong place where the head comes first: the first signs have moved it; begin "
    "with the phrase that stands behind",
    "swapped": "the signs are swapped: E1 is around the head, wherever it stands",
    "order": "E1 is around whichever phrase comes first: it belongs to the head, which may come second",
    "found": "the words are looked for in the text: the same word may stand in it twice, so use the places",
    "open": "the closing signs are missing: one stands behind each phrase too",
}


def _mark(text, head, tail, slip=None):
    if slip == "found":
        for (first, after), sign in ((head, "E1"), (tail, "E2")):
            words = text[first:after] if sign == "E1" else None
            words = words or _original(text, head, tail)
            text = text.replace(words, f"{sign} {words} {sign}", 1)
        return text
    signs = [(head, "E1"), (tail, "E2")]
    if slip == "swapped":
        signs = [(head, "E2"), (tail, "E1")]
    if slip == "order":
        signs = [*zip(sorted([head, tail]), ("E1", "E2"), strict=True)]
    for (first, after), sign in signs if slip == "shifted" else sorted(signs, reverse=True):
        text = f"{text[:first]}{sign} {text[first:after]}{'' if slip == 'open' else f' {sign}'}{text[after:]}"
    return text


def _original(text, head, tail):
    """The tail's words, where the head has been marked already."""
    moved = 6 if tail[0] > head[0] else 0
    return text[tail[0] + moved : tail[1] + moved]


def check_mark(function: Callable) -> None:
    """Against the library's, with the head first, with it second, and with one word twice."""
    found = [function(*example) for example in TEXTS]
    if not all(isinstance(text, str) for text in found):
        raise Mistake("the function should return a string")
    expected = [relations.mark(*example) for example in TEXTS]
    if found == expected:
        return
    for slip, message in MARKED.items():
        if found == [_mark(*example, slip) for example in TEXTS]:
            raise Mistake(message)
    place = next(i for i, text in enumerate(found) if text != expected[i])
    raise Mistake(f"expected {expected[place]!r}, got {found[place][:80]!r}")


CHECKS = {"to_tags": check_to_tags, "entity_f1": check_entity_f1, "mark": check_mark}

HINTS = {
    "to_tags": (
        'Begin with ["O"] * length, so that the order of the entities does not matter.',
        'tags[first] = f"B-{kind}", and for each place from first + 1 to last (included) f"I-{kind}".',
    ),
    "entity_f1": (
        "Collect (sentence, kind, first, last) of every entity in a set, for both; `&` of two sets is what they share.",
        "B- appends a new entity whose last unit is its first; I- moves the last unit of the latest one.",
    ),
    "mark": (
        "If the phrase that stands further behind is marked first, the places of the other one are still right.",
        "sorted([(head, 'E1'), (tail, 'E2')], reverse=True) gives them from behind.",
    ),
}

MISTAKES = {
    "to_tags": [
        *((functools.partial(_write, slip=slip), message) for slip, message in WRITTEN.items()),
        (_in_order, "they come in any order"),
    ],
    "entity_f1": [
        *((functools.partial(_score, slip=slip), message) for slip, message in COUNTS.items()),
        (_divides, "divided by 0"),
    ],
    "mark": [(functools.partial(_mark, slip=slip), message) for slip, message in MARKED.items()],
}
