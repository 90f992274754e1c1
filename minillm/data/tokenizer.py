"""SentencePiece tokenizers (Kudo and Richardson 2018) that round-trip exactly and train reproducibly.

SentencePiece's defaults change the text: NFKC, a space put in front, runs of spaces merged. A language model that is
scored on changed text is scored on an easier one. Here nothing is changed: `decode(encode(text)) == text`.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minillm.errors import UserError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
CONTROL = ("<pad>", "<unk>", "<s>", "</s>")
SPACE = "▁"  # SentencePiece's own sign for a space
LONGEST = 4000  # characters per training sentence; SentencePiece drops longer ones


class Tokenizer(NamedTuple):
    """A trained tokenizer. Control symbols never come out of `encode`, whatever a user types."""

    processor: Any
    sha256: str
    pad: int = PAD
    unk: int = UNK
    bos: int = BOS
    eos: int = EOS

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.processor.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Text -> ids, without bos and eos."""
        first, *rest = (self.processor.encode(part) for part in text.split(SPACE))
        return first + [id for ids in rest for id in (*self._space_ids(), *ids)]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Several texts at once."""
        return [self.encode(text) for text in texts]

    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, for each the characters of the text that it stands for, [first, after the last)); see `encode`.

        The bytes of one character share its place.
        """
        ids, places, after = [], [], 0
        for number, part in enumerate(text.split(SPACE)):
            if number:
                ids, places, after = ids + self._space_ids(), places + [(after, after + 1)] * 3, after + 1
            found = self.processor.encode(part)
            for id, piece in zip(found, self.processor.encode(part, out_type=str), strict=True):
                byte = int(piece[1:-1], 16) if self.processor.is_byte(id) else None
                if byte is not None and 0x80 <= byte < 0xC0:  # goes on with the character that began before
                    places.append((after - 1, after))
                    continue
                size = len(piece) if byte is None else 1
                places.append((after, after + size))
                after += size
            ids += found
        return ids, places

    def unknown(self, text: str) -> str:
        """The first few characters that have no id, quoted; empty where all have one."""
        strange = sorted(c for c in set(text) if self.unk in self.encode(c))
        return " ".join(map(repr, strange[:5]))

    def _space_ids(self) -> list[int]:
        """A typed "▁": SentencePiece writes spaces with it, so it is spelled in bytes; unknown without byte fallback."""
        return [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode("utf8")]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; control symbols vanish."""
        return self.processor.decode([int(i) for i in ids if int(i) not in (PAD, BOS, EOS)])

    def word_starts(self) -> list[bool]:
        """For each id, whether its piece begins a word: it begins with a space or is a line break."""
        pieces = (self.processor.id_to_piece(id) for id in range(self.vocabulary))
        return [piece.startswith((SPACE, "\n")) for piece in pieces]

    def pieces(self, text: str) -> list[str]:
        """The pieces as strings, for a reader's eye ("▁" stands for a space)."""
        return self.processor.encode(text, out_type=str)


def train(
    texts: Sequence[str], vocabulary: int, kind: str, *, byte_fallback: bool = True, symbols=(), model_file: Path
) -> None:
    """Trains on the texts and writes `model_file` atomically; the same texts give the same bytes.

    Args:
        vocabulary: number of ids, control symbols and the 256 bytes of `byte_fallback` included.
        symbols: strings that are one piece each, wherever they stand.
        kind: "bpe", "unigram" or "char" (whose vocabulary is smaller where the text has fewer characters).
    Raises: UserError where the vocabulary is larger or smaller than the text allows.
    """
    import io

    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_sentences(texts)), model_writer=model, vocab_size=vocabulary, model_type=kind,
            byte_fallback=byte_fallback, character_coverage=0.9995 if byte_fallback else 1.0,
            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
            user_defined_symbols=["\n", *symbols], required_chars=SPACE, pad_id=PAD, unk_id=UNK, bos_id=BOS, eos_id=EOS,
            num_threads=1, max_sentence_length=4 * LONGEST + 4, minloglevel=2, hard_vocab_limit=True,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise UserError(_explain(str(error), vocabulary), "tokenizer.vocabulary", _mend(str(error))) from None
    temporary = model_file.with_name(f".{model_file.name}.tmp")
    with temporary.open("wb") as handle:
        handle.write(model.getvalue())
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, model_file)


def load(model_file: Path) -> Tokenizer:
    """Reads a trained model. Raises: UserError where it is missing or damaged."""
    import sentencepiece

    try:
        data = model_file.read_bytes()
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        if processor.pad_id() != PAD or processor.eos_id() != EOS or not data:
            raise RuntimeError("other control symbols than <pad> <unk> <s> </s>")
    except FileNotFoundError:
        raise UserError("the tokenizer is missing", str(model_file), "run the experiment again") from None
    except (RuntimeError, OSError, ValueError) as error:
        message = f"not a SentencePiece model ({str(error).strip()[:80]})"
        raise UserError(
            message, str(model_file), "put the run's own file back, or run again with another --out"
        ) from None
    return Tokenizer(processor, hashlib.sha256(data).hexdigest())


def _sentences(texts: Sequence[str]) -> Iterable[str]:
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LONGEST):
                if line[start : start + LONGEST]:
                    yield line[start : start + LONGEST].replace("\0", " ").replace(SPACE, " ")


def _explain(message: str, vocabulary: int) -> str:
    largest = re.search(r"value <= (\d+)", message)
    if largest:
        return f"a vocabulary of {vocabulary} is larger than the text allows, at most {largest.group(1)}"
    smallest = re.search(r"smaller than required_chars.*?(\d+) vs (\d+)", message)
    if smallest:
        return f"a vocabulary of {vocabulary} is smaller than this text's {smallest.group(2)} necessary pieces"
    if "(vocab_size) >= (0)" in message:
        return f"a vocabulary of {vocabulary} has no room for characters: 256 bytes and the special pieces come first"
    return f"a vocabulary of {vocabulary} does not fit this text: {message.strip()[-160:]}"


def _mend(message: str) -> str:
    if "value <=" in message:
        return "set a smaller vocabulary"
    return "set a larger vocabulary" if "(vocab_size) >= (0)" in message else "set another vocabulary"
