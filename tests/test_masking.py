"""Corruptions: their shares, their inverse, their dependence on (seed, step), and that they leak nothing."""

import numpy as np
import pytest

from minillm.data import masking, pairs
from minillm.data.batches import batch_at, make_dataset
from minillm.errors import UserError

PAD, CLASS, SEPARATOR, MASK, VOCABULARY = 0, 1, 2, 3, 40
SPECIAL = (PAD, CLASS, SEPARATOR, MASK)
SETTINGS = masking.Masking(VOCABULARY, MASK, SPECIAL)


def rows(count=400, length=64, seed=0):
    """[class] A [separator] B [separator], padded to different lengths."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(4, VOCABULARY, size=(count, length)).astype(np.int32)
    tokens[:, 0], tokens[:, 20] = CLASS, SEPARATOR
    ends = generator.integers(40, length, size=count)
    tokens[np.arange(count), ends] = SEPARATOR
    tokens[np.arange(length) > ends[:, None]] = PAD
    return {"tokens": tokens, "index": np.arange(count)}


def within(found, share, trials, deviations=4.0):
    """Whether a count lies within some standard deviations of its binomial mean."""
    return abs(found - share * trials) <= deviations * np.sqrt(trials * share * (1.0 - share))


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_masking_takes_15_percent_of_ordinary_tokens_and_nothing_else():
    before = rows()
    after = masking.mask_tokens(before, 3, 5, SETTINGS)
    chosen, ordinary = after["weights"] > 0, ~np.isin(before["tokens"], SPECIAL)
    assert not np.any(chosen & ~ordinary)
    np.testing.assert_array_equal(chosen.sum(1), np.round(0.15 * ordinary.sum(1)))
    everywhere = ordinary.all(0)  # positions that are ordinary in each row are equally likely
    assert within(chosen[:, everywhere].sum(), 0.15, chosen[:, everywhere].size)
    assert np.all([within(column.sum(), 0.15, len(column)) for column in chosen[:, everywhere].T])
    np.testing.assert_array_equal(after["tokens"][~chosen], before["tokens"][~chosen])
    assert not np.any(np.isin(after["tokens"][chosen], (PAD, CLASS, SEPARATOR)))


def test_of_the_chosen_80_percent_are_masked_10_random_10_stay():
    before = rows()
    after = masking.mask_tokens(before, 3, 5, SETTINGS)
    chosen = after["weights"] > 0
    old, new = before["tokens"][chosen], after["tokens"][chosen]
    ordinary = VOCABULARY - len(SPECIAL)
    assert within((new == MASK).sum(), 0.8, len(new))
    assert within((new == old).sum(), 0.1 + 0.1 / ordinary, len(new))
    drawn = new[(new != MASK) & (new != old)]
    assert within(len(drawn), 0.1 * (1 - 1 / ordinary), len(new))
    assert len(set(drawn.tolist())) == ordinary  # all of them come up


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_other_shares(shares):
    before = rows(50)
    settings = masking.Masking(VOCABULARY, MASK, SPECIAL, 0.3, *shares)
    after = masking.mask_tokens(before, 0, 0, settings)
    new, old = (x["tokens"][after["weights"] > 0] for x in (after, before))
    assert (new == MASK).mean() == shares[0]
    assert within((new == old).sum(), (1 / 36) if shares[1] else 0.0, len(new)) or shares == (0.0, 0.0)
    assert (new == old).all() == (shares == (0.0, 0.0))


def test_whole_words_are_masked_whole():
    before = rows()
    starts = np.random.default_rng(1).random(before["tokens"].shape) < 0.5
    after = masking.mask_tokens(before, 2, 0, SETTINGS, starts)
    chosen, ordinary = after["weights"] > 0, ~np.isin(before["tokens"], SPECIAL)
    inside = ordinary[:, 1:] & ordinary[:, :-1] & ~starts[:, 1:]  # belongs to the word of the token before it
    np.testing.assert_array_equal(chosen[:, 1:][inside], chosen[:, :-1][inside])
    assert np.any(chosen[:, 1:] & ordinary[:, :-1] & ~chosen[:, :-1])  # words that are not masked stand beside
    budget = np.round(0.15 * ordinary.sum(1))
    assert np.all(chosen.sum(1) <= budget)
    assert chosen.sum() > 0.95 * budget.sum()
    assert np.array_equal(masking.restore(after), before["tokens"])


def test_a_word_ends_at_a_special_token():
    before = {"tokens": np.array([[CLASS, 5, 6, SEPARATOR, 7, SEPARATOR]])}
    settings = masking.Masking(VOCABULARY, MASK, SPECIAL, 0.34)  # room for one token of three
    after = masking.mask_tokens(before, 0, 0, settings, np.zeros((1, 6), bool))
    np.testing.assert_array_equal(after["weights"], [[0, 0, 0, 0, 1, 0]])


def test_corruption_depends_on_seed_and_step_alone():
    before = rows(20)
    kept = {name: leaf.copy() for name, leaf in before.items()}
    corrupt = lambda seed, step: masking.shuffle_trigrams(
        masking.mask_tokens(before, seed, step, SETTINGS), seed, step, SPECIAL
    )
    first = corrupt(1, 2)
    assert equal(first, corrupt(1, 2))
    for other in (corrupt(1, 3), corrupt(2, 2), corrupt(2, 1)):
        assert not np.array_equal(first["weights"], other["weights"])
        assert not np.array_equal(first["order_weights"], other["order_weights"])
    assert equal(before, kept)  # nothing is changed in place


@pytest.mark.parametrize("gathered", [False, True])
def test_everything_can_be_restored_and_targets_stand_only_where_something_is_predicted(gathered):
    before = rows(100)
    after = masking.mask_tokens(before, 1, 0, SETTINGS)
    after = masking.shuffle_trigrams(after, 1, 0, SPECIAL)
    assert not np.array_equal(after["tokens"], before["tokens"])
    scored = (after["weights"] > 0) | (after["order_weights"] > 0)
    assert np.all(after["targets"][~scored] == 0)
    if gathered:
        dense, after = after, masking.gather_targets(after, 20)
        assert after["targets"].shape == after["weights"].shape == after["target_positions"].shape == (100, 20)
        for name in ("weights", "order_weights"):
            assert after[name].sum() == dense[name].sum()
        assert all(len(set(row)) == 20 for row in after["target_positions"].tolist())
    np.testing.assert_array_equal(masking.restore(after), before["tokens"])


def test_too_few_places_for_the_targets_are_refused():
    after = masking.mask_tokens(rows(10), 0, 0, SETTINGS)
    with pytest.raises(ValueError, match="count must be between"):
        masking.gather_targets(after, 5)
    most = int(masking.budget(64, 0.15))
    assert masking.gather_targets(after, most)["weights"].sum() == after["weights"].sum()


def test_trigrams_are_shuffled_among_themselves():
    before = rows()
    after = masking.mask_tokens(before, 4, 0, SETTINGS)
    shuffled = masking.shuffle_trigrams(after, 4, 0, SPECIAL)
    weights = shuffled["order_weights"] > 0
    assert not np.any(weights & (after["weights"] > 0))
    assert not np.any(np.isin(before["tokens"][weights], SPECIAL))
    free = ~np.isin(before["tokens"], SPECIAL) & (after["weights"] == 0)
    trigrams = (free[:, :-2] & free[:, 1:-1] & free[:, 2:]).sum(1)
    np.testing.assert_array_equal(weights.sum(1), 3 * np.maximum(np.round(0.05 * trigrams), 1))
    orders = {}
    for old, new, at in zip(before["tokens"], shuffled["tokens"], weights, strict=True):
        place = 0
        while place < len(at):
            if at[place]:
                assert at[place : place + 3].all()
                assert sorted(old[place : place + 3]) == sorted(new[place : place + 3])
                if len(set(old[place : place + 3].tolist())) == 3:
                    order = tuple(old[place : place + 3].tolist().index(t) for t in new[place : place + 3])
                    orders[order] = orders.get(order, 0) + 1
                place += 3
            else:
                place += 1
    assert set(orders) == {tuple(order) for order in masking.SHUFFLES}
    assert all(within(count, 0.2, sum(orders.values())) for count in orders.values())
    untouched = ~weights
    np.testing.assert_array_equal(shuffled["tokens"][untouched], after["tokens"][untouched])


def test_masking_composes_with_the_batches_of_a_stream():
    documents = [np.array([CLASS, *range(4, 40), SEPARATOR], np.int32) for _ in range(20)]
    batch = batch_at(make_dataset(documents, 16), 0, 0, 4)
    after = masking.mask_tokens(batch, 0, 0, SETTINGS)
    np.testing.assert_array_equal(masking.restore(after), batch["tokens"])
    assert after["targets"].shape == (4, 16)


@pytest.mark.parametrize(
    "settings",
    [{"mask": 9}, {"special": (3, 50)}, {"rate": 0.0}, {"masked": 0.8, "random": 0.3}, {"special": range(40)}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"mask|special|rate"):
        masking.Masking(**{"vocabulary": VOCABULARY, "mask": MASK, "special": SPECIAL, **settings})


def documents(count=12, seed=0):
    """Documents of sentences; tokens count up within a document, and leap by a thousand between two."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        lengths = generator.integers(2, 9, size=generator.integers(2, 30))
        tokens = 1000 * (number + 1) + np.arange(lengths.sum(), dtype=np.int32)
        made.append(np.split(tokens, np.cumsum(lengths)[:-1]))
    return made


def sentences_of(batch, row):
    """A row's A and B."""
    tokens, types = batch["tokens"][row], batch["token_types"][row]
    used = int(batch["mask"][row].sum())
    assert tokens[0] == CLASS
    assert tokens[used - 1] == SEPARATOR
    assert np.all(tokens[used:] == PAD)
    assert np.all(types[used:] == 0)
    start = int(types.argmax())
    assert tokens[start - 1] == SEPARATOR
    assert np.all(types[start:used] == 1)
    return tokens[1 : start - 1], tokens[start : used - 1]


@pytest.mark.parametrize("kind", pairs.RELATIONS)
def test_pairs_are_what_their_labels_say(kind):
    dataset = pairs.make_pair_dataset(documents(), 32, kind, CLASS, SEPARATOR)
    relations, counts = pairs.RELATIONS[kind], np.zeros(3, int)
    for step in range(60):
        batch = pairs.pair_batch_at(dataset, 7, step, 16)
        assert batch["tokens"].shape == (16, 32)
        for row, label in enumerate(batch["sentence_labels"]):
            a, b = sentences_of(batch, row)
            counts[label] += 1
            together = a[0] // 1000 == b[0] // 1000
            assert together == (relations[label] != "random")
            if relations[label] == "next":
                assert 0 < b[0] - a[-1] < 20
            if relations[label] == "previous":
                assert 0 < a[0] - b[-1] < 20
    assert all(within(count, 1 / len(relations), counts.sum()) for count in counts[: len(relations)])


@pytest.mark.parametrize("kind", ["next_sentence", "structural"])
def test_neither_sentence_alone_tells_the_label(kind):
    """A random B comes from the same places of documents as a true one, and so does A."""
    made = [[np.array([100 * d + s], np.int32) for s in range(6)] for d in range(1, 5)]  # six one-token sentences each
    dataset = pairs.make_pair_dataset(made, 5, kind, CLASS, SEPARATOR)
    found = {relation: {"a": [], "b": []} for relation in pairs.RELATIONS[kind]}
    for step in range(300):
        batch = pairs.pair_batch_at(dataset, 1, step, 20)
        for row, label in enumerate(batch["sentence_labels"]):
            a, b = sentences_of(batch, row)
            found[pairs.RELATIONS[kind][label]]["a"].append(int(a[0]) % 100)
            found[pairs.RELATIONS[kind][label]]["b"].append(int(b[0]) % 100)
    related = ["next"] if kind == "next_sentence" else ["next", "previous"]
    for side in "ab":
        true = [place for relation in related for place in found[relation][side]]
        random = found["random"][side]
        for place in range(6):
            share = true.count(place) / len(true)
            spread = np.sqrt(share * (1 - share) * (1 / len(true) + 1 / len(random)))
            assert abs(random.count(place) / len(random) - share) <= 4 * spread, (side, place)


def test_an_epoch_visits_every_pair_once_and_pairs_depend_on_seed_and_step_alone():
    dataset = pairs.make_pair_dataset(documents(4), 32, "sentence_order", CLASS, SEPARATOR)
    count = len(dataset.firsts)
    seen = [frozenset((int(a[0]), int(b[0]))) for step in range(count)
            for a, b in [sentences_of(pairs.pair_batch_at(dataset, 0, step, 1), 0)]]  # fmt: skip
    assert len(set(seen)) == count
    first = pairs.pair_batch_at(dataset, 0, 3, 4)
    assert equal(first, pairs.pair_batch_at(dataset, 0, 3, 4))
    assert not equal(first, pairs.pair_batch_at(dataset, 1, 3, 4))
    assert not equal(first, pairs.pair_batch_at(dataset, 0, 4, 4))


@pytest.mark.parametrize("length", [5, 8, 32, 400])
def test_cutting_loses_no_token(length):
    made = documents(6, seed=2)
    dataset = pairs.make_pair_dataset(made, length, "sentence_order", CLASS, SEPARATOR)
    room = (length - 3) // 2
    assert all(0 < len(piece) <= room for piece in dataset.pieces)
    flat = np.concatenate([sentence for document in made for sentence in document])
    np.testing.assert_array_equal(np.concatenate(dataset.pieces), flat)
    assert all(dataset.begins[n] <= n < dataset.ends[n] for n in range(len(dataset.firsts)))


def test_texts_without_pairs_are_refused():
    one = [[np.array([5, 6]), np.array([7])]]
    pairs.make_pair_dataset(one, 16, "sentence_order", CLASS, SEPARATOR)
    with pytest.raises(UserError, match="1 of 1 documents have two sentences"):
        pairs.make_pair_dataset(one, 16, "next_sentence", CLASS, SEPARATOR)
    with pytest.raises(UserError, match="0 of 2 documents have two sentences"):
        pairs.make_pair_dataset([[np.array([5])], []], 16, "sentence_order", CLASS, SEPARATOR)
    with pytest.raises(UserError, match="no room"):
        pairs.make_pair_dataset(one, 4, "sentence_order", CLASS, SEPARATOR)
    with pytest.raises(UserError, match="unknown kind"):
        pairs.make_pair_dataset(one, 16, "order", CLASS, SEPARATOR)


def test_sentences_join_to_the_text():
    text = 'One of 3.14 things. Two?  "Three!" 四。「五！」六\n\nseven'
    found = pairs.split_sentences(text)
    assert "".join(found) == text
    assert [part.strip() for part in found] == [
        "One of 3.14 things.",
        "Two?",
        '"Three!"',
        "四。",
        "「五！」",
        "六",
        "seven",
    ]
    assert pairs.split_sentences("") == []
