"""Relations between marked phrases and events by a rule: what is marked, what the rule says, what a split may not part."""

import re

import pytest

from minillm.data import corpora
from minillm.data.document import Document
from minillm.data.events import find_events, label_clause
from minillm.data.relations import mark
from minillm.data.stratify import split_labelled
from minillm.evaluation.entities import find_entities
from minillm.experiment.labelled import split_labelled_documents
from minillm.sections.data import DataConfig

RELATIONS = ("none", "capital", "population", "area", "demonym", "calling code", "domain", "currency")
EVENTS = ("MEET", "VISIT", "ATTEND", "SIGN", "AGENT", "OBJECT")


def test_markers_stand_around_both_phrases_in_either_order():
    text = "Ghana's capital is Accra."
    assert mark(text, (0, 5), (19, 24)) == "E1 Ghana E1's capital is E2 Accra E2."
    assert mark(text, (19, 24), (0, 5)) == "E2 Ghana E2's capital is E1 Accra E1."


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("江泽民/nr 会见/v 克林顿/nr", ["AGENT", "MEET", "OBJECT"]),
        ("会见/v 克林顿/nr", [None, None]),  # nobody before it
        ("李鹏/nr 的/u 访问/vn", ["AGENT", None, "VISIT"]),  # nobody behind it
        ("北京/ns 李鹏/nr 今天/t 访问/v 法国/ns 和/c 英国/ns", [None, "AGENT", None, "VISIT", "OBJECT", None, None]),
        ("李鹏/nr 参加/n", [None, None]),  # no verb
        ("李鹏/nr 出席/v 并/c 签署/v 协议/n", ["AGENT", "ATTEND", None, "SIGN", None]),
    ],
)
def test_the_rule_of_events_by_hand(words, kinds):
    assert label_clause([tuple(word.split("/")) for word in words.split()]) == kinds


def test_sentences_are_tagged_by_characters_and_a_comma_ends_a_clause():
    line = [("李", "nr"), ("鹏", "nr"), ("说", "v"), ("，", "w"), ("会见", "v"), ("友好", "a"), ("。", "w"),
            ("李", "nr"), ("鹏", "nr"), ("会见", "v"), ("他", "r"), ("。", "w"), ("完", "v")]  # fmt: skip
    first, second = find_events([line, line])  # the copy and the sentence without a trigger are left out
    assert (first[1], set(first[2])) == ("李鹏说，会见友好。", {"O"})
    assert second[2] == ("B-AGENT", "I-AGENT", "B-MEET", "I-MEET", "O", "O")
    assert second[4] == tuple("李鹏会见他。")


def test_a_split_does_not_part_a_group():
    documents = [Document(f"{i}", f"text {i}", "ab"[i % 2], group=f"{i // 4}") for i in range(80)]
    parts = split_labelled(documents, 0.2, 0.2, seed=0)
    groups = [{document.group for document in part} for part in parts]
    assert sum(map(len, groups)) == 20
    assert [len(part) for part in parts] == [48, 16, 16]


@pytest.mark.parity
def test_relations_of_countries():
    found = corpora.read("countries-relations")
    assert len(found) == 1904
    assert sum(document.label == "none" for document in found) == 952
    assert all(len(re.findall(rf"\b{sign}\b", d.text)) == 2 for d in found for sign in ("E1", "E2"))
    parts, _ = split_labelled_documents(DataConfig("countries-relations", labels=RELATIONS, test=0.2))
    assert sum(len({document.group for document in part}) for part in parts) == 119


@pytest.mark.parity
def test_events_of_the_peoples_daily():
    found = corpora.read("people-daily-events-zh")
    kinds = [entity.type for document in found for entity in find_entities(document.label)]
    assert (len(found), {kind: kinds.count(kind) for kind in EVENTS}) == (
        1591, {"MEET": 401, "VISIT": 258, "ATTEND": 328, "SIGN": 80, "AGENT": 990, "OBJECT": 341},
    )  # fmt: skip
    assert all("".join(document.units) == document.text for document in found)
