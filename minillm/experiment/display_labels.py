"""What a person sees of a lab with few labels: what was reached, what the labels cost, how far members differ."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from minillm.experiment.display_classifiers import seed_by_seed
from minillm.report.columns import COLUMNS, main_metric
from minillm.sections.few import CHOSEN

MORE = {  # title -> (key of a row, what its cell says)
    "teacher right": ("pseudo_accuracy", lambda row: f"{row['pseudo_accuracy']['mean']:.1%}"),
    "wrong": ("wrong", lambda row: f"{row['wrong']:,}"),
    "left out rightly": ("finding", lambda row: f"{row['finding']['precision']['mean']:.1%}"),
    "wrong ones found": ("finding", lambda row: f"{row['finding']['recall']['mean']:.1%}"),
}


def labels(found: dict, root: Path) -> None:
    """A row per member, with its own baselines below it; then each member less the first with as many labels."""
    rows = [row for row in found["rows"] if "labels" in row]
    metric = main_metric(rows)
    drawn = Table(title=f"{found['name']}: mean ± half of the 95 % interval", box=box.SIMPLE)
    more = {title: tell for title, (key, tell) in MORE.items() if any(row.get(key) for row in rows)}
    for title in ("", "labels", "cost", COLUMNS[metric][0], *more):
        drawn.add_column(title, justify="right" if title else "left", overflow="fold")
    for row in rows:
        told = [tell(row) if row.get(MORE[title][0]) else "" for title, tell in more.items()]
        drawn.add_row(row["member"], f"{row['labels']:,}", f"{row['price']:,.2f}", _half(row[metric]), *told)
        for name, values in row.get("own_baselines", {}).items():
            if metric in values and "frequent" not in name:
                drawn.add_row(f"  {name}", "", "", _half(values[metric]), *[""] * len(more), style="dim")
    console = Console()
    console.print(drawn)
    if count := rows[0].get("validation_labels"):
        text = f"Not in the cost: {count:,} validation labels, {rows[0]['validation_price']:,.2f}; {CHOSEN}"
        console.print(text, highlight=False, markup=False)
    for row in found["differences"]:
        console.print(seed_by_seed(row), highlight=False, markup=False)
    console.print(f"Table: {root}/table.json   Figure: {root}/table.png", highlight=False, soft_wrap=True)


def _half(value: dict) -> str:
    known = value.get("low") is not None
    return f"{value['mean']:.3f}" + (f" ± {(value['high'] - value['low']) / 2:.3f}" if known else "")
