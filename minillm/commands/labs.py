"""Commands that make many runs: lab and sweep."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from minillm.commands.shared import SAID, Config, Json, Set, app, interrupt, output, prepare
from minillm.errors import UserError

Parallel = Annotated[int, typer.Option(min=1, help="Runs at once, each on its share of the cores; 1 on an accelerator")]


@app.command(epilog="Example: `minillm lab configs/history.toml`, and again after a stop: it goes on")
def lab(
    config: Config,
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The lab's folder; default runs/NAME")] = None,
    only: Annotated[list[str], typer.Option(help="A member to run; may be repeated; default all")] = [],  # noqa: B006
    parallel: Parallel = 1,
    as_json: Json = False,
) -> None:
    """Several runs that differ in what they say, several seeds each: one table, one figure."""
    prepare()
    environment = _leave_accelerator()
    from minillm.experiment import display_lab
    from minillm.experiment.many import lab as labs
    from minillm.experiment.many.workers import Workers

    found = labs.load(config, tuple(overrides))
    root = out or Path("runs") / found.name
    say = lambda text: None if as_json else typer.echo(text)
    with _going_on(root):
        table = labs.run_lab(found, root, tuple(only), say, Workers(parallel, environment))
    output(table, as_json, lambda: display_lab.lab(table, root))


@app.command(
    epilog="Example: `minillm sweep configs/sentiment-zh.toml --grid optimizer.learning_rate=3e-5,1e-4,3e-4`\n\n"
    "Without --grid the config as it is, judged on the test part: `minillm sweep configs/spam.toml --seeds 0,1,2`"
)
def sweep(
    config: Config,
    grid: Annotated[
        list[str], typer.Option(help="section.key=value,value or, with --random, LOW..HIGH[:log]; repeats")
    ] = [],  # noqa: B006
    random: Annotated[int | None, typer.Option(min=1, help="Draw so many points, in place of the whole grid")] = None,
    draw_seed: Annotated[int, typer.Option(min=0, help="Of the drawing; the same draws the same points")] = 0,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2")] = "0,1,2",
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Its folder; default runs/NAME-sweep, or -search")] = None,
    parallel: Parallel = 1,
    as_json: Json = False,
) -> None:
    """One config as it is, at every point of a grid or at random ones, several seeds each: mean and interval, and a plot."""
    prepare()
    environment = _leave_accelerator()
    from minillm.experiment import display_lab
    from minillm.experiment.many import sweep as sweeps
    from minillm.experiment.many.draws import Search
    from minillm.experiment.many.workers import Workers

    if not all(part.strip().isdecimal() for part in seeds.split(",")):
        raise UserError(f"expected numbers with commas, got {seeds!r}", "--seeds", "for example --seeds 0,1,2")
    search = None if random is None else Search(random, draw_seed)
    asked = tuple(int(part) for part in seeds.split(","))
    found = sweeps.plan(config, overrides, grid, asked, search)
    root = out or Path("runs") / found.lab.name
    say = lambda text: None if as_json else typer.echo(text)
    if (all_seeds := sweeps.seeds_there(found, root)) != asked:
        found = sweeps.plan(config, overrides, grid, all_seeds, search)
    if more := [str(seed) for seed in all_seeds if seed not in asked]:
        say(f"Seeds that have run before stand in the table too: {', '.join(more)}")
    for number, point in enumerate(found.points.values() if search else (), start=1):
        say(f"Point {number}: {', '.join(f'{key} {value}' for key, value in point.items())}")
    with _going_on(root):
        table = sweeps.run_sweep(found, root, say, Workers(parallel, environment))
    output(table, as_json, lambda: display_lab.sweep(table, root))


def _leave_accelerator() -> dict[str, str]:
    """An accelerator belongs to the runs, which are processes of their own and get the environment that is returned."""
    environment = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"
    return environment


@contextlib.contextmanager
def _going_on(root: Path) -> Iterator[None]:
    """Many runs, stopped by a signal: says how they go on."""
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        SAID.append(shlex.join(sys.argv))
        sys.stderr.write(f"minillm: stopped in {root}; the same command goes on\n")
        raise SystemExit(130) from None
