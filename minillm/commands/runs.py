"""Commands about one run or a few: run, branch, describe, sample, predict, search, eval, compare, verify."""

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from minillm.commands import watched
from minillm.commands.shared import INTERRUPTS, SAID, Config, Json, RunPath, Set, app, output, prepare
from minillm.errors import UserError


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
    from minillm.experiment import base

    experiment = base.load(config, overrides)
    _train(experiment, out, resume, as_json, ["run", str(config), *_settings(overrides)])


@app.command(epilog="Example: `minillm branch runs/quickstart --at 525 --set optimizer.learning_rate=1e-3`")
def branch(
    run: RunPath,
    at: Annotated[int, typer.Option(min=1, help="The step of one of the run's checkpoints")],
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The branch's folder; default runs/NAME-at-STEP-CHANGES")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a branch that was stopped")] = False,
    as_json: Json = False,
) -> None:
    """Go back to a step of a run, change something, and train on in a folder of its own; the run stays as it is."""
    prepare()
    from minillm.experiment import fork

    experiment = fork.make(run, at, overrides)
    _train(experiment, out, resume, as_json, ["branch", str(run), "--at", str(at), *_settings(overrides)])


def _settings(overrides: list[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def _train(experiment: Any, out: Path | None, resume: bool, as_json: bool, command: list[str]) -> None:
    """Runs it and shows the summary; where it is stopped, says how `command` goes on."""
    from minillm import hosts, sharding
    from minillm.experiment import display
    from minillm.experiment import run as runs

    sharding.fix_threads(experiment.train.shards)
    root = out or Path("runs") / experiment.name
    if experiment.mesh.distributed and not watched.watched():
        raise SystemExit(watched.watch(root, experiment.mesh.lost_after))
    try:
        if INTERRUPTS:
            raise KeyboardInterrupt
        with (
            hosts.one_of_several(orderly=runs.Stopped),
            display.watch(experiment.train.steps, quiet=as_json) as (say, show),
        ):
            summary = runs.run(experiment, root, resume, say, show)
    except (runs.Stopped, BrokenPipeError, KeyboardInterrupt) as stopped:
        place = ["--out", str(out)] if out else []
        again = shlex.join(["minillm", *command, *place, "--resume"])
        what = {
            BrokenPipeError: f"whoever read the output has gone, so the run stopped in {root}",
            KeyboardInterrupt: f"stopped in {root}; the last checkpoint, where there is one, stays",  # before or after training
        }.get(type(stopped), stopped)
        sys.stderr.write(f"minillm: {what}; go on with: {again}\n")
        SAID.append(again)
        if isinstance(stopped, BrokenPipeError):
            raise  # the command line's library ends quietly, with code 1
        raise SystemExit(128 + getattr(stopped, "signal_number", signal.SIGINT)) from None
    if hosts.writes():
        output(summary, as_json, lambda: display.summary(summary, root))


@app.command(epilog="Example: `minillm describe configs/quickstart.toml --mesh data=4,model=2,rules=fsdp`")
def describe(
    config: Config,
    overrides: Set = [],  # noqa: B006
    mesh: Annotated[str, typer.Option(help="Over the config's [mesh]; devices that are missing are simulated")] = "",
    scaling: Annotated[str, typer.Option(help="Numbers of devices, such as 8,64,512: weak and strong scaling")] = "",
    figure: Annotated[Path | None, typer.Option(help="A PNG file to draw")] = None,
    measured: Annotated[Path | None, typer.Option(help="A file with what `minillm bench --json` found here")] = None,
    as_json: Json = False,
) -> None:
    """Parameters, sharding, memory, FLOPs, collectives and time of a config's step; allocates nothing."""
    prepare()
    from minillm import sharding
    from minillm.experiment import base
    from minillm.experiment.paper import costs
    from minillm.experiment.paper import describe as describing
    from minillm.experiment.paper import scaling as scales
    from minillm.experiment.paper.hardware import hardware
    from minillm.report import cost

    experiment = base.load(config, [*overrides, *_mesh_settings(mesh)])
    counts, machines = _counts(scaling), hardware(measured)
    sharding.simulate(scales.devices_needed(experiment) if counts else experiment.mesh.data * experiment.mesh.model)
    if counts:
        found = scales.scale(scales.find_laws(experiment), counts, machines)
        draw, show = cost.write_scaling, costs.show_scaling
    else:
        found, draw, show = describing.describe(experiment, machines), cost.write_figure, costs.show
    if figure is not None:
        draw(found, figure)
    output(found, as_json, lambda: show(found))


def _mesh_settings(text: str) -> list[str]:
    """ "data=4,model=2" as overrides."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := [part for part in parts if "=" not in part]:
        raise UserError(
            f"expected key=value, got {wrong[0]!r}", "--mesh", "for example --mesh data=4,model=2,rules=fsdp"
        )
    return [f"mesh.{part}" for part in parts]


def _counts(text: str) -> list[int]:
    """Numbers of devices."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"expected numbers with commas, got {text!r}", "--scaling", "for example --scaling 8,64,512")
    return [int(part) for part in parts]


@app.command(epilog='Example: `minillm sample runs/quickstart --prompt "The statement" --tokens 80 --top-k 40`')
def sample(
    run: RunPath,
    prompt: Annotated[
        list[str], typer.Option(help="Text to continue, or with `<mask>` where a word is missing; may be repeated")
    ] = [""],  # noqa: B006
    tokens: Annotated[int, typer.Option(min=1, help="New tokens at most")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=1e-9, max=1.0)] = None,
    samples: Annotated[int, typer.Option(min=1, help="Continuations per prompt")] = 1,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Continue a prompt with a trained run; a BERT or T5 fills in its gaps, always with what is most likely."""
    prepare()
    from minillm.config import SampleConfig
    from minillm.experiment.ask import reopen

    try:
        settings = SampleConfig(tuple(prompt) * samples, tokens, temperature, top_k, top_p, seed)
    except ValueError as error:
        raise UserError(str(error), "sample", "mend that option") from None
    found = reopen.sample(run, settings)
    output(found, as_json, lambda: [typer.echo(f"{row['prompt']}{row['text']}\n") for row in found])


@app.command(epilog='Example: `minillm predict runs/sentiment-zh --text "质量很好，下次还来"`')
def predict(
    run: RunPath,
    text: Annotated[list[str], typer.Option(help="A text to label; may be repeated")] = [],  # noqa: B006
    file: Annotated[Path | None, typer.Option(help="A file with a text per line")] = None,
    pair: Annotated[
        list[str], typer.Option(help="The second sentence, or the passage to a question; one per text")
    ] = [],  # noqa: B006
    pair_file: Annotated[Path | None, typer.Option(help="A file with the second sentences, line by line")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A saved adapter to put on the run's base")] = None,
    sure: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Hand over what the run gives less probability than this")
    ] = 0.0,
    task: Annotated[str | None, typer.Option(help="One of the run's [tasks]; default its own")] = None,
    as_json: Json = False,
) -> None:
    """Label new texts with probabilities, with a run that learned from labels."""
    prepare()
    from minillm.experiment import display
    from minillm.experiment.ask import predict as predicting

    texts, seconds = ([*given, *(_lines(path) if path else ())] for given, path in ((text, file), (pair, pair_file)))
    found = predicting.hand_over(predicting.predict(run, texts, seconds or None, adapter, task), sure)
    output(found, as_json, lambda: display.predictions(found))


def _lines(file: Path) -> list[str]:
    """A text per line; blank lines are none, and it is said how many there were."""
    from minillm.data.files import lines_of

    lines = lines_of(file)
    lines = lines[:-1] if lines and not lines[-1] else lines  # the end of the last line
    texts = [line for line in lines if line.strip()]
    if blank := len(lines) - len(texts):
        sys.stderr.write(f"minillm: {file}: {blank} blank {'lines are' if blank > 1 else 'line is'} left out\n")
    return texts


@app.command(epilog="Example: `minillm drift runs/sentiment-zh --file came_in.txt`")
def drift(
    run: RunPath,
    file: Annotated[Path, typer.Option(help="A file with a text per line, in the order in which they came")],
    window: Annotated[int, typer.Option(min=10, help="Texts that are looked at together")] = 50,
    rate: Annotated[float, typer.Option(min=0.01, max=0.5, help="False alarms per window and statistic")] = 0.05,
    as_json: Json = False,
) -> None:
    """Do texts that come in still look like those that a classifier was judged on? An alarm if not."""
    prepare()
    from minillm.experiment import display_drift
    from minillm.experiment.ask import drift as drifting

    found = drifting.watch(run, _lines(file), window=window, rate=rate)
    output(found, as_json, lambda: display_drift.show(found))


@app.command(epilog='Example: `minillm search minilm-bert --file notes.txt --query "Who pays for broken windows?"`')
def search(
    model: Annotated[str, typer.Argument(help="A run of a BERT, or a model that `minillm fetch` knows")],
    file: Annotated[Path, typer.Option(help="A file with a passage per line")],
    query: Annotated[list[str], typer.Option(help="What is looked for; may be repeated")],
    method: Annotated[str, typer.Option(help="dense (by meaning), words (BM25), or both, by their ranks")] = "both",
    top: Annotated[int, typer.Option(min=1, help="How many passages to show")] = 5,
    as_json: Json = False,
) -> None:
    """Find the passages of a file that come nearest to a question."""
    prepare()
    from minillm.experiment import display
    from minillm.experiment.ask import search as searching

    found = searching.search(model, _lines(file), query, method, top)
    output(found, as_json, lambda: display.passages(found))


@app.command(epilog="Example: `minillm adapter runs/tweets-lora tweets.safetensors`")
def adapter(
    run: RunPath,
    file: Annotated[Path, typer.Argument(help="Where to write it")],
    as_json: Json = False,
) -> None:
    """Save what a run has tuned as a small file, for `minillm predict --adapter`; it fits its own base alone."""
    prepare()
    from minillm.experiment import adapters

    found = adapters.save(run, file)
    line = f"{found['file']}: {found['method']} of step {found['step']}, {found['bytes'] / 1e6:,.2f} MB"
    output(found, as_json, lambda: typer.echo(line))


@app.command("eval", epilog="Example: `minillm eval runs/quickstart --split validation --json`")
def evaluate(
    run: RunPath,
    split: Annotated[str, typer.Option(help="validation or test")] = "validation",
    attack: Annotated[str, typer.Option(help="fgm, pgd, swap, delete or synonyms: how much accuracy is left?")] = "",
    strength: Annotated[
        float | None, typer.Option(help="Norm of the change of fgm and pgd, rate of the others; default 0.1")
    ] = None,
    thesaurus: Annotated[str | None, typer.Option(help="For synonyms: cilin, base, or a file")] = None,
    task: Annotated[str | None, typer.Option(help="One of the run's [tasks]; default its own")] = None,
    as_json: Json = False,
) -> None:
    """Held-out metrics of a run, from its newest checkpoint."""
    prepare()
    from minillm.experiment import display
    from minillm.experiment.ask import reopen
    from minillm.sections.adversarial import chosen_attack

    for name, value in (("--strength", strength), ("--thesaurus", thesaurus)):
        if value is not None and not attack:
            raise UserError("there is no attack", name, "name one with --attack, or leave it out")
    chosen = chosen_attack(attack, 0.1 if strength is None else strength, thesaurus) if attack else None
    found = reopen.evaluate(run, split, chosen, task, attack or None)
    of = f"task {task} of {run}" if task else run
    output(found, as_json, lambda: display.table(f"{of} on {split}", found))


@app.command(epilog="Example: `minillm compare runs/a runs/b`")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of labs and sweeps")], as_json: Json = False
) -> None:
    """One table and one plot over several runs; where seeds are repeated, the differences with their intervals."""
    from minillm.experiment import display
    from minillm.experiment.ask import reopen

    found = reopen.compare(runs)
    output(found, as_json, lambda: display.compare(found, runs[0] / "compare.png"))


@app.command(epilog="Example: `minillm verify runs/quickstart --steps 20`")
def verify(
    run: RunPath,
    steps: Annotated[int | None, typer.Option(min=1, help="How many to replay; default all")] = None,
    as_json: Json = False,
) -> None:
    """Check a run's checkpoints and log, replay its steps, and name the first that differs."""
    prepare()
    from minillm import config as configs
    from minillm import sharding
    from minillm.experiment import verify as verifying
    from minillm.experiment.folder import existing

    sharding.fix_threads(configs.load(existing(run).config).train.shards)  # as in the run
    found = verifying.verify(run, steps, lambda text: None if as_json else typer.echo(text))
    output(found, as_json, lambda: typer.echo(found["verdict"]))
    if not found["equal"]:
        raise SystemExit(1)
