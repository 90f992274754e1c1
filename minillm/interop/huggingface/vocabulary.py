"""Hugging Face tokenizers behind the interface of `data/tokenizer.py`: WordPiece, byte-level BPE, SentencePiece.

    tokenizer.json              any of them, whole, for the `tokenizers` library
    vocab.txt                   BERT's WordPiece: Schuster and Nakajima 2012, longest match first
    vocab.json, merges.txt      GPT-2's BPE over bytes: Radford et al. 2019, section 2.2
    spiece.model                T5's SentencePiece; the sentinels <extra_id_0>, ... stand above its ids, the first highest
    tokenizer.model             Llama's SentencePiece

`encode` gives no special tokens, whatever a user types: "[SEP]" in a text is five characters.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minillm.errors import UserError

WHOLE = "tokenizer.json"
NOTES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
FILES = (WHOLE, "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model", *NOTES)  # all that is kept
AGAIN = "take the file as it was published"

# model_type -> role -> (key of tokenizer_config.json, its default)
SPECIAL = {
    "bert": {"pad": ("pad_token", "[PAD]"), "unk": ("unk_token", "[UNK]"), "bos": ("cls_token", "[CLS]"),
             "eos": ("sep_token", "[SEP]"), "mask": ("mask_token", "[MASK]")},
    "gpt2": {"pad": ("pad_token", None), "bos": ("bos_token", "<|endoftext|>"), "eos": ("eos_token", "<|endoftext|>")},
    "llama": {"pad": ("pad_token", None), "unk": ("unk_token", "<unk>"), "bos": ("bos_token", "<s>"),
              "eos": ("eos_token", "</s>")},
    "t5": {"pad": ("pad_token", "<pad>"), "unk": ("unk_token", "<unk>"), "bos": ("pad_token", "<pad>"),
           "eos": ("eos_token", "</s>")},
}  # fmt: skip


class Tokenizer(NamedTuple):
    """A vocabulary from elsewhere. `vocabulary` is the number of rows of the model's table, some of which may have no
    token; `pad` is eos where there is none; `unk` and `mask` may be None."""

    processor: Any  # a tokenizers.Tokenizer or `SentencePieces`
    sha256: str
    vocabulary: int
    pad: int
    bos: int
    eos: int
    unk: int | None
    mask: int | None

    def encode(self, text: str) -> list[int]:
        """Text -> ids, without special tokens."""
        return self.processor.encode(text, add_special_tokens=False).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Several texts at once."""
        return [found.ids for found in self.processor.encode_batch(list(texts), add_special_tokens=False)]

    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, for each the characters of the text that it stands for, [first, after the last)).

        Raises: UserError for a SentencePiece model, which may have changed the text before.
        """
        found = self.processor.encode(text, add_special_tokens=False)
        if isinstance(found, Encoded):
            raise UserError("this tokenizer does not say where its tokens stand", "base", "use a base with WordPiece")
        return found.ids, found.offsets

    def unknown(self, text: str) -> str:
        """The first few words or characters that have no id, quoted; empty where all have one."""
        found = self.processor.encode(text, add_special_tokens=False)
        own = isinstance(found, Encoded)  # SentencePiece gives an unknown piece as it stands in the text
        surface = found.tokens if own else [text[start:end] for start, end in found.offsets]
        strange = {piece for id, piece in zip(found.ids, surface, strict=True) if id == self.unk}
        return " ".join(map(repr, sorted(strange)[:5]))

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; special tokens vanish, and so do rows of the table without a token."""
        return self.processor.decode([int(i) for i in ids])

    def pieces(self, text: str) -> list[str]:
        """The pieces as strings, for a reader's eye."""
        return self.processor.encode(text, add_special_tokens=False).tokens


class Encoded(NamedTuple):
    """What `SentencePieces` gives, as the `tokenizers` library does."""

    ids: list[int]
    tokens: list[str]


class SentencePieces(NamedTuple):
    """A SentencePiece model that is asked as a tokenizers.Tokenizer is, with `sentinels` ids above its own."""

    model: Any
    sentinels: int = 0

    def encode(self, text: str, add_special_tokens: bool = False) -> Encoded:
        """Text -> ids and pieces."""
        return Encoded(self.model.encode(text), self.model.encode(text, out_type=str))

    def encode_batch(self, texts: list[str], add_special_tokens: bool = False) -> list[Encoded]:
        """Several texts at once."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: list[int]) -> str:
        """Ids -> text, without control symbols, sentinels and unknown ids."""
        known = (i for i in ids if 0 <= i < self.model.vocab_size())
        return self.model.decode([i for i in known if not self.model.is_control(i) and not self.model.is_unknown(i)])

    def token_to_id(self, token: str) -> int | None:
        """The id of a piece or sentinel, None where there is none."""
        sentinel = token.removeprefix("<extra_id_").removesuffix(">")
        if token == f"<extra_id_{sentinel}>" and sentinel.isdigit() and int(sentinel) < self.sentinels:
            return self.get_vocab_size() - 1 - int(sentinel)
        found = self.model.piece_to_id(token)
        return found if self.model.id_to_piece(found) == token else None

    def get_vocab_size(self) -> int:
        """Number of ids."""
        return self.model.vocab_size() + self.sentinels


def load(folder: Path, kind: str, vocabulary: int) -> Tokenizer:
    """The tokenizer of a folder, for a model of type `kind` (their model_type) with `vocabulary` rows in its table.

    Raises: UserError where there is none, where a file is damaged, or where it has more ids than the table rows.
    """
    notes = _read_notes(folder)
    processor = _processor(folder, notes)
    highest = (
        max(processor.get_vocab().values(), default=-1) + 1
        if hasattr(processor, "get_vocab")
        else processor.get_vocab_size()
    )
    if highest > vocabulary:
        raise UserError(f"the tokenizer has {highest} ids, the model's table {vocabulary} rows", str(folder),
                        "the files must be of one model")  # fmt: skip
    ids = {}
    for role, (key, default) in SPECIAL[kind].items():
        token = _content(notes.get(key) or default)
        if not isinstance(token, str | None):
            raise UserError(f"{key} is no token: {token!r}", str(folder), AGAIN)
        ids[role] = None if token is None else processor.token_to_id(token)
        if ids[role] is None and role in ("bos", "eos"):
            raise UserError(f"{key} = {token!r} is not in the vocabulary", str(folder), AGAIN)
    pad = ids["eos"] if ids.get("pad") is None else ids["pad"]
    return Tokenizer(processor, _hash(folder), vocabulary, pad, ids["bos"], ids["eos"], ids.get("unk"), ids.get("mask"))


def present(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def _processor(folder: Path, notes: dict) -> Any:
    import tokenizers

    there = {path.name for path in present(folder)}
    try:
        if WHOLE in there:
            processor = tokenizers.Tokenizer.from_file(str(folder / WHOLE))
        elif "vocab.txt" in there:
            processor = _word_piece(folder / "vocab.txt", notes)
        elif {"vocab.json", "merges.txt"} <= there:
            processor = _byte_pairs(folder, notes)
        elif names := sorted(there & {"spiece.model", "tokenizer.model"}):
            return _sentence_piece(folder / names[0], notes)
        else:
            raise UserError("there is no tokenizer", str(folder), f"one of {', '.join(FILES[:6])} must lie there")
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"the tokenizer cannot be read: {error}", str(folder), AGAIN) from None
    processor.no_truncation()  # such files remember the lengths of their last batch
    processor.no_padding()
    processor.encode_special_tokens = True  # as text
    return processor


def _word_piece(path: Path, notes: dict) -> Any:
    """BERT's: clean, (by default) lower case without accents, part at spaces, punctuation and Chinese characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    lines = path.read_text(encoding="utf8").split("\n")
    tokens = lines[:-1] if lines[-1] == "" else lines
    vocab = {token.removesuffix("\r"): number for number, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise UserError("a token stands twice in it", str(path), AGAIN)
    unk = _content(notes.get("unk_token", "[UNK]"))
    processor = Tokenizer(models.WordPiece(vocab, unk_token=unk))
    processor.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=notes.get("tokenize_chinese_chars", True),
        strip_accents=notes.get("strip_accents"), lowercase=notes.get("do_lower_case", True),
    )  # fmt: skip
    processor.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    processor.decoder = decoders.WordPiece(prefix="##")
    return _with_special(processor, notes, "bert")


def _byte_pairs(folder: Path, notes: dict) -> Any:
    """GPT-2's: words with the space before them, as bytes, merged in the order of the list."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    processor = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    processor.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=notes.get("add_prefix_space", False))
    processor.decoder = decoders.ByteLevel()
    return _with_special(processor, notes, "gpt2")


def _sentence_piece(path: Path, notes: dict) -> SentencePieces:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    return SentencePieces(model, int(notes.get("extra_ids", 100)) if path.name == "spiece.model" else 0)


def _with_special(processor: Any, notes: dict, kind: str) -> Any:
    """Tells it which tokens of its vocabulary are special, so that `decode` leaves them out."""
    tokens = [_content(notes.get(key) or default) for key, default in SPECIAL[kind].values()]
    processor.add_special_tokens([t for t in dict.fromkeys(tokens) if t and processor.token_to_id(t) is not None])
    return processor


def _content(token: Any) -> Any:
    return token.get("content", token) if isinstance(token, dict) else token


def _read_notes(folder: Path) -> dict[str, Any]:
    """special_tokens_map.json, and tokenizer_config.json over it."""
    notes: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                notes |= json.loads(path.read_text(encoding="utf8"))
            except (ValueError, TypeError) as error:
                raise UserError(f"cannot be read as JSON: {error}", str(path), AGAIN) from None
    return notes


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in present(folder):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()
