"""Sections of a config that are right each by itself and do not fit together."""

from typing import Any

from minillm.data import corpora
from minillm.data.packages import TAGGED
from minillm.errors import UserError
from minillm.models import MODELS
from minillm.sections.adversarial import refuse_robust
from minillm.sections.data import has_answers, unread_keys
from minillm.sections.experiment import IMAGES, LABELLED, NEEDS, RECURRENT, SEQUENCES, SYNTHETIC
from minillm.sections.few import refuse_few
from minillm.sections.invariance import refuse_invariance
from minillm.sections.pairs import refuse_pairs
from minillm.sections.prompt import refuse_prompt


def refuse_mismatch(experiment: Any, where: str) -> None:
    """Raises: UserError where sections do not fit together."""
    data, objective, kind = experiment.data, experiment.objective.name, experiment.model.get("kind", "gpt")
    needs = NEEDS[objective]
    if isinstance(kind, str) and kind in MODELS and kind not in needs.models:
        mend = f"{objective} trains {', '.join(needs.models)}; {kind} learns by another objective.name"
        raise UserError(f"{objective} needs a model that {needs.why}, {kind} is none", f"{where}: model.kind", mend)
    reads = data.source if data.source in SYNTHETIC + IMAGES else "text"
    if reads not in needs.reads:
        mend = f"use {' or '.join('a source of text' if name == 'text' else name for name in needs.reads)}"
        raise UserError(f"{objective} cannot read the source {data.source!r}", f"{where}: data.source", mend)
    known = (*corpora.FILES, *corpora.PACKAGES, *corpora.PAIRED, *SYNTHETIC, *IMAGES)
    if data.source in known and (unread := unread_keys(data)):
        mend = "leave it out"
        mend += ", or set data.source = 'text' to read a file" if unread[0] == "path" else ""
        raise UserError(f"{unread[0]} says nothing to the source {data.source!r}", f"{where}: data.{unread[0]}", mend)
    if reads == "text" and objective in LABELLED:
        _refuse_labels(experiment, where)
    refuse_prompt(experiment, where)
    refuse_pairs(experiment, where)
    refuse_few(experiment, where)
    refuse_invariance(experiment, where)
    refuse_robust(experiment, kind, reads, where)
    _refuse_markers(experiment, kind, where)
    _refuse_packing(experiment, kind, where)
    _refuse_mesh(experiment, kind, where)


def _refuse_markers(experiment: Any, kind: str, where: str) -> None:
    """Markers are found in the text as it is, and read by a BERT."""
    if not experiment.objective.markers:
        return
    if kind != "bert" or experiment.data.source in IMAGES:
        message = f"{'images have' if kind == 'bert' else f'a {kind} reads'} no marked words"
        raise UserError(message, f"{where}: objective.markers", "leave it out, or use texts and model.kind = 'bert'")
    uda = experiment.consistency is not None and experiment.consistency.method == "uda"
    rewording = {"augment": experiment.augment, "attack": experiment.attack, "consistency": uda}
    for section in (name for name, there in rewording.items() if there):
        message = "reworded texts may lose the words of objective.markers"
        raise UserError(message, f"{where}: {section}", "leave it out, or the markers")


def _refuse_packing(experiment: Any, kind: str, where: str) -> None:
    data, objective = experiment.data, experiment.objective.name
    if data.packing != "stream" and objective != "causal":
        raise UserError(f"{objective} reads single texts", f"{where}: data.packing", "leave it out")
    if data.packing != "stream" and experiment.tuning.method == "prompt":
        message = "a prompt stands before one text, not before packed or continued ones"
        raise UserError(message, f"{where}: data.packing", "set it to 'stream', or choose another tuning.method")
    if data.packing == "continued":
        if kind not in RECURRENT:
            mend = f"use {', '.join(RECURRENT)}, or another data.packing"
            raise UserError(f"{kind} carries no state from one step to the next", f"{where}: data.packing", mend)
        if experiment.train.shards > 1:
            message = "a state that goes from step to step forbids to split the batch into shards"
            raise UserError(message, f"{where}: train.shards", "set it to 1")


def _refuse_mesh(experiment: Any, kind: str, where: str) -> None:
    if experiment.mesh.rules == "sequence":
        if kind not in SEQUENCES:
            message = f"the positions of {kind} are not split over devices"
            raise UserError(message, f"{where}: mesh.rules", f"use data or fsdp, or one of {', '.join(SEQUENCES)}")
        if experiment.train.shards > 1:
            message = "the rules 'sequence' split whole batches, not virtual shards"
            raise UserError(message, f"{where}: train.shards", "set it to 1, or mesh.rules to data or fsdp")


def _refuse_labels(experiment: Any, where: str) -> None:
    data, objective = experiment.data, experiment.objective.name
    least = {"classify": 2, "pattern": 2, "multi_label": 1, "tag": 1}.get(objective, 0)
    if len(data.labels) < least:
        mend = 'name them in order, for example ["negative", "positive"]'
        raise UserError(f"{objective} needs the classes, got {list(data.labels)}", f"{where}: data.labels", mend)
    tagged = data.source == "conll" or data.source in TAGGED
    if tagged != (objective == "tag"):
        mend = "tag reads units with a tag each, such as a conll file; the other objectives read texts"
        raise UserError(f"{objective} cannot learn from the source {data.source!r}", f"{where}: data.source", mend)
    if has_answers(data) != (objective == "span_qa"):
        mend = "span_qa reads a question, a passage (pair_key) and an answer in it (answer_key); other objectives no answers"
        raise UserError(f"{objective} cannot learn from the source {data.source!r}", f"{where}: data.source", mend)
    if objective == "regression" and data.labels:
        raise UserError("regression learns numbers, not classes", f"{where}: data.labels", "leave it out")
