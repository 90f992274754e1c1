"""`minillm paraphrase`: the training texts of a config in other words, by translating them there and back.

Back-translation: Sennrich et al. 2016; for classifiers UDA, Xie et al. 2020, section 3, who draw at a temperature, for
variety. Held-out texts are not touched: what a run is judged on stays as people wrote it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from minillm import config as configs
from minillm.bits import replace_file
from minillm.data.clean_labelled import fold
from minillm.errors import UserError
from minillm.evaluation import overlap
from minillm.experiment import folder as folders
from minillm.experiment.ask import translate
from minillm.experiment.data import split_documents
from minillm.experiment.many import lab as labs
from minillm.experiment.writing import Draw
from minillm.sections.data import IMAGES, SYNTHETIC, DataConfig, is_paired

BLOCK = 256  # texts between two lines of progress
SHOWN = 5  # examples


class Wanted(NamedTuple):
    """How many paraphrases of a text: the likeliest, and further ones drawn at the temperature with these seeds."""

    samples: int = 1
    temperature: float = 0.7
    seed: int = 0


def training_texts(path: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The training part of a config, of a run, or of all members of a lab: each text once, second ones of pairs too.

    Raises: UserError.
    """
    path = folders.existing(path).config if path.is_dir() else path
    raw = configs.read_toml(path, overrides)
    members = [raw] if "data" in raw else labs.load(path, tuple(overrides)).sections().values()
    sections = []
    for own in members:
        section = configs.validate(DataConfig, own.get("data", {}), str(path), "data")
        if is_paired(section) or section.source in SYNTHETIC + IMAGES:
            message = f"the source {section.source!r} has no texts that could be put in other words"
            raise UserError(message, f"{path}: data.source", "name a config with labelled texts")
        sections += [section] if section not in sections else []
    parts = [split_documents(configs.Experiment(section, {}))[0].train for section in sections]
    texts = [text for part in parts for d in part for text in (d.text, d.pair) if text is not None and text.strip()]
    return list(dict.fromkeys(texts))


def paraphrase(
    path: Path,
    overrides: Sequence[str],
    runs: tuple[Path, Path],
    out: Path,
    wanted: Wanted,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Writes `out`, as `augment.paraphrases` reads it, with what the translators of `runs`, there and back, make.

    A text that one of them would cut, and one that comes back with nothing changed but case and punctuation, has no line.
    Raises: UserError, having written nothing.
    """
    _refuse(runs, out, wanted)
    there, back = (translate.open_translator(root) for root in runs)
    texts = training_texts(path, overrides)
    short = [text for text, lost in zip(texts, translate.cut(there, texts), strict=True) if not lost]
    found: dict[str, list[str]] = {text: [] for text in short}
    for number in range(wanted.samples):
        for start in range(0, len(short), BLOCK):
            block = short[start : start + BLOCK]
            draws = [_draw(wanted, number, start, way) for way in (0, 1)]
            abroad = translate.say(there, block, draws[0])
            whole = [not lost and said.strip() for said, lost in zip(abroad, translate.cut(back, abroad), strict=True)]
            for text, other, good in zip(block, translate.say(back, abroad, draws[1]), whole, strict=True):
                if good and fold(other) not in {"", fold(text), *map(fold, found[text])}:
                    found[text].append(other)
            tell(f"Paraphrase {number + 1} of {wanted.samples}: {start + len(block)} of {len(short)} texts")
    made = {text: others for text, others in found.items() if others}
    if not made:
        raise UserError(
            f"none of {len(texts)} texts came back in other words; {len(texts) - len(short)} were too long",
            str(path),
            "use other translators, or --samples",
        )
    rows = [json.dumps({"text": text, "paraphrases": others}, ensure_ascii=False) for text, others in made.items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, "".join(f"{row}\n" for row in rows).encode())
    pairs = [(other, text) for text, others in made.items() for other in others]
    alike = overlap.chrf(overlap.chrf_counts(*zip(*pairs, strict=True)).sum(0, keepdims=True))
    return {
        "out": str(out), "texts": len(texts), "cut": len(texts) - len(short), "reworded": len(made),
        "paraphrases": len(pairs), "chrf": float(alike[0]), "there": str(runs[0]), "back": str(runs[1]),
        "examples": [{"text": text, "paraphrase": other} for other, text in pairs[:: -(-len(pairs) // SHOWN)]],
    }  # fmt: skip


def _draw(wanted: Wanted, number: int, start: int, way: int) -> Draw | None:
    """Of a block of texts: the likeliest ones first, then drawn, each sample, block and direction by a key of its own."""
    if number == 0:
        return None
    key = jax.random.key(wanted.seed)
    for part in (number, start, way):
        key = jax.random.fold_in(key, part)
    return Draw(wanted.temperature, key)


def _refuse(runs: tuple[Path, Path], out: Path, wanted: Wanted) -> None:
    if runs[0].resolve() == runs[1].resolve():
        raise UserError("there and back is the same run", "--there, --back", "name a translator for each direction")
    if out.exists():
        raise UserError("it is there already", f"--out {out}", "choose another file, or remove it")
    if not (wanted.temperature > 0.0 and np.isfinite(wanted.temperature)):
        raise UserError(f"expected a number above 0, got {wanted.temperature}", "--temperature", "for example 0.7")


def show(found: dict[str, Any]) -> None:
    """The counts and some examples, for a reader."""
    for row in found["examples"]:
        print(f"{row['text']}\n→ {row['paraphrase']}")
    print(f"{found['reworded']} of {found['texts']} texts have other words, {found['paraphrases']} paraphrases in all "
          f"(chrF to their texts {found['chrf']:.1f}); {found['cut']} were too long: {found['out']}")  # fmt: skip
