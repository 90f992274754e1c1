"""Splits of labelled documents: shares, groups and determinism, on random data."""

import random
from collections import Counter

import numpy as np
import pytest

from minillm.data.clean_labelled import fold
from minillm.data.document import Document
from minillm.data.stratify import split_labelled
from minillm.errors import UserError

SHARES = [(0.1, 0.1), (0.2, 0.0), (0.05, 0.15), (0.33, 0.33), (0.01, 0.01)]


def documents(seed, count=400, classes=5):
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(classes))
    return [Document(f"d:{n}", f"text {n}", f"c{c}") for n, c in enumerate(generator.choice(classes, count, p=weights))]


def texts(parts):
    return [[d.text for d in part] for part in parts]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shares", SHARES)
def test_every_part_has_its_share_of_every_class(seed, shares):
    whole = documents(seed)
    sizes = Counter(d.label for d in whole)
    whole = [d for d in whole if sizes[d.label] >= 3]
    parts = split_labelled(whole, *shares, seed)
    assert sorted(d.name for part in parts for d in part) == sorted(d.name for d in whole)
    for part, share in zip(parts, (1.0 - sum(shares), *shares), strict=True):
        counts = Counter(d.label for d in part)
        for label, size in Counter(d.label for d in whole).items():
            # a share below one document takes one from training, from which so both others may
            rare = sum(0.0 < share * size < 1.0 for share in shares) if part is parts.train else 0
            assert abs(counts[label] - share * size) < 1.0 + rare + 1e-9
            assert counts[label] > 0 or share == 0.0
        if min(sizes.values()) * min(filter(None, shares)) >= 1.0:
            assert abs(len(part) - share * len(whole)) <= 1.5


@pytest.mark.parametrize("kind", ["class", "classes", "number", "pair", "tags"])
def test_the_order_of_documents_says_nothing_and_the_seed_does(kind):
    whole = documents(3, 120, 3)
    extra = {
        "class": lambda d: d, "number": lambda d: d._replace(label=float(len(d.name) + int(d.label[1:]))),
        "classes": lambda d: d._replace(label=(d.label,) * (d.label > "c0") + ("x",) * (d.name < "d:5")),
        "pair": lambda d: d._replace(pair=f"other {int(d.name[2:]) // 3}"),
        "tags": lambda d: d._replace(units=tuple(d.text), label=("O",) * len(d.text)),
    }[kind]  # fmt: skip
    whole = [extra(d) for d in whole]
    parts = split_labelled(whole, 0.2, 0.1, 0)
    shuffled = random.Random(1).sample(whole, len(whole))
    assert [set(part) for part in texts(split_labelled(shuffled, 0.2, 0.1, 0))] == [set(part) for part in texts(parts)]
    assert [set(part) for part in texts(split_labelled(whole, 0.2, 0.1, 1))] != [set(part) for part in texts(parts)]
    place = {d.name: n for n, d in enumerate(whole)}
    assert all([place[d.name] for d in part] == sorted(place[d.name] for d in part) for part in parts)


@pytest.mark.parametrize("seed", range(6))
def test_equal_texts_never_cross(seed):
    """Texts equal after folding, and pairs with one sentence in common, stay in one part."""
    generator = np.random.default_rng(seed)
    number = lambda top: int(generator.integers(top))
    same = [
        Document(f"d:{n}", f"{'Text' if n % 2 else 'text'} {n // 2}{'!' * number(2)}", f"c{n // 2 % 3}")
        for n in range(200)
    ]
    paired = [Document(f"d:{n}", f"a{number(400)}", "x", f"a{number(400)}!") for n in range(120)]
    for whole in (same, paired):
        parts = split_labelled(whole, 0.15, 0.15, seed)
        sets = [{fold(text) for d in part for text in (d.text, d.pair) if text} for part in parts]
        assert all(sets)
        assert not sets[0] & sets[1]
        assert not (sets[0] | sets[1]) & sets[2]
        assert all(abs(len(part) - 0.15 * len(whole)) <= 5 for part in parts[1:])


@pytest.mark.parametrize("seed", range(6))
def test_several_classes_and_numbers_are_spread(seed):
    generator = np.random.default_rng(seed)
    names = np.array(["a", "b", "c", "d", "rare"])
    several = [
        Document(f"d:{n}", f"text {n}", tuple(names[generator.random(5) < (0.5, 0.3, 0.2, 0.1, 0.004)]))
        for n in range(600)
    ]
    parts = split_labelled(several, 0.15, 0.15, seed)
    counts = [Counter(name for d in part for name in d.label) for part in parts]
    for name in "abcd":
        total = sum(count[name] for count in counts)
        assert all(abs(count[name] - 0.15 * total) <= 8 for count in counts[1:])
    assert set(counts[1] + counts[2]) <= set(counts[0])
    numbers = [Document(f"d:{n}", f"text {n}", float(value)) for n, value in enumerate(generator.lognormal(size=500))]
    parts = split_labelled(numbers, 0.2, 0.2, seed)
    quantiles = [np.quantile([d.label for d in part], [0.25, 0.5, 0.75]) for part in parts]
    assert np.allclose(quantiles[1], quantiles[0], rtol=0.25)
    assert np.allclose(quantiles[2], quantiles[0], rtol=0.25)


def test_a_class_that_only_a_few_documents_have_is_in_training():
    for seed in range(30):
        whole = [Document(f"d:{n}", f"text {n}", ("a",) if n else ("a", "b")) for n in range(50)]
        assert any("b" in d.label for d in split_labelled(whole, 0.3, 0.3, seed).train)
        tagged = [d._replace(units=("x",), label=("B-PER",) if n == 7 else ("O",)) for n, d in enumerate(whole)]
        assert any(d.label == ("B-PER",) for d in split_labelled(tagged, 0.3, 0.3, seed).train)


def test_few_examples_and_large_groups():
    few = [Document("d:1", "a", "x"), Document("d:2", "b", "x"), *documents(0, 50, 1)]
    with pytest.raises(UserError, match=r"each of 3 parts needs 3 different texts: x \(2\)"):
        split_labelled(few, 0.1, 0.1, 0)
    assert [d.label for d in split_labelled(few, 0.1, 0.0, 0).validation].count("x") == 1
    one = [Document(f"d:{n}", "the same premise", "x", f"hypothesis {n}") for n in range(20)]
    with pytest.raises(
        UserError,
        match=r"20 documents in 1 groups .* the test part empty: .* stay together \(the largest group has 20\)",
    ):
        split_labelled(one, 0.1, 0.1, 0)
