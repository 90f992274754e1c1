"""Our own SentencePiece tokenizers, written as tokenizer.json for the `tokenizers` library.

The same ids for every text but two: a typed "▁", which we spell in bytes and the library takes for a space, and the
names of special and of byte tokens ("</s>", "<0x41>"), which are text to us. An unknown id decodes to another sign.
"""

import json
from pathlib import Path
from typing import Any

from minillm.data import tokenizer as data_tokenizer
from minillm.data.tokenizer import BOS, CONTROL, EOS, PAD, SPACE, UNK


def write(model_file: Path, kind: str, context: int, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `folder`.

    Args:
        kind: "bpe", "unigram" or "char", as the tokenizer was trained.
        context: the model's, in tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors

    model = data_tokenizer.load(model_file).processor
    found = Tokenizer(_model(model, kind))
    found.normalizer = normalizers.Replace(" ", SPACE)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    found.decoder = decoders.Sequence(steps)
    found.add_special_tokens(list(CONTROL))
    found.add_tokens([AddedToken("\n", normalized=False, special=False)])
    bos = CONTROL[BOS]
    found.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, BOS)]
    )
    found.save(str(folder / "tokenizer.json"))
    notes = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, "clean_up_tokenization_spaces": False,
        "pad_token": CONTROL[PAD], "unk_token": CONTROL[UNK], "bos_token": bos, "eos_token": CONTROL[EOS],
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf8")


def _model(model: Any, kind: str) -> Any:
    from tokenizers import models

    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    bytes_too = any(model.is_byte(i) for i in range(len(pieces)))
    if kind == "unigram":
        scores = [(piece, model.get_score(i)) for i, piece in enumerate(pieces)]
        return models.Unigram(scores, unk_id=UNK, byte_fallback=bytes_too)
    merges = [] if kind == "char" else _merges(model, pieces)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return models.BPE(vocab, merges, unk_token=CONTROL[UNK], fuse_unk=True, byte_fallback=bytes_too)


def _merges(model: Any, pieces: list[str]) -> list[tuple[str, str]]:
    """SentencePiece keeps what a merge makes, its score the merge's rank; the library wants the pairs that make it."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    made = [i for i in range(len(pieces)) if len(pieces[i]) > 1 and not model.is_byte(i) and not model.is_control(i)]
    merges = []
    for i in sorted(made, key=model.get_score, reverse=True):
        halves = ((pieces[i][:cut], pieces[i][cut:]) for cut in range(1, len(pieces[i])))
        merges += [pair for pair in halves if pair[0] in ids and pair[1] in ids and pieces[i] != CONTROL[UNK]]
    return merges
