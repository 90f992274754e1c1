"""Baselines of texts: they find what is there, see only what they may, and hold with labels that are missing."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from minillm.errors import UserError
from minillm.evaluation import tagging, textual
from minillm.evaluation.classification import multi_label, regression, single_label
from minillm.evaluation.textual import Examples

WORDS = ["the", "a", "red", "blue", "green", "stone", "river", "bird", "song", "slow", "fast", "cold", "warm", "open"]
SIGNS = ("bright", "gloomy", "strange")


def written(seed: int, count: int = 400) -> tuple[list[str], np.ndarray]:
    """English texts of random words; each of three signs is there or not."""
    random = np.random.default_rng(seed)
    there = random.random((count, 3)) < 0.4
    words = [list(random.choice(WORDS, 8)) + [SIGNS[i] for i in np.flatnonzero(row)] for row in there]
    return [" ".join(random.permutation(row)) for row in words], there


def parts(label):
    """Training, validation and test examples; label: booleans [n, 3] -> labels."""
    return [Examples(texts, label(there)) for texts, there in (written(seed) for seed in range(3))]


def test_classes_are_found_and_the_rest_is_as_scikit_learn_says():
    train, validation, test = parts(lambda there: there[:, 0] + 2 * there[:, 1])
    found = textual.fit_tfidf(train, validation, classes=5)  # the last class has no example
    probabilities = found.predict(test.texts)
    assert probabilities.shape == (400, 5)
    assert (probabilities[:, 4] == 0.0).all()
    assert single_label(test.labels, probabilities)["accuracy"] > 0.9
    majority = textual.fit_majority(train, classes=5).predict(test.texts)
    np.testing.assert_allclose(majority[7], np.bincount(train.labels, minlength=5) / 400)
    assert single_label(test.labels, majority)["accuracy"] < 0.6
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    model = LogisticRegression(C=found.settings["C"], tol=1e-5, max_iter=5000)
    model.fit(vectorizer.fit_transform(train.texts), train.labels)
    expected = model.predict_proba(vectorizer.transform(test.texts))
    np.testing.assert_allclose(probabilities[:, :4], expected, atol=1e-6)
    assert found.settings["features"] == len(vectorizer.vocabulary_)
    assert found.settings["n-grams"] == "1 and 2 words"


def test_the_strength_is_the_best_one_on_validation_and_nothing_else():
    train, validation, test = parts(lambda there: there[:, 0].astype(int))
    scores = {}
    for strength in textual.STRENGTHS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(textual, "STRENGTHS", (strength,))
            scores[strength] = textual.fit_tfidf(train, validation, 2)
    judged = [single_label(validation.labels, f.predict(validation.texts))["macro_f1"] for f in scores.values()]
    chosen = textual.fit_tfidf(train, validation, 2)
    assert chosen.settings["C"] == textual.STRENGTHS[int(np.argmax(judged))]
    same = scores[chosen.settings["C"]].predict(test.texts)
    np.testing.assert_array_equal(chosen.predict(test.texts), same)


def test_several_classes_and_a_class_that_is_never_there():
    train, validation, test = parts(lambda there: np.concatenate([there, there[:, :1] & False], axis=1))
    found = textual.fit_tfidf(train, validation, classes=4).predict(test.texts)
    assert multi_label(test.labels, found)["subset_accuracy"] > 0.9
    assert (found[:, 3] == 0.0).all()
    majority = textual.fit_majority(train, classes=4).predict(test.texts)
    np.testing.assert_allclose(majority[0], train.labels.mean(0))


def test_numbers():
    train, validation, test = parts(lambda there: 3.0 + there @ [1.0, -2.0, 0.5])
    found = textual.fit_tfidf(train, validation).predict(test.texts)
    assert regression(test.labels, found)["r2"] > 0.9
    mean = textual.fit_majority(train).predict(test.texts)
    assert mean.shape == (400,)
    np.testing.assert_allclose(mean, train.labels.mean())


def test_pairs_are_judged_by_what_they_share():
    """The label says whether both sentences have the first sign: neither sentence alone tells."""
    made = []
    for seed in range(3):
        (left, one), (right, two) = written(seed, 900), written(seed + 10, 900)
        made.append(Examples(left, (one[:, 0] & two[:, 0]).astype(int), right))
    found = textual.fit_tfidf(made[0], made[1], classes=2)
    score = single_label(made[2].labels, found.predict(made[2].texts, made[2].pairs))
    alone = textual.fit_tfidf(made[0]._replace(pairs=None), made[1]._replace(pairs=None), classes=2)
    assert score["accuracy"] > 0.95
    assert score["macro_f1"] > 0.1 + single_label(made[2].labels, alone.predict(made[2].texts))["macro_f1"]


def test_the_rule_for_the_units():
    assert textual.parts_words(["The room was fine.", "ok"])
    assert not textual.parts_words(["房间很好,OK 的", "不错"])
    assert textual.parts_words(["iPhone 手机"])  # 6 letters of 8 are Latin
    texts, labels = ["好酒店", "坏酒店", "很好", "很坏"] * 5, np.array([1, 0, 1, 0] * 5)
    found = textual.fit_tfidf(Examples(texts, labels), Examples(texts, labels), classes=2)
    assert found.settings["n-grams"] == "1 to 3 characters"
    assert (found.predict(["真好", "真坏"]).argmax(1) == [1, 0]).all()


def test_one_class_alone_and_texts_without_words():
    same = Examples(["a b", "c"], np.array([1, 1]))
    np.testing.assert_array_equal(textual.fit_tfidf(same, same, classes=2).predict(["x"]), [[0.0, 1.0]])
    empty = Examples(["...", "!"], np.array([0, 1]))
    with pytest.raises(UserError, match="no words to count"):
        textual.fit_tfidf(empty, empty, classes=2)


@pytest.mark.parametrize("kind", ["classes", "several", "numbers"])
def test_a_head_on_frozen_features(kind):
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 6)) * [1e3, 1, 1e-3, 1, 1, 0] + 5.0  # the last never varies
    truth = (features - features.mean(0)) / np.maximum(features.std(0), 1e-8)
    labels = {"classes": (truth[:, 0] + truth[:, 2] > 0).astype(int), "several": truth[:, :2] > 0.3,
              "numbers": truth[:, 0] - truth[:, 1]}[kind]  # fmt: skip
    classes = {"classes": 2, "several": 2, "numbers": None}[kind]
    found = textual.logistic_head(features[:200], labels[:200], features[200:], classes)
    metric, name = {"classes": (single_label, "accuracy"), "several": (multi_label, "subset_accuracy"),
                    "numbers": (regression, "r2")}[kind]  # fmt: skip
    assert metric(labels[200:], found)[name] > 0.9


def test_the_most_frequent_tag():
    tagger = tagging.fit_most_frequent([["a", "b", "a"], ["a"]], [["B-X", "O", "O"], ["B-X"]])
    assert tagger([["a", "b", "c"], []]) == [["B-X", "O", "O"], []]


def test_a_field_learns_what_single_units_do_not_tell():
    """After "Mr" comes a person, of two units where it has a capital; the units themselves are random."""
    random = np.random.default_rng(0)

    def draw(count):
        rows = []
        for _ in range(count):
            units, tags = [], []
            for _ in range(4):
                word, other = ("".join(random.choice(list("abcde"), 3)) for _ in range(2))
                long = bool(random.random() < 0.5)
                units += ["Mr", word.title() if long else word, other, "and"]
                tags += ["O", "B-PER", "I-PER" if long else "O", "O"]
            rows.append((units, tags))
        return [units for units, _ in rows], [tags for _, tags in rows]

    units, tags = draw(60)
    held_out, expected = draw(20)
    tagger = tagging.fit_field(units, tags)
    assert tagger(held_out) == expected
    assert tagging.fit_most_frequent(units, tags)(held_out) != expected
    assert tagging.fit_field(units, tags)(units[:3]) == tagger(units[:3])
    assert tagger([[], ["Mr"]]) == [[], ["O"]]


def test_what_a_field_sees():
    names = set(tagging.describe(["Mr.", "Smith", "went"], 1))
    assert {"unit[0]=Smith", "unit[-1]=Mr.", "unit[-2]=<edge>", "pair[-1]=Mr.\0Smith", "shape[0]=Aa", "shape[-1]=Aa.",
            "shape[1]=a", "lower=smith", "begins=Smi", "ends=h"} <= names  # fmt: skip
    assert "shape[0]=c" in set(tagging.describe(["北", "京"], 0))
    with pytest.raises(UserError, match="sentence 0: 2 units and 1 tags"):
        tagging.fit_field([["a", "b"]], [["O"]])
    with pytest.raises(UserError, match="no units"):
        tagging.fit_most_frequent([[]], [[]])
