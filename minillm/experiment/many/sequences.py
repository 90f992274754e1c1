"""A lab's sequences of tasks: which of its [tests] is whose, what they make of the matrix, and what adapters per task keep.

An adapter per task forgets nothing by construction, since no task changes the base or another's adapter. Here that is
looked at: each task's adapter, stored as a file, is put on the base in the last task's run and asked again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minillm import config as configs
from minillm.evaluation import transfer
from minillm.experiment import adapters, judging, supervised
from minillm.experiment import folder as folders
from minillm.experiment.ask import predict
from minillm.experiment.ask.reopen import Opened, open_run
from minillm.experiment.recipes import continual
from minillm.training.provenance import hash_arrays


def describe(
    order: Sequence[str], rows: Sequence[Mapping[str, Any]], apart: bool, untrained: str | None
) -> dict | None:
    """`transfer.of_rows` of a lab's rows, with how many parameters each task trains; None where a row is missing."""
    found = transfer.of_rows(order, rows, apart, untrained)
    if found is None:
        return None
    by_member = {row["member"]: row for row in rows}
    return found | {"trainable_parameters": [by_member[member]["trainable_parameters"] for member in order]}


def kept(seeds: Sequence[Sequence[Path]], folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """{"kept": rows of `keep`}; seeds: for each seed the runs of all tasks, in order. Asked once, and kept in `folder`.

    {} where the runs of a seed have not all trained something small on one base.
    """
    for runs in seeds:
        experiments = [configs.load(folders.existing(run).config) for run in runs]
        if len({found.base.run for found in experiments}) > 1 or any(e.tuning.method == "full" for e in experiments):
            return {}
    asked = [{run.name: folders.read_json(run / "summary.json")["parameter_hash"] for run in runs} for runs in seeds]
    path = folder / f"{'+'.join(run.name for run in seeds[0])}.json"
    if not path.exists() or folders.read_json(path)["asked"] != asked:
        say(f"Asking the adapters of {', '.join(run.name for run in seeds[0][:-1])} (and other seeds) again")
        folders.write_json(path, {"asked": asked, "rows": [row for runs in seeds for row in keep(runs, folder)]})
    return {"kept": folders.read_json(path)["rows"]}


def keep(runs: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """What the adapter of each run but the last says on the base in the last one, a row per adapter.

    Writes the adapters into `folder`. "same": whether all its answers have the very bits that they had in its own run.
    """
    last, rows = open_run(runs[-1]), []
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs[:-1]:
        own, file = open_run(run), folder / f"{run.name}.safetensors"
        saved = adapters.save(run, file)
        _, documents = continual.judged_documents(own.experiment, own.experiment.data)
        then, now = _ask(own, None, documents), _ask(last, file, documents)
        digests = [hash_arrays({"answers": answers}) for answers in (then, now)]
        accuracy = judging.values_of(own.experiment, documents, now)["accuracy"]
        rows.append({"adapter": file.name, "bytes": saved["bytes"], "accuracy": accuracy,
                     "answers_sha256": digests[0], "same": digests[0] == digests[1]})  # fmt: skip
    return rows


def _ask(opened: Opened, file: Path | None, documents: Sequence) -> np.ndarray:
    opened, trainable, frozen = adapters.weights(opened, file)
    data = supervised.make_rows(opened.experiment, opened.tokenizer, documents)
    return np.asarray(predict.answer(opened, trainable, frozen, documents, data))
