"""`minillm run`: train what the config says, and leave a folder that reproduces.

Order on disk: the log lines of a step are written before the checkpoint of that step, so that cutting the lines after
the restored step always leaves exactly the lines of the straight run.
"""

import contextlib
import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from minillm import config as configs
from minillm import hosts
from minillm.bits import host_array
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import exchange, tracking
from minillm.experiment import folder as folders
from minillm.experiment import fork as forks
from minillm.experiment.data import vocabulary_size
from minillm.experiment.examples import example_length
from minillm.experiment.finish import check_prompts, finish
from minillm.experiment.folder import RunFolder
from minillm.experiment.hooks import make_hooks, speedometer
from minillm.experiment.job import Run
from minillm.experiment.recipes import continual, mixture, teacher
from minillm.experiment.recipes.annotation import describe
from minillm.experiment.recipes.tasks import active
from minillm.experiment.saved import restore
from minillm.experiment.setup import make_setup, new_state, refuse_kernel
from minillm.params import count
from minillm.sections.experiment import IMAGES, NEEDS
from minillm.training import checkpoint, loop, provenance
from minillm.training.state import State
from minillm.training.watch import Watch


class Stopped(Exception):
    """A signal stopped the run after it was saved."""

    def __init__(self, step: int, signal_number: int, root: Path):
        super().__init__(f"stopped and saved at step {step} in {root}")
        self.step, self.signal_number = step, signal_number


def run(experiment: configs.Experiment, root: Path, resume: bool, say: Callable, show: Callable) -> dict:
    """Trains to the end and writes every result; returns the summary. Raises: UserError, Stopped."""
    tracking.refuse_missing(experiment.tracking)
    forks.refuse(experiment, root)
    if not RunFolder(root).pseudo.exists():
        teacher.refuse_teacher(experiment)
    before = bases.pretraining(experiment)
    hosts.join(experiment.mesh)
    for stage in (before, experiment):  # what can be refused, before the disk is touched
        if stage is not None:
            refuse_kernel(stage)
            make_setup(stage, vocabulary_size(stage))
    writes = hosts.writes()
    if not writes:
        say = show = lambda *news: None
    with folders.writing(root, experiment, resume) if writes else contextlib.nullcontext(RunFolder(root)) as folder:
        if before is not None:
            _pretrain(before, folder, say, show)
        with folders.undone_on_failure(folder) if writes else hosts.after("the first process has prepared the folder"):
            teacher.teach(experiment, folder, say)
            data = mixture.load(experiment, folder.tokenizer, _take_tokenizer(experiment, folder))
            setup = make_setup(experiment, data.vocabulary, shares=mixture.shares(data))
            job = Run(experiment, folder, data, setup, say, show)
            check_prompts(job)
            continual.read_tests(job)
            _describe(job)
            forks.begin(job)
            base = bases.read(experiment, root, job.setup.specs)
            saved = None if checkpoint.latest(folder.checkpoints) is None else folder.frozen
            base = continual.with_fisher(experiment, job.setup, data.tokenizer, base, saved)
            if writes:
                _write_manifest(job, base.about)
                hosts.wait("the first process has prepared the folder")
            _refuse_differences(job, base)
            state, frozen, progress = restore_or_start(job, resume, base)
        with tracking.tracked(job) as (job, tell):
            state, progress = _train(job, state, frozen, progress, base)
            if not writes:
                return {}
            job, state, frozen = _alone(job, state, frozen)
            summary = finish(job, state, frozen, progress, base.arrays)
            tell(summary)
        return summary


def _refuse_differences(job: Run, base: bases.Base) -> None:
    mesh = dataclasses.replace(job.experiment.mesh, process=None, coordinator=None, processes=None)
    config = configs.to_toml(dataclasses.replace(job.experiment, mesh=mesh))
    tokenizer = "" if job.data.tokenizer is None else job.data.tokenizer.sha256
    origin = str(base.about.get("parameter_sha256"))
    past = str(base.about.get("fisher_sha256"))
    told = {
        "config": config,
        "text": job.data.sha256,
        "tokenizer": tokenizer,
        "base": origin,
        "Fisher information": past,
    }
    hosts.refuse_differences(told)


def _alone(job: Run, state: State, frozen) -> tuple[Run, State, Any]:
    """Of several processes the one that judges: what was trained, from the last checkpoint, on its first device."""
    if jax.process_count() == 1:
        return job, state, frozen
    setup = make_setup(dataclasses.replace(job.experiment, mesh=configs.MeshConfig()), job.data.vocabulary)
    state, frozen, _ = restore(job.folder, setup, int(state.step))
    return job._replace(setup=setup), state, frozen


def _take_tokenizer(experiment: configs.Experiment, folder: RunFolder) -> Any:
    """The tokenizer of the run that this one goes on from, copied into its folder; None where it makes one or needs none."""
    source = forks.source(experiment, folder) or bases.begins_with(experiment, folder.root)
    if source is None or experiment.data.source in IMAGES:
        return None
    if source != folder.root and hosts.writes():
        bases.copy_tokenizer(source, folder)
    return exchange.load_tokenizer(RunFolder(source))


def _pretrain(experiment: configs.Experiment, folder: RunFolder, say: Callable, show: Callable) -> None:
    """The stage before, a run of its own in this one's folder; it goes on, or is left alone where it is complete."""
    root = folder.root / bases.PRETRAIN
    anywhere = lambda found: dataclasses.replace(found, mesh=configs.MeshConfig())
    done = RunFolder(root).summary.exists() and anywhere(configs.load(RunFolder(root).config)) == anywhere(experiment)
    if hosts.decide(done):
        return
    say(f"First: {experiment.objective.name} pretraining for {experiment.train.steps} steps, in {root}.")
    run(experiment, root, root.exists(), say, lambda step, line: show(step, line | {"of": experiment.train.steps}))
    say("Pretraining is done; now the run itself.")


def restore_or_start(job: Run, resume: bool, base: bases.Base) -> tuple[State, Any, loop.Progress]:
    """The newest complete checkpoint, or step 0; log lines after it are cut."""
    step = checkpoint.latest(job.folder.checkpoints)
    if step is None:
        state, frozen = new_state(job.setup, base.arrays)
        if base.about:
            new = ", ".join(base.about["new"]) or "none"
            job.say(f"Base: {base.about['taken']} parameter arrays from {base.about['run']}; new: {new}.")
        progress = loop.Progress()
        if resume:
            job.say(f"Nothing to resume in {job.folder.root}: starting at step 1.")
        if jax.tree.leaves(frozen):
            frozen_copy = jax.tree.map(host_array, frozen)  # by all of several processes: it may lie on all of them
            checkpoint.save(job.folder.frozen, 0, frozen_copy, {}) if hosts.writes() else None
    else:
        state, frozen, progress = restore(job.folder, job.setup, step)
        job.say(f"Resuming after step {step}.")
    if not hosts.writes():
        return state, frozen, progress
    checkpoint.drop_after(job.folder.checkpoints, step or 0)  # there is none, but what a kill left of one goes
    lines = provenance.cut(job.folder.provenance, step or 0)
    if (len(lines), provenance.last_chain(lines)) != (step or 0, progress.chain):
        raise UserError(
            f"the log holds {len(lines)} steps and does not end where the checkpoint of step {step or 0} was saved",
            str(job.folder.provenance),
            "restore the log from a copy, or start anew with another --out",
        )
    provenance.cut_metrics(job.folder.metrics, step or 0)
    return state, frozen, progress


def _train(job: Run, state: State, frozen, progress: loop.Progress, base: bases.Base) -> tuple[State, loop.Progress]:
    train = job.experiment.train
    watch = Watch(train.on_non_finite, train.spike, train.spike_window, train.on_spike, train.bad_steps)
    plan = loop.Plan(
        train.steps, train.evaluate_every, train.checkpoint_every or train.evaluate_every,
        train.hash_every, train.patience, train.keep_best, watch,
    )  # fmt: skip
    with _signals() as caught:
        speed = speedometer(job, int(state.step), progress.seconds)
        hooks = make_hooks(job, frozen, base.arrays, progress.chain, speed, lambda: bool(caught))
        arguments = (job.setup.train_step, state, frozen, job.setup.key, plan, progress, hooks)
        state, progress, ended = loop.fit(*arguments)
    if not ended or (caught and jax.process_count() == 1):  # also one that came while the last step was evaluated
        told = caught or [signal.SIGTERM]  # by another process
        raise Stopped(int(state.step), told[0], job.folder.root)
    return state, progress


def _write_manifest(job: Run, base: dict[str, Any]) -> None:
    """What the bits depend on, for this session and those before it whose steps still count."""
    step = checkpoint.latest(job.folder.checkpoints) or 0
    found = folders.surroundings(job.setup.mesh, folders.command_line())
    train = job.experiment.train
    session = {"after_step": step, "steps": train.steps, "rules": job.experiment.mesh.rules,
               "on_non_finite": train.on_non_finite}  # fmt: skip
    old = folders.read_json(job.folder.manifest) if job.folder.manifest.exists() else {}
    earlier = [other for other in old.get("sessions", ()) if other["after_step"] < step]
    if earlier and (changes := folders.differences(earlier[-1], found)):
        job.say(f"Not as before: {changes}. Equal bits are promised for equal surroundings only.")
    manifest = found | {"sessions": [*earlier, session | found]}
    manifest["data_sha256"] = job.data.sha256
    manifest |= {"base": base} if base else {}
    manifest |= {"fork": old["fork"]} if "fork" in old else {}
    if base and (imported := folders.read_json(RunFolder(Path(base["run"])).manifest).get("imported")):
        manifest["imported"] = imported  # whose tokenizer this is, and what an export is called
    manifest["tokenizer_sha256"] = None if job.data.tokenizer is None else job.data.tokenizer.sha256
    if old:
        for name in ("data_sha256", "tokenizer_sha256"):
            if old.get(name) != manifest[name]:
                raise UserError(
                    f"{name} is {manifest[name]}, the run began with {old.get(name)}",
                    str(job.folder.manifest),
                    "put the run's own text and tokenizer back, or start anew with another --out",
                )
    folders.write_json(job.folder.manifest, manifest)
    folders.write_json(job.folder.cleaning, job.data.cleaning)


def _describe(job: Run) -> None:
    section, split = job.experiment.data, job.data.cleaning.get("split", {})
    text = ", ".join(f"{name} {size['characters']:,} characters" for name, size in split.items() if size["documents"])
    job.say(f"Data: {section.source} ({text})" if text else f"Data: {section.source}")
    job.say(f"Model: {job.experiment.model.get('kind', 'gpt')}, {count(job.setup.specs):,} parameters; "
            f"{f'vocabulary {job.data.vocabulary}; ' * bool(job.data.vocabulary)}{job.experiment.train.steps} steps")  # fmt: skip
    if job.experiment.tuning.method != "full":
        trained = count(job.setup.tuning.specs(job.setup.specs))
        job.say(f"Tuning: {job.experiment.tuning.method}, {trained:,} parameters train, head included")
    if cut := job.data.cleaning.get("cut", {}).get("train"):
        texts = len(job.data.documents.get("train", ())) or split["train"]["documents"]
        longer = f"{cut:,} of {texts:,} training texts are longer than {example_length(job.experiment)} tokens"
        job.say(f"{longer} and lose the rest of them: data.length.")
    for line in describe(job.data.cleaning):
        job.say(line)
    names = {**dict.fromkeys(("classify", "pattern"), len(section.labels)), "tag": 1 + 2 * len(section.labels),
             "simcse": job.experiment.train.batch_size}  # fmt: skip
    choices = names.get(job.experiment.objective.name, 0 if job.data.documents else job.data.vocabulary)
    if choices and len(NEEDS[job.experiment.objective.name].terms) == 1:
        unit = NEEDS[job.experiment.objective.name].unit.removesuffix("s")
        more = "; those of [tasks] are added to it in training" if active(job.experiment) else ""
        job.say(
            f"A model that knows nothing has a loss of ln {choices} = {math.log(choices):.2f} nats per {unit}{more}."
        )


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM: the loop then saves and stops. A second Ctrl-C stops at once."""
    caught: list[int] = []

    def note(number, frame):
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
