"""What a person sees of `minillm drift`."""

from rich import box
from rich.console import Console
from rich.table import Table


def show(found: dict) -> None:
    """A row per window, what is above its threshold in bold; then the alarm in words."""
    drawn = Table(title=f"{found['run']}: windows of {found['window']} texts", box=box.SIMPLE)
    drawn.add_column("texts", justify="right")
    for name in found["thresholds"]:
        drawn.add_column(name, justify="right")
    drawn.add_row("threshold", *(f"{value:.3f}" for value in found["thresholds"].values()), end_section=True)
    for row in found["windows"]:
        marked = (
            f"[bold]{value:.3f} ![/bold]" if name in row["above"] else f"{value:.3f}"
            for name, value in row["statistics"].items()
        )  # fmt: skip
        drawn.add_row(f"{row['first']}-{row['last']}", *marked)
    console = Console()
    console.print(drawn)
    told = f"of windows like the held-out texts, {found['rate']:.0%} are above a threshold by chance"
    if found["alarm"] is None:
        console.print(f"No alarm: {told}.", highlight=False)
        return
    row = found["windows"][found["alarm"] - 1]
    place = f"texts {row['first']} to {row['last']}"
    console.print(f"Alarm at {place}: {', '.join(row['above'])}; {told}.", highlight=False)
