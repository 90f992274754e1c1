"""What an encoder-decoder that learned from pairs of texts writes, and how that is judged beside what needs no network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from minillm.config import Experiment
from minillm.data.document import Document
from minillm.data.pairs import split_sentences
from minillm.data.placeholders import SIGNS, count_signs, hide, kept, show
from minillm.evaluation import intervals, memory, overlap, word_table
from minillm.evaluation.textual import parts_words
from minillm.experiment import folder as folders
from minillm.experiment.examples import pair_lengths
from minillm.experiment.job import Run
from minillm.experiment.judging import OWN, Verdict, unpack
from minillm.experiment.paired import encode_sources, pairs_of, sides
from minillm.experiment.setup import Setup
from minillm.inference.beam import Beam, beam_search
from minillm.inference.constrained import Owed, make_owed
from minillm.inference.generate import Sampling, generate

ROWS = 64  # texts per search at most
SHOWN = 12  # examples in the report
COMPARED = ("bleu", "chrf", "rougeL")  # metrics of which differences to the baselines are told

Pieces = Any
Documents = Sequence[Document]


class Draw(NamedTuple):
    """Texts are drawn at a temperature, in place of the search for the likeliest ones; a key per call."""

    temperature: float
    key: jax.Array


def write(
    setup: Setup, experiment: Experiment, params: Any, pieces: Pieces, texts: Sequence[str], draw: Draw | None = None
) -> list[str]:
    """What the model writes for each text: the best hypothesis of the beam that keeps the source's placeholders.

    Where none does, or where placeholders do not matter, the best of all. A source that is too long loses its end, but
    its placeholders are all asked for where [pairs] says `exact`.
    """
    section, (length, room) = pairs_of(experiment), pair_lengths(experiment)
    names = [hide(text)[1] if section.placeholders else [] for text in texts]
    sources = [[*ids[: length - 1], pieces.eos] for ids in encode_sources(experiment, pieces, texts)]
    order = sorted(range(len(texts)), key=lambda place: len(sources[place]))  # texts of like length share a search
    tokens, found = min(room, setup.config.context - 1), {}
    for start in range(0, len(order), ROWS):
        places, missing = order[start : start + ROWS], max(0, start + ROWS - len(order))
        model = (setup.module, setup.config, params, [[pieces.bos]] * ROWS, tokens)
        read = {
            "sources": [sources[place] for place in places] + [[pieces.eos]] * missing,  # one shape: one program
            "owed": _owed(pieces, [texts[place] for place in places] + [""] * missing) if section.exact else None,
        }
        if draw is None:
            searched = beam_search(*model, Beam(section.beams, section.alpha, pieces.eos), **read)
            said = [[hypothesis.tokens for hypothesis in row] for row in searched]
        else:
            how = {"key": jax.random.fold_in(draw.key, start), "sampling": Sampling(draw.temperature)}
            said = [[ids] for ids in generate(*model, **how, stop=(pieces.eos,), **read)]
        for place, rows in zip(places, said, strict=False):
            written = [show(pieces.decode(ids), names[place]) for ids in rows]
            whole = [text for text in written if not section.placeholders or kept(texts[place], text)]
            found[place] = (whole or written)[0]
    return [found[place] for place in range(len(texts))]


def _owed(pieces: Pieces, texts: Sequence[str]) -> Owed:
    """Each text's signs, of those that the tokenizer has as one piece."""
    ids = [pieces.encode(sign) for sign in SIGNS]
    known = [place for place, found in enumerate(ids) if len(found) == 1 and found[0] != pieces.unk]
    counts = [count_signs(text) for text in texts]
    return make_owed([ids[place][0] for place in known], [[row[place] for place in known] for row in counts])


def measure(experiment: Experiment, documents: Documents, written: Sequence[str]) -> intervals.Metric:
    """The metrics of written texts, as functions of how often each document counts."""
    references, section = [document.target for document in documents], pairs_of(experiment)
    if section.judge == "summary":
        metric = overlap.summary(written, references)
    else:
        split = overlap.split_words if parts_words(references) else overlap.split_characters
        metric = overlap.translation(written, references, split)
    if not section.placeholders:
        return metric
    whole = np.array([kept(d.text, text) for d, text in zip(documents, written, strict=True)], np.float64)
    asked = np.array([bool(hide(d.text)[1]) for d in documents], np.float64)

    def with_placeholders(weights):
        found = {"placeholders_kept": overlap.weighted(whole, weights)}
        if asked.any():  # a draw without such texts has kept all of none
            count, hits = weights @ asked, weights @ (whole * asked)
            found["placeholders_kept_where_any"] = np.where(count > 0.0, hits / np.maximum(count, 1.0), 1.0)
        return metric(weights) | found

    return with_placeholders


def judge(experiment: Experiment, documents: Documents, written: Sequence[str]) -> Verdict:
    """Metrics with their intervals; of texts that have placeholders, how many kept them, too."""
    values, bounds = unpack(intervals.bootstrap(measure(experiment, documents, written), len(documents)))
    details: dict[str, Any] = {}
    if pairs_of(experiment).placeholders:
        asked = [(d, text) for d, text in zip(documents, written, strict=True) if hide(d.text)[1]]
        details = {"with_placeholders": len(asked), "of_these_kept": sum(kept(d.text, text) for d, text in asked)}
    return Verdict(values, bounds, details)


def judge_run(job: Run, params: Any, held_out: dict[str, float]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(what goes into the summary, examples): model and baselines on the test part, or on validation where there is none.

    All that was written goes into evaluation.json.
    """
    split = "test" if job.data.documents["test"] else "validation"
    documents = job.data.documents[split]
    say = lambda part: write(job.setup, job.experiment, params, job.data.tokenizer, [d.text for d in part])
    written = {OWN: say(documents)} | baselines(job.experiment, job.data.tokenizer, job.data.documents, split)
    verdicts = {name: judge(job.experiment, documents, texts) for name, texts in written.items()}
    rows = [{"source": d.text, "reference": d.target, **{name: texts[place] for name, texts in written.items()}}
            for place, d in enumerate(documents)]  # fmt: skip
    folders.write_json(job.folder.evaluation, {
        "split": split, "labels": [], **{name: verdict._asdict() for name, verdict in verdicts.items()}, "written": rows,
    })  # fmt: skip
    own, chosen_by = verdicts[OWN], verdicts[OWN].metrics
    if split == "test":
        part = job.data.documents["validation"]
        chosen_by = {name: float(value[0]) for name, value in
                     measure(job.experiment, part, say(part))(np.ones((1, len(part)))).items()}  # fmt: skip
    validation = held_out | chosen_by
    found = {"judged": split, "validation": validation, split: validation if split == "validation" else own.metrics,
             "intervals": own.intervals, "details": own.details,
             "baselines": {name: verdict.metrics for name, verdict in verdicts.items() if name != OWN},
             "differences": differences(job.experiment, documents, written)}  # fmt: skip
    return found, [example(row) for row in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]]


def example(row: dict[str, str]) -> dict[str, str]:
    """One text as the report and samples.txt show it: what was asked, what the model wrote, what was right."""
    return {"prompt": row["source"], "text": f"\n→ {row[OWN]}\n= {row['reference']}"}


def differences(experiment: Experiment, documents: Documents, written: dict[str, list[str]]) -> dict[str, Any]:
    """Baseline -> metric -> {"value", "low", "high", "p"} of the model less the baseline, on the same documents."""
    measured = {name: measure(experiment, documents, texts) for name, texts in written.items()}
    own = measured.pop(OWN)
    found = {name: intervals.paired_bootstrap(own, other, len(documents)) for name, other in measured.items()}
    return {name: {key: row[key] for key in COMPARED if key in row} for name, row in found.items()}


def baselines(
    experiment: Experiment, pieces: Pieces, documents: dict[str, Documents], split: str
) -> dict[str, list[str]]:
    """What those write that learn from the training part alone: a memory, and a word table or the source's beginning.

    Placeholders reach them as signs too, and come back into what they write.
    """
    if not experiment.baselines.text:
        return {}
    known, asked = sides(experiment, documents["train"]), [d.text for d in documents[split]]
    hidden = [hide(text) if pairs_of(experiment).placeholders else (text, []) for text in asked]
    back = lambda texts: [show(text, names) for text, (_, names) in zip(texts, hidden, strict=True)]
    sources, answers = zip(*known, strict=True)
    questions = [text for text, _ in hidden]
    found = {"nearest training text": back(memory.answer_alike(sources, answers, questions))}
    if pairs_of(experiment).judge == "summary":
        words, blank = parts_words(answers), " " if parts_words(answers) else ""
        units = [text.split() if words else list(text) for text in asked]
        usual = round(float(np.median([len(answer.split() if words else answer) for answer in answers])))
        return found | {"first sentence": [_first_sentence(text) for text in asked],
                        f"first {usual} {'words' if words else 'characters'}": [blank.join(row[:usual]) for row in units]}  # fmt: skip
    table = word_table.fit_table(sources, pieces.encode_many([show(text, []) for text in answers]))  # signs are copied
    said = [pieces.decode(word_table.translate(table, text, pieces.encode)) for text in questions]
    return {"word by word": back(said)} | found


def _first_sentence(text: str) -> str:
    return next((sentence.strip() for sentence in split_sentences(text) if sentence.strip()), "")
