"""Random search, several runs at once, and whether a difference between seeds is more than luck."""

import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_labelled import silent

from minillm import cli
from minillm import config as configs
from minillm.errors import Diverged, UserError
from minillm.evaluation.intervals import over_seeds, welch
from minillm.experiment import display, display_lab
from minillm.experiment import run as runs
from minillm.experiment.ask import reopen
from minillm.experiment.many import draws, seeds, workers
from minillm.experiment.many import sweep as sweeps
from minillm.experiment.many.draws import Search
from minillm.experiment.many.workers import Job, Workers

COPY = Path(__file__).parents[1] / "configs/copy.toml"
GRID = {
    "optimizer.learning_rate": ["1e-4..1e-2:log"],
    "model.layers": ["1..3"],
    "optimizer.schedule": ["cosine", "linear"],
}


def test_more_points_begin_with_the_same_and_another_seed_has_others():
    five = draws.draw_points(GRID, Search(5))
    assert draws.draw_points(GRID, Search(9))[:5] == five
    assert draws.draw_points(GRID, Search(5, seed=1)) != five
    assert len({json.dumps(point) for point in five}) == 5


def test_a_range_is_drawn_evenly_in_its_own_measure():
    points = draws.draw_points(GRID | {"model.dropout": ["0.0..0.5"]}, Search(600))
    rates = np.log10([float(point["optimizer.learning_rate"]) for point in points])
    assert (-4.0 <= rates.min() < -3.9, -2.1 < rates.max() <= -2.0) == (True, True)
    assert abs(rates.mean() + 3.0) < 0.1  # a mean of 600: a deviation of 0.024
    counts = np.unique([point["model.layers"] for point in points], return_counts=True)
    assert counts[0].tolist() == ["1", "2", "3"]
    assert counts[1].min() > 150
    dropout = np.array([float(point["model.dropout"]) for point in points])
    assert abs(dropout.mean() - 0.25) < 0.025
    assert {point["optimizer.schedule"] for point in points} == {"cosine", "linear"}


def test_both_ends_of_a_range_are_drawn_like_the_rest_and_nothing_beyond():
    drawn = lambda text, count: [
        draws._draw(draws.parse(text), np.random.default_rng(number)) for number in range(count)
    ]
    counts = np.unique(drawn("1..4:log", 4000), return_counts=True)
    assert counts[0].tolist() == ["1", "2", "3", "4"]
    shares = np.log((np.arange(1, 5) + 0.5) / (np.arange(1, 5) - 0.5)) / np.log(9.0)
    np.testing.assert_allclose(counts[1] / 4000, shares, atol=0.03)  # four deviations
    for text in ("0.12345..0.12349", "0.12345..0.12349:log"):
        values = np.array(drawn(text, 200), np.float64)
        assert 0.12345 <= values.min() < values.max() <= 0.12349
        assert len(set(values)) > 50


@pytest.mark.parametrize(("grid", "words"), [
    ({"a.b": ["1..1"]}, "no numbers in it"), ({"a.b": ["0..1:log"]}, "no logarithm"), ({"a.b": ["x", "y"]}, "2 different ones"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(grid, words):
    with pytest.raises(UserError, match=words):
        draws.draw_points(grid, Search(3))


def test_what_only_looks_like_a_range_is_a_value():
    assert [draws.parse(text) for text in ("../data", "a/../b", "cosine", "1e-3")] == [
        "../data",
        "a/../b",
        "cosine",
        "1e-3",
    ]


def test_a_search_is_a_sweep_over_its_points_and_remembers_them(tmp_path):
    grid = ["optimizer.learning_rate=1e-4..1e-2:log", "train.batch_size=4,8"]
    found = sweeps.plan(COPY, [], grid, (0, 1), Search(3))
    assert (found.lab.name, len(found.points)) == ("copy-search", 3)
    for member, point in found.points.items():
        section = found.lab.members[member]["optimizer"]["learning_rate"]
        assert math.isclose(section, float(point["optimizer.learning_rate"]))
    draws.remember(tmp_path / "draws.json", found.lab.draws)
    draws.remember(tmp_path / "draws.json", sweeps.plan(COPY, [], grid, (0, 1), Search(4)).lab.draws)
    draws.remember(tmp_path / "draws.json", found.lab.draws)
    assert len(json.loads((tmp_path / "draws.json").read_text())["points"]) == 4
    with pytest.raises(UserError, match="another search"):
        draws.remember(tmp_path / "draws.json", sweeps.plan(COPY, [], grid, (0, 1), Search(3, 7)).lab.draws)
    with pytest.raises(UserError, match="draw points from it with --random"):
        sweeps.plan(COPY, [], grid, (0, 1))


def test_a_search_s_figure_has_a_panel_per_key(tmp_path):
    from minillm.report.sweep import choose_metric, write_figure

    rows = [{"point": {"a.rate": f"{10.0**-place:.3g}", "a.kind": "xy"[place % 2]}, "accuracy": over_seeds([0.5 + place / 10, 0.6]),
             "nll": over_seeds([1.0]), "objective": "classify"}
            for place in range(4)]  # fmt: skip
    assert choose_metric(rows) == "accuracy"
    write_figure({"rows": rows, "baselines": {}, "random": True}, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


PROGRAM = """#!{python} -S
import os, pathlib, sys, time
run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
there = [path.name for path in run.parent.glob("*/ended")] if run.parent.exists() else []
run.mkdir(parents=True)
waits_for = {{"a-0": "b-0", "b-0": "a-0", "good-0": "nobody"}}.get(run.name)
for _ in range(600):  # half a minute
    if waits_for is None or (run.parent / waits_for).exists():
        break
    time.sleep(0.05)
(run / "cores").write_text(repr(sorted(os.sched_getaffinity(0))))
(run / "ended").write_text(repr(there))
print("something", run.name)
config = pathlib.Path(sys.argv[4])
text = config.read_text() if config.exists() else ""
if run.name == "wild-0" or "learning_rate = 10\\n" in text and "seed = 1" in text:
    sys.exit(3)
(run / "config.toml").write_text(text + '\\n[objective]\\nname = "causal"\\n')
(run / "manifest.json").write_text('{{"data_sha256": null, "tokenizer_sha256": null}}')
(run / "summary.json").write_text('''{{"parameters": 1, "trainable_parameters": 1, "steps": 2, "baselines": {{}},
                                       "validation": {{"nll": 1.5}}}}''')
sys.exit(2 if run.name == "bad-0" else 0)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs of a program that notes when and on which cores it has run."""
    program = tmp_path / "program"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(program))
    return lambda *names: [
        Job(name, 0, tmp_path / f"configs/{name}-0.toml", tmp_path / f"runs/{name}-0") for name in names
    ]


def test_runs_at_once_have_cores_of_their_own(jobs, tmp_path, monkeypatch):
    """Two runs that wait for each other end; the third begins when one of them has."""
    cores, said = sorted(os.sched_getaffinity(0)), []
    workers.train_all(jobs("a", "b", "c"), Workers(2), said.append)
    assert len(said) == 3
    shares = [json.loads((tmp_path / f"runs/{name}-0/cores").read_text()) for name in "ab"]
    assert (set(shares[0]) & set(shares[1]), len(shares[0])) == (set(), len(cores) // 2)
    assert (tmp_path / "runs/c-0/ended").read_text() != "[]"
    assert "something b-0" in (tmp_path / "logs/b-0.txt").read_text()
    monkeypatch.setattr(os, "sched_getaffinity", lambda number: {0})
    with pytest.raises(UserError, match="on 1 cores"):
        workers.train_all(jobs("d"), Workers(2), silent)


def test_a_run_that_fails_stops_the_others_and_says_where_to_look(jobs, tmp_path):
    with pytest.raises(UserError, match=r"bad, seed 0, ended with code 2.*logs/bad-0\.txt"):
        workers.train_all(jobs("bad", "good", "never"), Workers(2), silent)
    assert not (tmp_path / "runs/good-0/ended").exists()
    assert not (tmp_path / "runs/never-0").exists()


def test_what_diverges_is_listed_and_the_others_go_on(jobs, tmp_path, capsys):
    workers.train_all(found := jobs("wild", "c"), workers.ONE, silent)
    assert [workers.diverged(job) for job in found] == [True, False]
    rates, said = ["optimizer.learning_rate=1e-3,1e-2,10"], []
    search = sweeps.plan(COPY, [], rates, (0, 1), Search(3))
    for started in (6, 0):  # the same command again has nothing left to do
        table = sweeps.run_sweep(search, tmp_path / "search", said.append)
        assert sum(text.startswith("Run ") for text in said) == started
        said.clear()
    assert table["diverged"] == [
        {"member": "learning_rate-10", "seeds": [1], "point": {"optimizer.learning_rate": "10"}}
    ]
    assert {row["member"] for row in table["rows"]} == {"learning_rate-1e-3", "learning_rate-1e-2"}
    display_lab.sweep(table, tmp_path)
    display_lab.lab(table, tmp_path)
    shown = capsys.readouterr().out
    assert re.search(r"10 +diverged", shown)
    assert "learning_rate-10 has diverged with seed 1, and is left out" in shown
    with pytest.raises(UserError, match="every run has diverged"):
        sweeps.run_sweep(sweeps.plan(COPY, [], ["optimizer.learning_rate=10"], (1,)), tmp_path / "all", silent)


def test_a_config_as_it_is_is_judged_on_its_test_part_a_choice_is_not(jobs, tmp_path, monkeypatch):
    parts = []
    table = {"rows": [], "diverged": []}
    monkeypatch.setattr(sweeps.labs, "run_lab", lambda *arguments: parts.append(arguments[-1]) or dict(table))
    for grid in ([], ["train.steps=2"], ["train.steps=2,3"]):
        sweeps.run_sweep(sweeps.plan(COPY, [], grid, (0, 1)), tmp_path, silent)
    assert parts == ["judged", "judged", "validation"]


@pytest.mark.parametrize("grid", [[], ["optimizer.learning_rate=1e-3,1e-2"]])
def test_fewer_seeds_leave_the_others_in_the_table(jobs, tmp_path, grid, capsys):
    found = sweeps.plan(COPY, [], grid, (0, 1, 2))
    sweeps.run_sweep(found, tmp_path, silent)
    members, said = list(found.points), []
    for asked, expected in (((2, 1), (0, 2, 1)), ((3,), (0, 3, 1, 2))):  # 0 has fitted the baselines
        seeds_now = sweeps.seeds_there(sweeps.plan(COPY, [], grid, asked), tmp_path)
        assert seeds_now == expected
        table = sweeps.run_sweep(sweeps.plan(COPY, [], grid, seeds_now), tmp_path, said.append)
    assert [row["seeds"] for row in table["rows"]] == [[0, 3, 1, 2]] * len(members)
    assert [text for text in said if text.startswith("Run")] == [
        f"Run {number} of {len(members)}: {member}, seed 3" for number, member in enumerate(members, start=1)
    ]
    (tmp_path / f"runs/{members[-1]}-1/summary.json").unlink()  # a seed that one point lacks is no row of all
    assert sweeps.seeds_there(sweeps.plan(COPY, [], grid, (0,)), tmp_path) == (0, 2, 3)
    display_lab.sweep(table, tmp_path)
    shown = capsys.readouterr().out
    assert ("this model" in shown, "over 4 seeds, validation part" in " ".join(shown.split())) == (not grid, True)
    assert (tmp_path / "sweep.png").exists() == bool(grid)


def test_a_run_that_diverges_has_an_exit_code_of_its_own(tmp_path, monkeypatch):
    def run(*_):
        raise Diverged("the loss became nan at step 1")

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(sys, "argv", ["minillm", "run", str(COPY), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 3


def write_run(folder, accuracy, *settings):
    experiment = configs.load(COPY, settings)
    folder.mkdir()
    (folder / "config.toml").write_text(configs.to_toml(experiment))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (folder / "manifest.json").write_text("{}")
    summary = {"parameters": 1, "steps": 2, "training_seconds": 3.0, "validation": {"loss": 1.0, "accuracy": accuracy}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_runs_that_differ_in_their_seed_alone_are_a_group(tmp_path):
    values = {"slow": (0.50, 0.60, 0.90), "fast": (0.51, 0.611, 0.912)}
    roots = [write_run(tmp_path / f"{name}{seed}", value, f"train.seed={seed}", f"optimizer.learning_rate={rate}", f"name={name}{seed}",
                       f"baselines.xz={str(seed == 0).lower()}")
             for (name, row), rate in zip(values.items(), ("1e-3", "2e-3"), strict=True) for seed, value in enumerate(row)]  # fmt: skip
    found = reopen.compare(roots)
    assert len(found["runs"]) == 6
    assert [group["seeds"] for group in found["groups"]] == [[0, 1, 2], [0, 1, 2]]
    (row,) = found["differences"]
    assert row["metric"] == "accuracy"
    assert row["welch"] == welch(values["slow"], values["fast"])
    assert row["paired"]["p"] < 0.05 < row["welch"]["p"]
    words = display.seed_difference(row)
    assert words.startswith(f"{roots[3]} - {roots[0]}: accuracy +0.0110, [")
    assert "paired by seed" in words
    display.compare(found, tmp_path / "x.png")
    assert not reopen.compare(roots[:1] + roots[3:4])["differences"]  # one seed each


def test_labs_are_compared_member_by_member(tmp_path):
    for name, shift in (("before", 0.0), ("after", 0.1)):
        (tmp_path / name / "runs").mkdir(parents=True)
        rows = [{"member": member, "seeds": [0, 1, number], "macro_f1": over_seeds([0.5 + shift, 0.6 + shift, 0.7]), "parameters": 9}
                for number, member in ((2, "gpt"), (3, "bert"))]  # fmt: skip
        (tmp_path / name / "table.json").write_text(json.dumps({"rows": rows}))
    found = reopen.compare([tmp_path / "before", tmp_path / "after"])
    assert not found["runs"]
    pairs = [(row["left"], row["right"]) for row in found["differences"]]
    assert pairs == [("before/gpt", "after/gpt"), ("before/bert", "after/bert")]
    within = seeds.differences(seeds.group([tmp_path / "before"]))
    assert [(row["left"], row["right"]) for row in within] == [("gpt", "bert")]
    assert within[0]["paired"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": None}  # over seeds 0 and 1
