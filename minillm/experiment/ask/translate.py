"""Texts through a run that learned to write: `minillm predict` and `minillm sample` of such a run, and back-translation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minillm.data.clean import normalise
from minillm.data.placeholders import kept
from minillm.errors import UserError
from minillm.experiment import writing
from minillm.experiment.ask.reopen import Opened, open_run
from minillm.experiment.paired import cut_sources, pairs_of
from minillm.experiment.results import refuse_surrogates
from minillm.experiment.saved import judged_step, restore


class Translator(NamedTuple):
    """A run that writes, with its parameters as at its end."""

    opened: Opened
    params: Any


def open_translator(root: Path) -> Translator:
    """Raises: UserError where it is no run of sequence_to_sequence on texts."""
    opened = open_run(root)
    _refuse_silent(opened)
    state, frozen, _ = restore(opened.folder, opened.setup, judged_step(opened.folder))
    return Translator(opened, opened.setup.tuning.attach(state.trainable, frozen))


def say(translator: Translator, texts: Sequence[str], draw: writing.Draw | None = None) -> list[str]:
    """What it writes for each text, in order: by beam search, or drawn; placeholders put back."""
    opened = translator.opened
    return writing.write(opened.setup, opened.experiment, translator.params, opened.tokenizer,
                         _normalised(opened, texts), draw)  # fmt: skip


def cut(translator: Translator, texts: Sequence[str]) -> list[bool]:
    """Whether each text is too long and loses its end."""
    opened = translator.opened
    return cut_sources(opened.experiment, opened.tokenizer, _normalised(opened, texts))


def translate(root: Path, texts: Sequence[str]) -> list[str]:
    """What the run in `root` writes for each text, in order, as at its end: by beam search, placeholders put back.

    Raises: UserError where it is no run of sequence_to_sequence on texts, or where a text is empty.
    """
    translator = open_translator(root)
    _refuse_texts(texts)
    return say(translator, texts)


def describe(opened: Opened, trainable: Any, frozen: Any, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A row per text: what is written for it, whether the source was cut, whether placeholders were kept."""
    _refuse_silent(opened)
    _refuse_texts(texts)
    texts = _normalised(opened, texts)
    translator = Translator(opened, opened.setup.tuning.attach(trainable, frozen))
    written, lost = say(translator, texts), cut(translator, texts)
    rows = [{"text": t, "written": w, "cut": c} for t, w, c in zip(texts, written, lost, strict=True)]
    if pairs_of(opened.experiment).placeholders:
        rows = [row | {"placeholders_kept": kept(row["text"], row["written"])} for row in rows]
    return rows


def _normalised(opened: Opened, texts: Sequence[str]) -> list[str]:
    return [normalise(text, opened.experiment.data.normalization) for text in texts]


def _refuse_silent(opened: Opened) -> None:
    if opened.experiment.objective.name != "sequence_to_sequence" or opened.tokenizer is None:
        message = f"a run of the objective {opened.experiment.objective.name!r} writes nothing for a text"
        raise UserError(message, str(opened.folder.root), "name a run of sequence_to_sequence on pairs of texts")


def _refuse_texts(texts: Sequence[str]) -> None:
    refuse_surrogates(texts)
    if not texts:
        raise UserError("there is no text", "--text, --file", "give at least one")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError("the text is empty", f"text {number}", "write something")
