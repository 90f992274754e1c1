"""`minillm origin`: shell or original? Tensors, tokenizers and hidden states of two runs, ours or imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from minillm.data import encoding, packages
from minillm.errors import UserError
from minillm.evaluation import agreement, origin
from minillm.experiment import exchange
from minillm.experiment.exchange import Trained
from minillm.inference.sentence import mean_pool
from minillm.models import MODELS
from minillm.models.contract import bind

TEXTS, CHARACTERS, LENGTH, ROWS = 100, 400, 128, 20  # texts, what is read of each, tokens of each, texts per pass


def compare(left: Path, right: Path, texts: Path | None = None) -> dict[str, Any]:
    """What two runs have in common, and a verdict from their parameters.

    Args:
        texts: a file with a text per line, on which hidden states are compared; None: the Python reference.
    Raises: UserError where one is no run, or the file has fewer than two texts.
    """
    lines = _read_texts(texts)
    models = [exchange.open_model(root) for root in (left, right)]
    tokenizers = [_tokenizer(model) for model in models]
    axes = {path: spec.axes for model in models for path, spec in MODELS[model.kind].param_specs(model.config).items()}
    heads = {getattr(model.config, "heads", None) for model in models}
    ids, overlap = None, None
    if all(tokenizers):
        pieces = [pieces_of(tokenizer) for tokenizer in tokenizers]
        overlap = agreement.piece_overlap(*pieces)
        if pieces[0] != pieces[1]:  # rows of the same piece belong together
            ids = agreement.shared_ids(*pieces)
    params = [model.params for model in models]
    found = origin.compare(*params, axes, heads.pop() if len(heads) == 1 else None, ids)
    verdict = found.pop("verdict")
    return {
        "left": str(left), "right": str(right), "kinds": [model.kind for model in models], **verdict,
        "parameters": found, "tokenizers": overlap, "outputs": _outputs(models, tokenizers, lines),
    }  # fmt: skip


def pieces_of(tokenizer: Any) -> list[str]:
    """The pieces of a tokenizer by id; a row of the model's table without one is an empty string."""
    processor = getattr(tokenizer.processor, "model", tokenizer.processor)
    if hasattr(processor, "id_to_piece"):  # SentencePiece, ours or wrapped
        return [processor.id_to_piece(number) for number in range(processor.vocab_size())]
    vocabulary = tokenizer.processor.get_vocab()
    found = [""] * (max(vocabulary.values()) + 1)
    for piece, number in vocabulary.items():
        found[number] = piece
    return found


def pooled_states(model: Trained, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """[texts, model]: the mean of the hidden states over each text's first tokens; an encoder-decoder's encoder."""
    module, bound = MODELS[model.kind], bind(MODELS[model.kind], model.config)
    length = min(model.config.context, LENGTH)
    first = [] if hasattr(module, "encode") else [tokenizer.bos]
    frames = [[*first, *ids[: length - 2], tokenizer.eos] for ids in tokenizer.encode_many(texts)]

    @jax.jit
    def pooled(params, tokens, mask):
        if hasattr(module, "encode"):
            source = module.embed(params, {"source": tokens}, model.config)["source"]
            hidden = module.encode(params["encoder"], source, mask, model.config)[0]
        else:
            hidden = bound.apply(params, {"tokens": tokens, "mask": mask}).hidden
        return mean_pool(hidden, mask, unit=False)

    found = []
    for start in range(0, len(frames), ROWS):
        tokens = np.full((ROWS, length), tokenizer.pad, np.int32)
        mask = np.zeros((ROWS, length), bool)
        mask[:, 0] = True  # rows that fill the batch up have a token too
        part = frames[start : start + ROWS]
        for row, ids in enumerate(part):
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
        found.append(np.asarray(pooled(model.params, jnp.asarray(tokens), jnp.asarray(mask)))[: len(part)])
    return np.concatenate(found)


def show(found: dict[str, Any]) -> None:
    """The verdict, what it rests on, and a row per shared matrix."""
    console, plain = Console(), {"highlight": False, "soft_wrap": True}
    console.print(f"[bold]{found['words']}[/bold]: {found['reason']}", **plain)
    parameters, outputs, pieces = (found[key] for key in ("parameters", "outputs", "tokenizers"))
    facts = [f"{parameters['compared']:.1%} of the numbers of {found['right']} have the same place and shape in "
             f"{found['left']}; {parameters['equal_tensors']:.0%} of those tensors are equal bit by bit"]  # fmt: skip
    for key, what in (("only_left", "only in the first"), ("only_right", "only in the second"),
                      ("other_shape", "of another shape")):  # fmt: skip
        if parameters[key]:
            facts.append(f"{what}: {', '.join(parameters[key])}")
    if parameters["spectrum"]:
        spectrum = parameters["spectrum"]
        facts.append(f"singular values differ by {spectrum['difference']:.1e}, by chance {spectrum['by_chance']:.1e}")
    if pieces:
        facts.append(f"tokenizers: {pieces['left']:,} and {pieces['right']:,} pieces, {pieces['shared']:,} shared "
                     f"({pieces['jaccard']:.1%} of all), {pieces['same_id']:.1%} of these under the same id")  # fmt: skip
    if outputs:
        facts.append(f"hidden states of {outputs['texts']} texts: linear CKA {outputs['cka']:.3f} "
                     f"(texts shuffled {outputs['shuffled']:.3f})")  # fmt: skip
        if "centred" in outputs:
            facts[-1] += f", cosine {outputs['same']:.3f} (other texts {outputs['other']:.3f})"
    for fact in facts:
        console.print(fact, markup=False, **plain)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("matrix", "cosine", "difference", "reordered", ""):
        table.add_column(title, justify="left" if title in ("matrix", "") else "right", no_wrap=True)
    for row in parameters["rows"]:
        if row["matrix"]:
            numbers = [f"{row[key]:.4f}" for key in ("cosine", "difference", "aligned_cosine")]
            table.add_row(row["path"], *numbers, _remark(row))
    console.print(table)
    console.print("difference: |a - b| / sqrt(|a| |b|); reordered: the cosine with heads and units in their best order;\n"
                  "biases and scales are in --json and prove nothing", **plain)  # fmt: skip


def _remark(row: dict[str, Any]) -> str:
    if row["equal"] or row["rounded"]:
        return "equal" if row["equal"] else "rounded"
    return "" if row["rank"] is None else f"by rank {row['rank']}"


def _outputs(models: list[Trained], tokenizers: list[Any], texts: list[str]) -> dict[str, float] | None:
    """None where a model reads no text. Vectors of another width have no cosine."""
    if not all(tokenizers):
        return None
    states = [pooled_states(*pair, texts) for pair in zip(models, tokenizers, strict=True)]
    found = {"texts": len(texts), **agreement.linear_cka(*states)}
    return found | (agreement.pooled_cosine(*states) if states[0].shape == states[1].shape else {})


def _tokenizer(model: Trained) -> Any:
    """None for a model of images or of made-up symbols."""
    there = model.folder.tokenizer.exists() or model.manifest.get("imported") is not None
    return exchange.load_tokenizer(model.folder) if there and model.kind not in exchange.WITHOUT_TOKENIZER else None


def _read_texts(path: Path | None) -> list[str]:
    if path is None:
        return [" ".join(text.split())[:CHARACTERS] for _, text, *_ in packages.python_docs()][:TEXTS]
    texts = [line.strip() for line in encoding.read_text(path).splitlines() if line.strip()]
    if len(texts) < 2:
        message = f"{len(texts)} texts, at least two are needed"
        raise UserError(message, str(path), "write a text on each line")
    return texts
