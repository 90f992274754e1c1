"""report.html: one self-contained file; everything that a user or a model wrote is escaped."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minillm.bits import replace_file
from minillm.report.classification import tables as class_tables
from minillm.report.columns import choose

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #0072b2; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th.number { text-align: right; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.model td { font-weight: 600; } tr.model .bar { background: #d55e00; }
.bar { background: var(--bar); height: .7rem; border-radius: 2px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .8rem; border-radius: 4px; }
pre b { color: var(--bar); } img { max-width: 100%; background: white; border-radius: 4px; }
"""


def write_report(path: Path, run: Mapping[str, Any]) -> None:
    """Writes the page atomically.

    `run` may have: title, summary, notes (sentences on its labels), samples, parameters, cleaning, manifest, config, figure (a
    PNG's path), and of a run on labels evaluation (what evaluation.json holds) and class_figure (a PNG's path), of a branch
    fork (as in manifest.json, with `held_out`: step -> losses of trunk and branch) and fork_figure.
    """
    summary = run.get("summary") or {}
    sections = [
        _results(summary, run.get("notes") or ()),
        class_tables(run["evaluation"]) if run.get("evaluation") else "",
        _others(summary, "tasks", "Tasks beside it", "Each has a head of its own in this model."),
        _others(summary, "tests", "Other texts", "This model and baselines that have read its training texts alone."),
        _figure(run.get("class_figure"), "Classes in a figure", "confusion matrix, reliability and F1 of each class"),
        _figure(run.get("figure"), "Learning curve", "loss against steps"),
        _fork(run["fork"]) if run.get("fork") else "",
        _figure(run.get("fork_figure"), "", "loss of trunk and branch from the fork on"),
        _samples(run.get("samples") or []),
        _parameters(run.get("parameters") or []),
        _plain("What cleaning removed", run.get("cleaning")),
        _plain("Environment", run.get("manifest")),
        _plain("Config", run.get("config")),
    ]
    title = html.escape(str(run.get("title", "run")))
    head = (f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
            f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style></head>")  # fmt: skip
    replace_file(path, f"{head}<body><h1>{title}</h1>{''.join(sections)}</body></html>\n".encode("utf8", "replace"))


def _results(summary: Mapping[str, Any], notes: Sequence[str]) -> str:
    table = _table(summary)
    if not table:
        return ""
    facts = f"{summary.get('parameters', 0):,} parameters, {summary.get('steps', 0):,} steps, "
    facts += f"{summary.get('training_seconds', 0):.0f} s of training. The best is on top."
    if bad := len(summary.get("bad_steps", ())):
        facts += f" Bad steps that were skipped or gone back from, as summary.json lists them: {bad}."
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<h2>Held-out data</h2>{table}<p>{facts}</p>{told}"


def _others(summary: Mapping[str, Any], key: str, title: str, words: str) -> str:
    """What the run is judged by on its [tasks] or [tests], a table each."""
    tables = ""
    for name, found in (summary.get(key) or {}).items():
        part = found.get("judged", "validation")
        size = f", {found['texts']:,} texts" if "texts" in found else ""
        tables += f"<h3>{html.escape(name)} <small>({part} part{size})</small></h3>{_table(found)}"
    return f"<h2>{title}</h2><p>{words}</p>{tables}" if tables else ""


def _table(summary: Mapping[str, Any]) -> str:
    """The model and its baselines, the best on top; empty where nothing compares them."""
    rows, columns = choose(summary)
    if not rows:
        return ""
    key = next(iter(columns))
    largest = max(row.get(key, 0.0) for _, row in rows) or 1.0
    cells = ""
    for name, row in rows:
        kind = " class='model'" if name == "this model" else ""
        bar = f"<div class='bar' style='width:{100 * row.get(key, 0.0) / largest:.1f}%'></div>"
        numbers = "".join(_number(row.get(k), form) for k, (_, form) in columns.items())
        cells += f"<tr{kind}><td>{html.escape(name)}</td>{numbers}<td style='width:35%'>{bar}</td></tr>"
    titles = "".join(f"<th class=number>{title}</th>" for title, _ in columns.values())
    return f"<table><tr><th></th>{titles}<th></th></tr>{cells}</table>"


def _figure(figure: Any, title: str, words: str) -> str:
    if figure is None or not Path(figure).is_file():
        return ""
    data = base64.b64encode(Path(figure).read_bytes()).decode()
    head = f"<h2>{title}</h2>" if title else ""
    return f"{head}<img alt='{words}' src='data:image/png;base64,{data}'>"


def _fork(fork: Mapping[str, Any]) -> str:
    """What a branch has changed, and the held-out losses of both from the fork on."""
    shown = lambda value: html.escape("not set" if value is None else json.dumps(value, ensure_ascii=False))
    rows = "".join(f"<tr><td>{html.escape(key)}</td><td class='number'>{shown(pair['trunk'])}</td>"
                   f"<td class='number'>{shown(pair['branch'])}</td></tr>"
                   for key, pair in fork["changes"].items())  # fmt: skip
    rows = rows or "<tr><td>nothing changed</td><td></td><td></td></tr>"
    for step, (trunk, branch) in fork["held_out"].items():
        rows += f"<tr><td>held-out loss at step {step}</td>{_number(trunk, '.4f')}{_number(branch, '.4f')}</tr>"
    facts = f"Begins at step {fork['step']} of {html.escape(fork['run'])}; the steps before are that run's."
    titles = "<tr><th></th><th class=number>trunk</th><th class=number>branch</th></tr>"
    return f"<h2>Trunk and branch</h2><p>{facts}</p><table>{titles}{rows}</table>"


def _samples(samples: Sequence[Mapping[str, str]]) -> str:
    if not samples:
        return ""
    blocks = "".join(f"<pre><b>{html.escape(s['prompt'])}</b>{html.escape(s['text'])}</pre>" for s in samples)
    return f"<h2>Samples</h2>{blocks}"


def _parameters(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    body = "".join("<tr>" + "".join(_cell(row[name]) for name in names) + "</tr>" for row in rows)
    header = "".join(f"<th{' class=number' if name == 'count' else ''}>{html.escape(name)}</th>" for name in names)
    total = sum(row.get("count", 0) for row in rows)
    return f"<h2>Parameters: {total:,}</h2><div class='wide'><table><tr>{header}</tr>{body}</table></div>"


def _plain(title: str, content: Any) -> str:
    if not content:
        return ""
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    return f"<h2>{html.escape(title)}</h2><pre>{html.escape(text)}</pre>"


def _number(value: float | None, form: str) -> str:
    return f"<td class='number'>{'' if value is None else format(value, form)}</td>"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = " × ".join(map(str, value))
    return f"<td class='number'>{value:,}</td>" if isinstance(value, int) else f"<td>{html.escape(str(value))}</td>"
