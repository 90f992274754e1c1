"""What `minillm describe` found, for a person: tables."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from minillm.report.columns import size_text, time_text

ROOFS = {"compute": "compute", "memory": "memory", "communication": "exchange"}


def show(found: dict[str, Any]) -> None:
    """Arrays, then memory and work, collectives, and a step's time on hardware."""
    console = Console()
    console.print(_arrays(found))
    memory, mesh = found["memory_per_device"], found["mesh"]
    names = ("arguments", "outputs", "temporaries")
    parts = ", ".join(f"{name} {size_text(memory[name])}" for name in names)
    facts = {
        "compiled for": f"{found['compiled_for']}, {' x '.join(f'{name} {size}' for name, size in mesh.items())}, "
        f"rules {found['rules']}",
        "memory per device": f"{size_text(memory['total'])}: {parts}, less {size_text(memory['aliased'])} of outputs that lie "
        "where donated arguments lay",
        "work per step": f"{found['flops_per_step'] / 1e9:,.1f} GFLOP of matrix products in {found['dtype']}",
    }
    if not found["collectives"]:
        facts["collectives per step"] = "none"
    for name, fact in facts.items():
        console.print(f"{name:22} {fact}", highlight=False, soft_wrap=True)
    if found["collectives"]:
        console.print(_collectives(found["collectives"]))
    if found["hardware"]:
        console.print(_hardware(found["hardware"], memory["total"]))
        whole = (f"{row['name']} {time_text(found['steps'] * row['overlapped_seconds'])}" for row in found["hardware"])
        console.print(f"{found['steps']:,} steps at least: {', '.join(whole)}", highlight=False, soft_wrap=True)
        console.print("at once: the longest of the three; in turn: their sum; full: the share of a device's memory that is used. "
                      "Bounds at peak rates, no forecast.", highlight=False, soft_wrap=True)  # fmt: skip
        _sources(console, found["hardware"])
    for line in found["notes"]:
        console.print(line, highlight=False, soft_wrap=True)


def _arrays(found: dict[str, Any]) -> Table:
    """Parameters with all that lies where they lie, then the batch."""
    total, trained = found["total_parameters"], found["trainable_parameters"]
    share = f", of which {trained:,} train ({trained / total:.2%})" if trained < total else ""
    drawn = Table(title=f"{total:,} parameters{share}, on a mesh of {found['mesh']}", box=box.SIMPLE, pad_edge=False)
    for name in ("path", "shape"):
        drawn.add_column(name, no_wrap=True)
    drawn.add_column("per device", justify="right", no_wrap=True)
    for name in ("split over", "trains") if share else ("split over",):
        drawn.add_column(name)
    sizes: dict[str, float] = {}
    for row in found["arrays"]:
        sizes[row["parameter"]] = sizes.get(row["parameter"], 0.0) + row["bytes_per_device"]
    for row in found["parameters"]:
        cells = (row["path"], str(row["shape"]), size_text(sizes.get(row["path"], 0.0)), _split(row), row["trains"])
        drawn.add_row(*cells[: len(drawn.columns)])
    for row in found["arrays"]:
        if row["path"].startswith("batch/"):
            drawn.add_row(row["path"], str(row["shape"]), size_text(row["bytes_per_device"]), _split(row))
    drawn.caption = "per device: a parameter and the optimizer's copies of its shape"
    return drawn


def _split(row: dict[str, Any]) -> str:
    """ "model over mesh.data" -> "model: data", to fit beside the rest."""
    return row["placement"].replace(" over mesh.", ": ")


def _collectives(rows: Iterable[dict[str, Any]]) -> Table:
    drawn = Table(title="collectives of the compiled step", box=box.SIMPLE)
    drawn.add_column("kind", no_wrap=True)
    drawn.add_column("over", no_wrap=True)
    for name in ("devices", "per step", "bytes", "sent per device"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(row["kind"], row["axes"], str(row["devices"]), f"{row['count']:,}", size_text(row["bytes"]),
                      size_text(row["sent"]))  # fmt: skip
    return drawn


def _hardware(rows: Iterable[dict[str, Any]], total: float) -> Table:
    drawn = Table(title="a step's time at least", box=box.SIMPLE, pad_edge=False)
    drawn.add_column("", no_wrap=True)
    for name in ("compute", "memory", "exchange", "at once", "in turn", "binds", "full"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        times = (time_text(row[f"{name}_seconds"]) for name in (*ROOFS, "overlapped", "in_turn"))
        drawn.add_row(row["name"], *times, ROOFS[row["binds"]], f"{total / row['memory_bytes']:.0%}")
    return drawn


def _sources(console: Console, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        console.print(f"{row['name']}: {row['source']}", highlight=False, markup=False, soft_wrap=True, style="dim")


def show_scaling(found: dict[str, Any]) -> None:
    """A table per hardware and way of scaling."""
    console = Console()
    names = {"weak": "weak scaling: {rows} examples per device", "strong": "strong scaling: {batch} examples in all"}
    for machine in found["hardware"]:
        for way, title in names.items():
            rows = [row for row in machine["rows"] if row["way"] == way]
            title = title.format(rows=found["rows_per_device"], batch=found["batch_size"])
            drawn = Table(title=f"{machine['name']}, {title}", box=box.SIMPLE)
            for name in ("devices", "batch", "at once", "", "in turn", "", "memory"):
                drawn.add_column(name, justify="right", no_wrap=True)
            for row in rows:
                times = (f"{time_text(row[f'{name}_seconds'])}|{row[f'{name}_efficiency']:.0%}".split("|")
                         for name in ("overlapped", "in_turn"))  # fmt: skip
                cells = [cell for pair in times for cell in pair]
                drawn.add_row(
                    f"{row['devices']:,}",
                    f"{row['batch']:,}",
                    *cells,
                    size_text(row["memory"]) + " *" * (not row["fits"]),
                )
            console.print(drawn)
    if found["left_out"]:
        counts = ", ".join(map(str, found["left_out"]))
        line = f"- {found['batch_size']} examples do not split over {counts} devices: strong scaling leaves them out"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in found["assumptions"]:
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    _sources(console, found["hardware"])
