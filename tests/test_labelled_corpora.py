"""The labelled package corpora: what they hold, what cleaning leaves, and why a raw split flatters."""

from collections import Counter

import pytest

from minillm.data import corpora
from minillm.data.clean_labelled import find_leaks
from minillm.data.clean_pairs import clean_pairs, source_key
from minillm.data.programs import LONG
from minillm.experiment.labelled import split_labelled_documents
from minillm.sections.data import DataConfig

pytestmark = pytest.mark.parity  # these fetch 42 MB

SENTIMENT, TOPICS = ("negative", "neutral", "positive"), ("business", "entertainment", "politics", "sports", "tech")
# source -> classes, documents before, after
CORPORA = {
    "reviews-zh": (("neg", "pos"), 35123, 17326), "tweets-en": (SENTIMENT, 38158, 37047),
    "tweets-en-confident": (SENTIMENT, 20810, 20316), "bbc-news": (TOPICS, 2225, 2121), "bbc-titles": (TOPICS, 2225, 2095),
    "people-daily-ner-zh": (("PER", "LOC", "ORG"), 19484, 18985),
}  # fmt: skip


@pytest.mark.parametrize("source", CORPORA)
def test_sizes_labels_and_shares(source):
    classes, before, after = CORPORA[source]
    parts, report = split_labelled_documents(DataConfig(source, labels=classes, test=0.1))
    assert (report["documents_before"], report["documents_after"]) == (before, after)
    assert all(abs(len(part) - 0.1 * after) <= 2 for part in parts[1:])
    assert all(set(report["labels"][name]) == set(classes) for name in ("train", "validation", "test"))
    assert not find_leaks(parts._asdict())
    for part in parts:
        for document in part[:200]:
            assert document.units is None or document.units == tuple(document.text)


def test_reviews_are_copied_and_contradict_each_other():
    """Every number of the report, counted in another way: 9,031 and 8,332 texts stand in one class only."""
    found = corpora.read("reviews-zh")
    texts = {label: {d.text for d in found if d.label == label} for label in ("neg", "pos")}
    both = texts["neg"] & texts["pos"]
    assert (len(texts["neg"] - both), len(texts["pos"] - both)) == (9031, 8332)
    _, report = split_labelled_documents(DataConfig("reviews-zh", labels=("neg", "pos")))
    assert report["ambiguous_documents"] == sum(d.text in both for d in found) == 225
    assert report["ambiguous_folded_documents"] + report["duplicate_folded_documents"] == 56
    assert report["labels_before"] == {"neg": 18575, "pos": 16548}
    assert report["labels_after"] == {"neg": 9022, "pos": 8304}


def test_entities_of_the_peoples_daily():
    """As the corpus has them, duplicates included; bracketed compounds there are none."""
    found = corpora.read("people-daily-ner-zh")
    tags = Counter(tag for document in found for tag in document.label)
    assert {kind: tags[f"B-{kind}"] for kind in ("PER", "LOC", "ORG")} == {"PER": 19645, "LOC": 27890, "ORG": 3573}
    assert all(len(d.units) == len(d.label) and "".join(d.units) == d.text for d in found)
    first = next(d for d in found if "江泽民" in d.text)
    start = first.text.index("江泽民")
    assert first.label[start : start + 3] == ("B-PER", "I-PER", "I-PER")


def test_a_raw_split_flatters_by_ten_points():
    """Characters and pairs of them, TF-IDF, logistic regression: most texts of a raw test part stand in training."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    def accuracy(train, test):
        weights = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        model = LogisticRegression(C=10.0, solver="liblinear").fit(
            weights.fit_transform([d.text for d in train]), [d.label for d in train]
        )
        return model.score(weights.transform([d.text for d in test]), [d.label for d in test])

    raw = corpora.read("reviews-zh")
    flattered = accuracy(*train_test_split(raw, test_size=0.1, random_state=0, stratify=[d.label for d in raw]))
    parts, _ = split_labelled_documents(DataConfig("reviews-zh", labels=("neg", "pos"), test=0.1))
    assert 0.93 < flattered < 0.98
    assert 0.83 < accuracy(parts.train, parts.test) < 0.88


def test_sentences_by_program_are_in_no_pair_that_a_translator_learns_from():
    parts, _ = split_labelled_documents(
        DataConfig(
            "messages-by-program", labels=("django", "horizon", "jupyterlab", "spyder", "sphinx", "wagtail"), test=0.6
        )
    )
    pairs, _ = clean_pairs(corpora.read("messages-en-zh"), longest=LONG)
    known = {source_key(d) for d in pairs}
    assert sum(map(len, parts)) > 1000
    assert not known & {source_key(d) for part in parts for d in part}


@pytest.mark.parametrize(("source", "questions", "passages"), [("countries-qa", 1190, 119), ("bbc-cloze", 948, 887)])
def test_every_answer_is_where_its_document_says_and_no_passage_is_parted(source, questions, passages):
    found = corpora.read(source)
    assert (len(found), len({d.pair for d in found})) == (questions, passages)
    assert all(d.pair[d.start : d.start + len(d.label)] == d.label for d in found)
    parts, report = split_labelled_documents(DataConfig(source, test=0.2))
    assert report["documents_after"] == questions
    there = [{d.pair for d in part} for part in parts]
    assert sum(map(len, there)) == passages
    if source == "countries-qa":
        countries = [{d.name.partition("/")[0] for d in part} for part in parts]
        assert sum(map(len, countries)) == len(set.union(*countries)) == 238
        assert all(sum(name in d.pair for name in countries[0]) <= 6 for d in parts.test)
