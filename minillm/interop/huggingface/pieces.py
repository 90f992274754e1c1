"""Our own SentencePiece tokenizers, written as tokenizer.json for the `tokenizers` library.

The same ids for every text but two: a typed "▁", which we spell in bytes and the library takes for a space, and the
names of special and of byte tokens ("</s>", "<0x41>"), which are text to us. An unknown id decodes to another sign.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from minillm.data import tokenizer as data_tokenizer
from minillm.data.tokenizer import BOS, CONTROL, EOS, PAD, SPACE, UNK

MASK = "<mask>"
# kind of model -> how it frames one text, and two; as the objectives here do
FRAMES = {
    "bert": ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1"),
    "gpt": ("<s> $A", "<s> $A $B"),
    "t5": ("$A </s>", "$A </s> $B </s>"),
}


class Target(NamedTuple):
    """The model that the tokenizer goes with: its kind, the rows of its table, and the longest text."""

    kind: str
    vocabulary: int
    context: int


def write(model_file: Path, kind: str, target: Target, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `folder`.

    What the model's table has beyond the tokenizer's ids are BERT's mask token or T5's sentinels, the first the highest.

    Args:
        kind: "bpe", "unigram" or "char", as the tokenizer was trained.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors

    model = data_tokenizer.load(model_file).processor
    found = Tokenizer(_model(model, kind))
    found.normalizer = normalizers.Replace(" ", SPACE)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    found.decoder = decoders.Sequence(steps)
    extra = _extra(target, model.vocab_size())
    found.add_special_tokens([*CONTROL, *extra])
    found.add_tokens([AddedToken("\n", normalized=False, special=False)])
    single, pair = FRAMES[target.kind]
    special = [(CONTROL[i], i) for i in (BOS, EOS)]
    found.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    found.save(str(folder / "tokenizer.json"))
    notes = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": target.context,
        "clean_up_tokenization_spaces": False, "pad_token": CONTROL[PAD], "unk_token": CONTROL[UNK],
        "bos_token": CONTROL[BOS], "eos_token": CONTROL[EOS], "model_input_names": ["input_ids", "attention_mask"],
    }  # fmt: skip
    if target.kind == "bert":
        notes["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        notes |= {"cls_token": CONTROL[BOS], "sep_token": CONTROL[EOS]} | ({"mask_token": MASK} if extra else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf8")


def _extra(target: Target, pieces: int) -> list[str]:
    """Names of the ids behind the tokenizer's own."""
    count = target.vocabulary - pieces
    if target.kind == "bert" and count == 1:
        return [MASK]
    return [f"<extra_id_{number}>" for number in reversed(range(count))]


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
