"""Texts through a run that learned to write: `minillm predict` and `minillm sample` of such a run, and back-translation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillm.data.clean import normalise
from minillm.data.placeholders import kept
from minillm.errors import UserError
from minillm.experiment import writing
from minillm.experiment.paired import cut_sources, pairs_of
from minillm.experiment.reopen import Opened, open_run
from minillm.experiment.results import refuse_surrogates
from minillm.experiment.saved import judged_step, restore


def translate(root: Path, texts: Sequence[str]) -> list[str]:
    """What the run in `root` writes for each text, in order, as at its end: by beam search, placeholders put back.

    Raises: UserError where it is no run of sequence_to_sequence on texts, or where a text is empty.
    """
    opened = open_run(root)
    state, frozen, _ = restore(opened.folder, opened.setup, judged_step(opened.folder))
    return [row["written"] for row in describe(opened, state.trainable, frozen, texts)]


def describe(opened: Opened, trainable: Any, frozen: Any, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A row per text: what is written for it, whether the source was cut, whether placeholders were kept."""
    if opened.experiment.objective.name != "sequence_to_sequence" or opened.tokenizer is None:
        message = f"a run of the objective {opened.experiment.objective.name!r} writes nothing for a text"
        raise UserError(message, str(opened.folder.root), "name a run of sequence_to_sequence on pairs of texts")
    refuse_surrogates(texts)
    if not texts:
        raise UserError("there is no text", "--text, --file", "give at least one")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError("the text is empty", f"text {number}", "write something")
    texts = [normalise(text, opened.experiment.data.normalization) for text in texts]
    params = opened.setup.tuning.attach(trainable, frozen)
    written = writing.write(opened.setup, opened.experiment, params, opened.tokenizer, texts)
    cut = cut_sources(opened.experiment, opened.tokenizer, texts)
    rows = [{"text": t, "written": w, "cut": c} for t, w, c in zip(texts, written, cut, strict=True)]
    if pairs_of(opened.experiment).placeholders:
        rows = [row | {"placeholders_kept": kept(row["text"], row["written"])} for row in rows]
    return rows
