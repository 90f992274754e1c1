"""The baselines: Kneser-Ney against its formulas written out with dictionaries, xz against its own sizes."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from minillm.errors import UserError
from minillm.evaluation import ngram
from minillm.evaluation.compression import xz_bits_per_character

BOS, EOS = 0, 1


def random_documents(seed: int, vocabulary: int, count: int = 6, longest: int = 40) -> list[np.ndarray]:
    """Skewed ids that depend on the token before them, so that all orders have something to say."""
    random = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        ids = [BOS]
        for _ in range(random.integers(0, longest)):
            ids.append(2 + int((ids[-1] * 3 + random.geometric(0.6)) % (vocabulary - 3)))  # the last id is never used
        documents.append(np.array([*ids, EOS], np.int32))
    return documents


def naive_kneser_ney(documents, order: int, vocabulary: int):
    """P(w | context) straight from Chen and Goodman's equations, with tuples in dictionaries."""
    occurrences = {length: Counter() for length in range(1, order + 1)}
    for document in documents:
        ids = [int(i) for i in document]
        padded = [ids[0]] * (order - 1) + ids[1:]
        for end in range(order, len(padded) + 1):
            for length in range(1, order + 1):
                occurrences[length][tuple(padded[end - length : end])] += 1
    counts = {order: dict(occurrences[order])}
    for length in range(1, order):
        before = defaultdict(set)
        for gram in occurrences[length + 1]:
            before[gram[1:]].add(gram[0])
        counts[length] = {gram: len(tokens) for gram, tokens in before.items()}

    def discount(length):
        values = list(counts[length].values())
        return values.count(1) / (values.count(1) + 2 * values.count(2)) if 1 in values else 0.5

    def probability(word, context):
        length = len(context) + 1
        lower = probability(word, context[1:]) if context else 1.0 / vocabulary
        after = {gram[-1]: count for gram, count in counts[length].items() if gram[:-1] == context}
        if not after:
            return lower
        total, d = sum(after.values()), discount(length)
        return max(after.get(word, 0) - d, 0) / total + d * len(after) / total * lower

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_formulas_written_out(order, seed):
    vocabulary = 9
    train, held_out = random_documents(seed, vocabulary), random_documents(seed + 100, vocabulary, count=3)
    model = ngram.fit(train, order, vocabulary)
    probability = naive_kneser_ney(train, order, vocabulary)
    for document in [*train[:2], *held_out]:
        ids = [int(i) for i in document]
        padded = [BOS] * (order - 1) + ids[1:]
        expected = [probability(padded[i], tuple(padded[i - order + 1 : i])) for i in range(order - 1, len(padded))]
        np.testing.assert_allclose(ngram.log_probabilities(model, document), np.log(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_probabilities_sum_to_one_after_seen_and_unseen_contexts(order, seed):
    vocabulary = 12
    model = ngram.fit(random_documents(seed, vocabulary), order, vocabulary)
    random = np.random.default_rng(seed)
    contexts = [document[: 1 + seed + i] for i, document in enumerate(random_documents(seed, vocabulary))]
    contexts += [np.array([BOS, *random.integers(0, vocabulary, length)]) for length in range(6)]
    contexts.append(np.array([BOS, vocabulary - 1, vocabulary - 1]))  # an id that was never seen
    for context in contexts:
        extended = [np.append(context, token) for token in range(vocabulary)]
        total = sum(math.exp(ngram.log_probabilities(model, document)[-1]) for document in extended)
        assert total == pytest.approx(1.0, abs=1e-12)


def test_a_case_counted_by_hand():
    """bos a b a b c.  Bigrams: bos-a 1, a-b 2, b-a 1, b-c 1, so D_2 = 3 / (3 + 2) = 0.6.
    Continuations: a after {bos, b}, b after {a}, c after {b}, so D_1 = 2 / (2 + 2) = 0.5 and
    P(a) = 1.5 / 4 + (0.5 * 3 / 4) / 4 = 0.46875, P(b) = P(c) = 0.5 / 4 + 0.09375 = 0.21875."""
    bos, a, b, c = range(4)
    document = np.array([bos, a, b, a, b, c])
    model = ngram.fit([document], order=2, vocabulary=4)
    assert model.discounts == pytest.approx((0.5, 0.6))
    expected = [
        0.4 / 1 + 0.6 * 0.46875,  # a after bos
        1.4 / 2 + 0.3 * 0.21875,  # b after a, which one kind of token follows: backoff 0.6 * 1 / 2
        0.4 / 2 + 0.6 * 0.46875,  # a after b, which two kinds follow: backoff 0.6 * 2 / 2
        1.4 / 2 + 0.3 * 0.21875,
        0.4 / 2 + 0.6 * 0.21875,  # c after b
    ]
    np.testing.assert_allclose(np.exp(ngram.log_probabilities(model, document)), expected, rtol=1e-14)


def test_order_one_discounts_plain_counts():
    """bos x x x y y z: D = 1 / (1 + 2), backoff = D * 3 / 6, over five ids."""
    model = ngram.fit([np.array([0, 2, 2, 2, 3, 3, 4])], order=1, vocabulary=5)
    got = np.exp(ngram.log_probabilities(model, np.array([0, 2, 3, 4, 0, 1])))
    rest = (1 / 3) * 3 / 6 / 5
    np.testing.assert_allclose(got, np.array([3 - 1 / 3, 2 - 1 / 3, 1 - 1 / 3, 0, 0]) / 6 + [rest] * 5, rtol=1e-14)


def test_a_token_of_one_context_is_unlikely_elsewhere():
    """Kneser and Ney's point: "Francisco" is frequent, but only after "San"."""
    bos, san, francisco, glasses, others = 0, 2, 3, 4, range(5, 15)
    documents = [np.array([bos, san, francisco, EOS])] * 10
    documents += [np.array([bos, other, glasses, EOS]) for other in others]
    model = ngram.fit(documents, order=2, vocabulary=16)
    unseen = np.array([bos, 15, francisco]), np.array([bos, 15, glasses])
    surname, common = (ngram.log_probabilities(model, document)[-1] for document in unseen)
    assert common - surname > math.log(3)


def test_the_score_is_the_sum_over_all_targets():
    documents = [*random_documents(3, 9), np.array([BOS])]  # a document without targets adds nothing
    model = ngram.fit(documents, 3, 9)
    nats, tokens = ngram.negative_log_likelihood(model, documents)
    assert tokens == sum(len(document) - 1 for document in documents)
    assert nats == pytest.approx(-sum(ngram.log_probabilities(model, document).sum() for document in documents))
    assert nats / tokens < ngram.negative_log_likelihood(ngram.fit(documents, 1, 9), documents)[0] / tokens


def test_text_without_rare_tokens_still_leaves_room_for_the_unseen():
    model = ngram.fit([np.array([BOS, 2, 2, 2, 2])] * 3, order=2, vocabulary=5)
    assert np.isfinite(ngram.log_probabilities(model, np.array([BOS, 4, 2, 3, 3, EOS]))).all()


@pytest.mark.parametrize(
    ("documents", "order", "message"),
    [
        ([np.array([0, 2, 1])], 0, "order of at least 1, got 0"),
        ([], 2, "no tokens to count"),
        ([np.array([0])], 2, "no tokens to count"),
        ([np.array([0, 7])], 2, "expected token ids 0 to 6, got 0 to 7"),
        ([np.array([0, -1])], 2, "expected token ids 0 to 6, got -1 to 0"),
        ([np.array([], np.int32)], 2, "starts with bos"),
    ],
)
def test_mistakes_are_named(documents, order, message):
    with pytest.raises(UserError, match=message):
        ngram.fit(documents, order, vocabulary=7)


def test_xz_profits_from_the_training_text_and_counts_characters_not_bytes():
    random = np.random.default_rng(0)
    text = "".join(chr(i) for i in random.integers(0x4E00, 0x5E00, 3000))
    fresh = xz_bits_per_character("", text)
    assert 12.0 < fresh < 20.0  # 12 bits of entropy each, in three bytes; a figure per byte would be below 7
    assert xz_bits_per_character(text, text[1000:2000]) < 0.2
    with pytest.raises(UserError, match="held-out text is empty"):
        xz_bits_per_character(text, "")
