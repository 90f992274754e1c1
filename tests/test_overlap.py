"""BLEU, chrF and ROUGE equal sacrebleu and rouge-score on random texts, and bootstrap as the other metrics do."""

import random

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from minillm.evaluation import intervals, overlap

WORDS = [
    "file",
    "File",
    "%s",
    "can't",
    "3.5",
    "1,000",
    "2-3",
    "open",
    "the",
    "<b>",
    "&amp;",
    "a.b",
    "x",
    "“q”",
    "\u2001",
    "—",
]
SIGNS = list("文件打开保存的，。（）：新建A b1%&-.,/<>{}…→ ") + ["\n", "ﾊ", "\u3000", "㎏", "\u20000"]


def _texts(units: list[str], glue: str, seed: int, count: int = 40) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    made = lambda: glue.join(draw.choice(units) for _ in range(draw.randint(0, 12)))
    references = [made() for _ in range(count)]
    changed = lambda text: glue.join(part for part in (text.split(glue) if glue else text) if draw.random() > 0.3)
    return [changed(text) if draw.random() < 0.6 else made() for text in references], references


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("tokenize", "split"), [("zh", overlap.split_characters), ("13a", overlap.split_words)])
def test_bleu_and_chrf_are_those_of_sacrebleu(tokenize, split, seed):
    for units, glue in ((WORDS, " "), (SIGNS, "")):
        written, references = _texts(units, glue, seed)
        found = overlap.translation(written, references, split)(np.ones((1, len(written))))
        assert found["bleu"][0] == pytest.approx(BLEU(tokenize=tokenize).corpus_score(written, [references]).score)
        assert found["chrf"][0] == pytest.approx(CHRF().corpus_score(written, [references]).score)


def test_what_shares_little_or_nothing_is_scored_as_sacrebleu_does():
    cases = [
        ([""], ["文件"]),
        (["文件"], [""]),
        (["文"], ["文"]),
        (["一二三四五"], ["一三五二四"]),
        (["甲乙丙丁戊"], ["子丑寅卯辰"]),
    ]
    for written, references in cases:
        found = overlap.translation(written, references, overlap.split_characters)(np.ones((1, 1)))
        assert found["bleu"][0] == pytest.approx(BLEU(tokenize="zh").corpus_score(written, [references]).score)
        assert found["chrf"][0] == pytest.approx(CHRF().corpus_score(written, [references]).score)


@pytest.mark.parametrize("seed", range(4))
def test_rouge_is_that_of_rouge_score(seed):
    written, references = _texts(WORDS, " ", seed)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    found = overlap.rouge(written, references)
    for place, (text, reference) in enumerate(zip(written, references, strict=True)):
        for name, score in scorer.score(reference, text).items():
            assert found[name][place] == pytest.approx(score.fmeasure), (name, text, reference)


def test_weights_count_an_example_as_often_as_they_say():
    written, references = _texts(SIGNS, "", 1, 10)
    metric, weights = overlap.translation(written, references, overlap.split_characters), np.arange(10.0)[None]
    repeated = [[side[place] for place in range(10) for _ in range(place)] for side in (written, references)]
    again = overlap.translation(*repeated, overlap.split_characters)(np.ones((1, 45)))
    assert {name: value[0] for name, value in metric(weights).items()} == pytest.approx(
        {name: value[0] for name, value in again.items()}
    )
    found = intervals.bootstrap(metric, 10, resamples=50)
    assert all(row["low"] <= row["value"] <= row["high"] for row in found.values())


def test_rouge_compares_chinese_by_characters():
    found = overlap.rouge(["图书馆开门了", "一本书"], ["图书馆开门了", "两本书"])
    assert [values.round(3).tolist() for values in found.values()] == [[1.0, 0.667], [1.0, 0.5], [1.0, 0.667]]
