"""Questions whose answers stand in passages: reading, windows, offsets, the best span, exact match and F1, baselines."""

import collections
import itertools
import json
import re
import string

import numpy as np
import pytest

from minillm.data import corpora
from minillm.data import tokenizer as tokenizers
from minillm.data.answers import resolve_answers
from minillm.data.clean_labelled import clean_labelled
from minillm.data.cloze import GAP, cloze
from minillm.data.document import Document
from minillm.data.rows import Frame
from minillm.data.stratify import split_labelled
from minillm.data.windows import Passage, question_rows, windows
from minillm.errors import UserError
from minillm.evaluation import answers, finding
from minillm.experiment.labelled import split_labelled_documents
from minillm.inference.spans import best_span
from minillm.sections.data import DataConfig

ROWS = '{"question": "Who?", "context": "Ada.", "answer": "Ada"}\n'  # and the same as a table
FRAME = Frame(begin=2, end=3, pad=0)
WORDS = ["The", "a", "an", "cat", "cat's", "sat,", "(on)", "mat.", "two", "two", "Bern!", "theatre"]


def squad_normalise(text):
    """Rajpurkar et al.'s evaluate-v1.1.py, written down again: lower, remove punctuation, articles, blanks."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction, truth):
    predicted, true = squad_normalise(prediction).split(), squad_normalise(truth).split()
    same = sum((collections.Counter(predicted) & collections.Counter(true)).values())
    if not same:
        return float(predicted == true)  # as evaluate-v2.0.py, where an answer may be empty
    precision, recall = same / len(predicted), same / len(true)
    return 2 * precision * recall / (precision + recall)


def test_exact_match_and_f1_are_squads():
    generator = np.random.default_rng(0)
    draw = lambda: " ".join(generator.choice(WORDS, generator.integers(1, 6)))
    seen = set()
    for _ in range(500):
        prediction, truths = draw(), [draw() for _ in range(generator.integers(1, 4))]
        exact = float(any(squad_normalise(prediction) == squad_normalise(truth) for truth in truths))
        f1 = max(squad_f1(prediction, truth) for truth in truths)
        np.testing.assert_allclose(answers.score([prediction], [truths]), [[exact, f1]], atol=1e-12)
        seen.add((exact, 0.0 < f1 < 1.0))
    assert len(seen) == 3


def test_chinese_counts_by_characters():
    assert answers.tokens("北京大学，IBM 公司") == ["北", "京", "大", "学", "ibm", "公", "司"]
    assert answers.exact_match("“北京”。", ["北京"]) == 1.0
    assert answers.overlap_f1("北京大学", ["北京"]) == pytest.approx(2 * (2 / 4) * 1 / (2 / 4 + 1))


def naive_best(scores, answerable, longest):
    """All spans of all windows, one by one."""
    total, best = 0.0, (-np.inf,)
    for row in range(len(scores)):
        places = [i for i in range(scores.shape[1]) if answerable[row, i]]
        for i in places:
            for j in places:
                value = scores[row, i, 0] + scores[row, j, 1]
                total += np.exp(value)
                if 0 < i <= j < i + longest and value > best[0]:
                    best = (value, row, i, j)
    return (*best[1:], np.exp(best[0]) / total)


def test_the_best_span_is_the_best_of_all_legal_ones():
    generator = np.random.default_rng(0)
    for _ in range(100):
        scores = 3.0 * generator.normal(size=(generator.integers(1, 4), 7, 2))
        answerable = generator.random(scores.shape[:2]) < 0.6
        answerable[:, 0], answerable[0, 3] = True, True
        longest = int(generator.integers(1, 5))
        found = best_span(scores, answerable, longest)
        assert found[:3] == naive_best(scores, answerable, longest)[:3]
        assert found.probability == pytest.approx(naive_best(scores, answerable, longest)[3])
    assert best_span(scores, answerable & (np.arange(7) == 0), 3) is None


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("fallback", [True, False])
def test_places_of_tokens_cover_any_text(kind, fallback, tmp_path):
    texts = ["hello world, this is a text", "中国人民 hello"] * 20
    settings = {"byte_fallback": fallback, "model_file": tmp_path / "t.model"}
    tokenizers.train(texts, (300 if fallback else 40) if kind == "bpe" else 400, kind, **settings)
    pieces = tokenizers.load(tmp_path / "t.model")
    for text in ("hello 人民é👍🏽  x\n world", "¡¡qq\0z <0x41> hello", "a▁b ▁▁", "hello", ""):
        ids, places = pieces.encode_places(text)
        assert ids == pieces.encode(text)
        assert len(ids) == len(places)
        assert sorted({i for first, after in places for i in range(first, after)}) == list(range(len(text)))
        assert all(a <= b for a, b in itertools.pairwise(places))
        for id, (first, after) in zip(ids, places, strict=True):
            if not pieces.processor.is_byte(id) and id != pieces.unk:
                assert pieces.decode([id]) == text[first:after]


@pytest.mark.parametrize(("count", "room"), [(0, 5), (1, 5), (5, 5), (6, 5), (23, 5), (40, 16), (3, 1)])
def test_windows_overlap_and_leave_nothing_out(count, room):
    found = windows(count, room)
    assert sorted({i for first, after in found for i in range(first, after)}) == list(range(count))
    assert all(after - first == min(room, count) for first, after in found)
    for (first, after), (second, _) in itertools.pairwise(found):
        assert first < second <= max(after - room // 2, first + 1)


def test_every_answer_is_the_target_of_the_windows_that_have_it():
    generator = np.random.default_rng(0)
    for _ in range(50):
        size, question = int(generator.integers(3, 60)), [5] * int(generator.integers(1, 20))
        first = int(generator.integers(0, size))
        last = int(generator.integers(first, min(first + 4, size)))
        ids = list(range(100, 100 + size))  # a token stands for two characters
        passage = Passage(ids, [(2 * i, 2 * i + 2) for i in range(size)], (2 * first + 1, 2 * last + 1))
        made = question_rows([question], [passage], 24, FRAME)
        assert made.cut.all() == (len(question) > 10)
        assert (made.labels > 0).any()  # half a window is longer than the answer
        for row, (low, high) in enumerate(made.labels):
            if high:
                assert made.tokens[row, low : high + 1].tolist() == ids[first : last + 1]
                assert made.places[row, low, 0] == 2 * first
                assert made.places[row, high, 1] == 2 * last + 2
                assert made.answerable[row, low : high + 1].all()
            else:
                assert not set(ids[first : last + 1]) <= set(made.tokens[row])
            assert (made.tokens[row][made.answerable[row]] >= 100).sum() == made.answerable[row].sum() - 1
            assert made.tokens[row][made.mask[row]][0] == FRAME.begin


def question(answer="Bern", start=None, passage="Its capital is Bern, as Bern was.", name="q.csv:7"):
    return Document(name, "Which city?", answer, passage, None, start)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (question("Basel"), "does not stand in the passage"),
        (question(""), "the answer is empty"),
        (question("  "), "the answer is empty"),
        (question("Bern", 14), "stands ' Ber', not the answer 'Bern'"),
        (question("Bern", 4000), "begins at character 4000, the passage has 33"),
        (question("Bern", passage=None), "there is no passage"),
        (question(("Bern", "Basel")), "several answers"),
        (question("Bern", passage=" "), "does not stand in the passage"),
    ],
)
def test_an_answer_that_is_not_where_it_should_be_is_refused(document, message):
    with pytest.raises(UserError, match=re.escape(message)) as failure:
        resolve_answers([question(), document], lambda d: d.name)
    assert failure.value.where == "q.csv:7"


def test_an_answer_stays_in_its_place_under_normalisation():
    raw = question("Ｂｅｒｎ", None, "e\u0301 ﬁne: Ｂｅｒｎ\r\n\u0301x")
    (kept,), _ = clean_labelled(resolve_answers([raw], lambda d: d.name), "NFKC")
    assert kept.pair[kept.start : kept.start + len(kept.label)] == kept.label == "Bern"


@pytest.mark.parametrize(
    ("value", "message"), [(True, "True is no place"), (-1, "-1 is no place"), ("x", "'x' is no place")]
)
def test_a_start_that_is_no_number_is_refused_with_its_line(value, message, tmp_path):
    row = {"text": "Which?", "pair": "Bern", "answer": "Bern", "start": value}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    fields = corpora.Fields("text", "answer", "pair", start="start")
    with pytest.raises(UserError, match=message) as failure:
        corpora.read_fields("jsonl", str(tmp_path / "q.jsonl"), fields)
    assert failure.value.where.endswith("line 1")
    (tmp_path / "q.csv").write_text("text,pair,answer,start\nWhich?,in Bern,Bern,3\n")
    assert corpora.read_fields("csv", str(tmp_path / "q.csv"), fields)[0].start == 3


def test_a_split_keeps_the_questions_on_a_passage_together_though_one_question_is_asked_of_many():
    documents = [question(passage=f"{i // 3}: Bern", start=3)._replace(text=f"Who is {i % 3}?") for i in range(60)]
    parts = split_labelled(documents, 0.2, 0.2, seed=0)
    passages = [{document.pair for document in part} for part in parts]
    assert sum(map(len, passages)) == 20
    assert min(map(len, passages)) >= 3


def test_a_headline_with_a_gap_is_answered_by_its_article():
    text = (
        "Ad sales boost Time Warner profit\n\nQuarterly profits at Time Warner rose. More here. Three. Four. Five Time."
    )
    ((_, asked, answer, passage, _, start),) = cloze([("business/001", text), ("copy/001", text)])
    assert (asked, answer) == (f"Ad sales boost {GAP} profit", "Time Warner")
    assert passage[start : start + len(answer)] == answer
    assert passage.endswith("Four.")


def test_baselines_find_by_words_shapes_and_counts():
    passage = "Ghana lies in West Africa. Its capital is Accra. It has 1,234 inhabitants. Accra is old."
    find = finding.fit_overlap(["How many live in Peru?", "What is the capital of Peru?"], ["5,678", "Lima"])
    asked = ["What is the capital of Ghana?", "How many inhabitants has it?"]
    assert [found.text for found in find(asked, [passage] * 2)] == ["Accra", "1,234"]
    (found,) = finding.most_frequent_name(["Which city?"], [passage])
    assert found.text == "Accra" == passage[found.start :][:5]
    assert find(["谁？"], ["没有。"])[0].text == "没有。"


@pytest.mark.parametrize("source", ["jsonl", "csv"])
def test_a_misspelt_answer_key_is_the_one_that_is_blamed(source, tmp_path):
    path = tmp_path / "rows"
    path.write_text(ROWS if source == "jsonl" else "question,context,answer\nWho?,Ada.,Ada\n")
    section = DataConfig(source, str(path), text_key="question", pair_key="context", answer_key="anwser")
    with pytest.raises(UserError, match=r"no (field|column) 'anwser'.*set data\.answer_key"):
        split_labelled_documents(section)
