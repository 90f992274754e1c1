"""What a person sees of `minillm replies`."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(found: dict) -> None:
    """How often the right reply is among the best, how varied the replies are, and how likely the true ones."""
    chosen = Table(title=f"{found['run']}: the right reply among {found['candidates']}", box=box.SIMPLE)
    varied = Table(title="how varied the replies are", box=box.SIMPLE)
    for drawn, rows in ((chosen, found["recall"]), (varied, found["distinct"])):
        drawn.add_column("")
        for title in next(iter(rows.values())):
            drawn.add_column(title, justify="right")
        for name, row in rows.items():
            drawn.add_row(
                Text(name), *(f"{value:.1%}" if drawn is chosen else f"{value:.3f}" for value in row.values())
            )
    console = Console()
    console.print(chosen, varied)
    console.print(f"Perplexity of the true replies: {found['reply_perplexity']:.1f}; questions: {found['questions']}")
