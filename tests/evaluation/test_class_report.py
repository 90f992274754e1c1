"""The figure and the tables of a run on classes: what stands in them, in any script, without a warning."""

import numpy as np
import pytest

from minillm.evaluation import classification, intervals
from minillm.report import classification as report
from minillm.report import fonts
from minillm.report.page import write_report

MODEL, BASELINE = "this model", "TF-IDF <b>"


def judged(names, several: bool = False, seed: int = 0):
    """What evaluation.json holds of a model and two baselines, the second the better one."""
    random = np.random.default_rng(seed)
    labels = random.choice(len(names), 200)
    found = {"split": "test", "labels": list(names)}
    given = classification.one_hot(labels, len(names)) if several else labels
    metric = classification.multi_label if several else classification.single_label
    for who, knows in ((MODEL, 3.0), ("most frequent class", 0.0), (BASELINE, 1.5)):
        scores = random.normal(size=(200, len(names))) + knows * np.eye(len(names))[labels]
        probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        drawn = intervals.bootstrap(lambda w, p=probabilities: metric(given, p, w), 200, resamples=20)
        by_class = lambda w, p=probabilities: classification.class_f1(given, p, names, w)
        f1 = intervals.bootstrap(by_class, 200, resamples=20)
        details = {"classes": classification.describe_classes(given, probabilities, names),
                   "f1_intervals": {name: [row["low"], row["high"]] for name, row in f1.items()}}  # fmt: skip
        if not several:
            details["confusion"] = classification.confusion(labels, probabilities.argmax(1), len(names)).tolist()
            details["reliability"] = classification.reliability(labels, probabilities)
        found[who] = {
            "metrics": {name: row["value"] for name, row in drawn.items()},
            "intervals": {name: [row["low"], row["high"]] for name, row in drawn.items()}, "details": details,
        }  # fmt: skip
    return found


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """evaluation -> the figure that was written."""

    def draw(evaluation):
        figures = []
        save = report.save_figure
        monkeypatch.setattr(report, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
        assert report.write_figure(evaluation, tmp_path / "classes.png")
        assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")
        return figures[0]

    return draw


def ticks(axis):
    return [text.get_text() for text in axis.get_yticklabels()]


def test_the_figure_shows_every_number(drawn):
    evaluation = judged(["business", "$5 off", "x_1^2"])
    figure = drawn(evaluation)
    confusion, reliability, f1 = figure.axes
    cells = [text.get_text().split("\n")[0] for text in confusion.texts]
    assert cells == [str(count) for row in evaluation[MODEL]["details"]["confusion"] for count in row]
    assert ticks(confusion) == ticks(f1) == ["business", "$5 off", "x_1^2"]
    bars = [bar.get_height() for bar in reliability.containers[0]]
    assert bars == pytest.approx([row["accuracy"] for row in evaluation[MODEL]["details"]["reliability"]])
    assert [text.get_text() for text in f1.get_legend().get_texts()] == [MODEL, BASELINE]  # the better baseline
    points = [line.get_xdata()[0] for line in f1.lines if len(line.get_xdata()) == 1]
    expected = [row["f1"] for who in (MODEL, BASELINE) for row in evaluation[who]["details"]["classes"]]
    assert points == pytest.approx(expected)


def test_chinese_names_are_written_where_a_font_has_them_and_numbered_elsewhere(drawn, monkeypatch):
    evaluation = judged(["好评", "差评"])
    monkeypatch.setattr(fonts, "find_family", lambda text: None)
    figure = drawn(evaluation)
    assert ticks(figure.axes[0]) == ticks(figure.axes[2]) == ["1", "2"]
    assert "by number" in figure.get_supxlabel()
    table = report.tables(evaluation)
    assert "<td class='number'>1</td><td>好评</td>" in table
    monkeypatch.setattr(fonts, "find_family", lambda text: "Some CJK font")
    assert fonts.write_names(["好评", "差评"]) == (["好评", "差评"], "Some CJK font", False)


def test_a_font_is_only_named_if_it_has_all_signs():
    assert fonts.find_family("Grüße, naïve") == "DejaVu Sans"
    assert fonts.find_family("\U0010fffd") is None  # a private sign, which only placeholder fonts have
    assert fonts.write_names(["a\n b", "x" * 30]).texts == ["a b", "x" * 17 + "…"]
    assert fonts.write_names(["好", "\U0010fffd"]) == (["1", "2"], "DejaVu Sans", True)


def test_many_classes_keep_the_lowest(drawn):
    evaluation = judged([f"class {number}" for number in range(40)])
    confusion, _, f1 = drawn(evaluation).axes
    assert not confusion.texts
    assert len(ticks(f1)) == report.ROWS
    values = {row["class"]: row["f1"] for row in evaluation[MODEL]["details"]["classes"]}
    assert [values[name] for name in ticks(f1)] == sorted(values.values())[: report.ROWS]


def test_several_classes_each_have_no_confusion_and_numbers_no_figure(drawn, tmp_path):
    assert len(drawn(judged(["a", "b"], several=True)).axes) == 1
    numbers = {"split": "test", MODEL: {"metrics": {"r2": 0.5}, "intervals": {"r2": [0.4, 0.6]}, "details": {}}}
    assert not report.write_figure(numbers, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert "0.400 to 0.600" in report.tables(numbers)


def test_a_model_without_baselines(drawn):
    evaluation = judged(["a", "b"])
    alone = {key: evaluation[key] for key in ("split", "labels", MODEL)}
    assert [text.get_text() for text in drawn(alone).axes[2].get_legend().get_texts()] == [MODEL]
    assert "F1 of" not in report.tables(alone)


def test_the_report_holds_both_and_escapes_names(tmp_path):
    evaluation = judged(["<script>", "b"])
    report.write_figure(evaluation, tmp_path / "classes.png")
    path = tmp_path / "report.html"
    write_report(path, {"title": "t", "evaluation": evaluation, "class_figure": tmp_path / "classes.png"})
    page = path.read_text(encoding="utf8")
    assert "<script>" not in page
    assert "TF-IDF <b>" not in page
    assert "<td>&lt;script&gt;</td>" in page
    assert "F1 of TF-IDF &lt;b&gt;" in page
    assert "base64,iVBOR" in page
    value, (low, high) = (evaluation[MODEL][key]["macro_f1"] for key in ("metrics", "intervals"))
    assert f"{value:.3f}<br><small>{low:.3f} to {high:.3f}" in page


def test_the_report_has_a_table_for_every_task_and_other_text(tmp_path):
    row = lambda f1, accuracy: {"macro_f1": f1, "accuracy": accuracy}
    summary = {
        "tasks": {"<topics>": {"judged": "test", "test": row(0.7, 0.72), "baselines": {"TF-IDF": row(0.6, 0.625)}},
                  "text": {"validation": {"nll": 3.25}, "baselines": {"unigram": {"nll": 4.5}}}},
        "tests": {"hotels": {"judged": "validation", "validation": row(0.25, 0.258), "texts": 1200, "baselines": {}}},
    }  # fmt: skip
    write_report(tmp_path / "report.html", {"title": "t", "summary": summary})
    page = (tmp_path / "report.html").read_text(encoding="utf8")
    assert "<h3>&lt;topics&gt; <small>(test part)</small></h3>" in page
    assert "<h3>hotels <small>(validation part, 1,200 texts)</small></h3>" in page
    for number in ("72.0%", "62.5%", "3.250", "4.500", "25.8%"):
        assert f"<td class='number'>{number}</td>" in page
    assert page.index("this model</td>") < page.index("TF-IDF</td>")  # the best on top
    write_report(tmp_path / "plain.html", {"title": "t", "summary": {}})
    assert "Other texts" not in (tmp_path / "plain.html").read_text(encoding="utf8")
