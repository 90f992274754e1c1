"""Writes what a finished run shows: samples, figure, report and summary."""

from pathlib import Path
from typing import Any

from minillm import params, sharding
from minillm.bits import replace_file
from minillm.config import Experiment, to_toml
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.experiment.recipes.annotation import describe
from minillm.experiment.setup import Setup
from minillm.sections.experiment import NEEDS


def parameter_rows(setup: Setup, rules: str) -> list[dict[str, Any]]:
    """The parameter table, with the rows that tuning adds: path, shape, axes, initializer, count, placement, trains."""
    trained = setup.tuning.specs(setup.specs)
    specs = setup.specs | trained
    places = params.flatten(sharding.param_shardings(specs, sharding.RULES[rules], setup.mesh))
    return [
        {
            "path": path, "shape": list(spec.shape), "axes": [axis or "-" for axis in spec.axes],
            "initializer": f"{spec.init} {spec.scale:.3g}" if spec.init in ("normal", "uniform") else spec.init,
            "count": spec.size, "placement": placement(spec, places[path].spec, setup.mesh.size),
            "trains": "yes" if path in trained else "no",
        }
        for path, spec in specs.items()
    ]  # fmt: skip


def placement(spec: params.ParamSpec, place, devices: int) -> str:
    """Which axes are split over which axes of the mesh, in words."""
    split = (f"{axis} over mesh.{mesh_axis}" for axis, mesh_axis in zip(spec.axes, place, strict=True) if mesh_axis)
    return ", ".join(split) or ("copied" if devices > 1 else "whole")


def title(root: Path, experiment: Experiment) -> str:
    """The folder's name, by which runs of one config are told apart, and the config's where it is another."""
    name = root.absolute().name
    return name if name == experiment.name else f"{name} ({experiment.name})"


def write_results(folder: RunFolder, experiment: Experiment, setup: Setup, samples: list[dict], summary: dict) -> None:
    """Everything but the checkpoints, the summary last."""
    from minillm.report.page import write_report
    from minillm.report.plot import loss_curve

    text = "\n\n".join(f"--- prompt: {s['prompt']!r}\n{s['prompt']}{s['text']}" for s in samples)
    replace_file(folder.samples, (text + "\n").encode("utf8", "replace"))
    metrics = folders.read_lines(folder.metrics)
    needs = NEEDS[experiment.objective.name]
    single = len(needs.terms) == 1  # else the curve is a sum of which a baseline knows one part
    lines = {
        name: found[needs.metric] for name, found in summary["baselines"].items() if single and needs.metric in found
    }
    unit = (
        "squared error"
        if needs.metric == "squared_error" and needs.unit == "examples"
        else {"tokens": "nats per token", "examples": "nats per example", "pixels": "squared error per pixel"}[
            needs.unit
        ]
    )
    loss_curve(metrics, folder.figure, lines, f"loss ({unit if single else 'sum of its terms'})")
    cleaning = folders.read_json(folder.cleaning)
    judged = _draw_classes(folder) | _draw_branch(folder, metrics)
    write_report(folder.report, {
        "title": title(folder.root, experiment), "summary": summary, "metrics": metrics, "samples": samples,
        "parameters": parameter_rows(setup, experiment.mesh.rules), "cleaning": cleaning, "notes": describe(cleaning),
        "manifest": folders.read_json(folder.manifest), "config": to_toml(experiment), "figure": folder.figure, **judged,
    })  # fmt: skip
    folders.write_json(folder.summary, summary)


def _draw_branch(folder: RunFolder, metrics: list[dict]) -> dict[str, Any]:
    """What the report shows of a branch, beside its trunk as far as that has come; nothing of other runs."""
    from minillm.report.plot import compare_curves

    fork = folders.read_json(folder.manifest).get("fork")
    if fork is None:
        return {}
    curves = {f"trunk: {fork['name']}": folders.read_lines(RunFolder(Path(fork["run"])).metrics), "branch": metrics}
    compare_curves(curves, folder.branch, {"branch": fork["step"]})
    trunk, branch = ({line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
                     for lines in curves.values())  # fmt: skip
    both = {step: (trunk.get(step), branch.get(step)) for step in sorted(trunk | branch) if step > fork["step"]}
    return {"fork": fork | {"held_out": both}, "fork_figure": folder.branch}


def _draw_classes(folder: RunFolder) -> dict[str, Any]:
    """What the report shows of a run on labels; nothing of others."""
    from minillm.report import classification

    if not folder.evaluation.exists():
        return {}
    evaluation = folders.read_json(folder.evaluation)
    drawn = classification.write_figure(evaluation, folder.classes)
    return {"evaluation": evaluation} | ({"class_figure": folder.classes} if drawn else {})
