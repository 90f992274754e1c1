"""Hugging Face tokenizers behind our interface: ids by hand, text there and back, special tokens out of a user's reach.

`test_parity_interop_tokenizer.py` compares their ids with those of transformers.
"""

import json

import pytest

from minillm.data import tokenizer
from minillm.errors import UserError
from minillm.interop.huggingface import pieces, vocabulary

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "cat",
    "##s",
    "sat",
    ".",
    "语",
    "言",
    "cafe",
    "[",
    "]",
    "sep",
]
TEXTS = ["The quick fox", "  Two  spaces é\tx\n", "语言 quux zzz @@@ 🤖", "", " ", "\n\n a\n", "naïve\nlanguage "]
CORPUS = [
    "The quick brown foxes jumped over the lazy dog. " * 3,
    "We teach language models.\nCafé déjà vu.",
    "语言模型 预测",
] * 20


def word_piece(folder, **notes):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf8")
    (folder / "tokenizer_config.json").write_text(json.dumps(notes))
    return vocabulary.load(folder, "bert", len(WORDS))


def byte_pairs(folder, merges=("t h", "th e", "Ġ the")):
    from tokenizers import pre_tokenizers

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate([*signs, *(m.replace(" ", "") for m in merges), "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return vocabulary.load(folder, "gpt2", len(vocab))


def sentence_piece(path, kind, **options):
    import sentencepiece

    with path.open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=model, model_type=kind, num_threads=1, minloglevel=2,
            hard_vocab_limit=False, **options,
        )  # fmt: skip


def t5_pieces(folder):
    sentence_piece(folder / "spiece.model", "unigram", vocab_size=60, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return vocabulary.load(folder, "t5", 300)


def test_word_pieces_by_hand(tmp_path):
    found = word_piece(tmp_path)
    assert found.encode("The cats sat.") == [5, 6, 7, 8, 9]  # lower case, longest match first
    assert found.encode("Café语言dog") == [12, 10, 11, 1]  # accents go, Chinese characters stand alone
    assert (found.pad, found.unk, found.bos, found.eos, found.mask) == (0, 1, 2, 3, 4)
    assert found.decode([2, 5, 6, 7, 9, 3, 0]) == "the cats."
    assert found.unknown("the?!") == "'!' '?'"
    assert found.pieces("cats") == ["cat", "##s"]
    assert word_piece(tmp_path, do_lower_case=False).encode("The cats") == [1, 6, 7]


def test_byte_pairs_by_hand(tmp_path):
    found = byte_pairs(tmp_path)
    assert found.encode("the the") == [257, 258]
    assert found.bos == found.eos == found.pad == 259
    assert found.unk is None
    for text in TEXTS:
        assert found.decode(found.encode(text)) == text
        assert found.unknown(text) == ""


def test_t5_sentinels_stand_above_its_pieces(tmp_path):
    found = t5_pieces(tmp_path)
    size = found.processor.model.vocab_size()
    assert found.processor.token_to_id("<extra_id_0>") == size + 99
    assert found.processor.token_to_id("<extra_id_99>") == size
    assert found.processor.token_to_id("<extra_id_100>") is None
    assert (found.pad, found.eos, found.unk, found.bos) == (0, 1, 2, 0)  # its decoder starts with <pad>
    assert found.decode([*found.encode("The quick fox"), size + 99, 1]) == "The quick fox"
    assert found.unknown("The @@ fox") == "'@@'"


def test_llama_pieces_with_bytes(tmp_path):
    sentence_piece(tmp_path / "tokenizer.model", "bpe", vocab_size=380, unk_id=0, bos_id=1, eos_id=2, byte_fallback=True,
                   normalization_rule_name="identity", remove_extra_whitespaces=False)  # fmt: skip
    found = vocabulary.load(tmp_path, "llama", 400)
    assert (found.vocabulary, found.unk, found.bos, found.eos, found.pad) == (400, 0, 1, 2, 2)
    for text in TEXTS:
        assert found.decode(found.encode(text)) == text


@pytest.mark.parametrize("make", [word_piece, byte_pairs, t5_pieces])
def test_what_a_user_types_is_text(make, tmp_path):
    """The names of special tokens in a text are characters: their ids never come out."""
    found = make(tmp_path)
    special = {found.pad, found.bos, found.eos, found.mask} - {found.unk, None}
    typed = "[CLS] [SEP] [MASK] <|endoftext|> <pad> </s> <extra_id_0>"
    assert not special & set(found.encode(typed))
    assert found.encode_many([typed, "the"]) == [found.encode(typed), found.encode("the")]


@pytest.mark.parametrize("make", [word_piece, byte_pairs])
def test_a_whole_file_is_the_same(make, tmp_path):
    """tokenizer.json stands before the others and gives the same ids; remembered truncation and padding do not count."""
    parts = make(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    parts.processor.enable_truncation(2)
    parts.processor.enable_padding(length=9)
    parts.processor.save(str(whole / "tokenizer.json"))
    parts.processor.no_truncation()
    parts.processor.no_padding()
    found = vocabulary.load(whole, "bert" if make is word_piece else "gpt2", parts.vocabulary)
    assert [found.encode(text) for text in TEXTS] == [parts.encode(text) for text in TEXTS]
    assert found[3:] == parts[3:]
    assert found.sha256 != parts.sha256


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_our_own_tokenizers_go_out_with_the_same_ids(kind, byte_fallback, tmp_path):
    file = tmp_path / "own.model"
    tokenizer.train(CORPUS, 300 if byte_fallback else 48, kind, byte_fallback=byte_fallback, model_file=file)
    ours = tokenizer.load(file)
    pieces.write(file, kind, pieces.Target("gpt", ours.vocabulary, 64), tmp_path)
    theirs = vocabulary.load(tmp_path, "llama", ours.vocabulary)
    assert (theirs.pad, theirs.unk, theirs.bos, theirs.eos) == (ours.pad, ours.unk, ours.bos, ours.eos)
    for text in (*TEXTS, *CORPUS[:3]):
        ids = ours.encode(text)
        assert theirs.encode(text) == ids
        if byte_fallback:
            assert theirs.decode(ids) == text


def test_mask_token_and_sentinels_go_out_behind_our_own_ids(tmp_path):
    """BERT's mask token is the last id, T5's first sentinel as well: what our objectives put there."""
    file = tmp_path / "own.model"
    tokenizer.train(CORPUS, 300, "bpe", model_file=file)
    pieces.write(file, "bpe", pieces.Target("bert", 301, 64), tmp_path)
    found = vocabulary.load(tmp_path, "bert", 301)
    assert (found.mask, found.bos, found.eos, found.pad) == (300, 2, 3, 0)
    assert found.encode("The <mask> fox") == tokenizer.load(file).encode("The <mask> fox")
    assert found.processor.encode("a", "b").type_ids[-1] == 1
    pieces.write(file, "bpe", pieces.Target("t5", 303, 64), tmp_path)
    found = vocabulary.load(tmp_path, "t5", 303)
    assert [found.processor.token_to_id(f"<extra_id_{i}>") for i in range(3)] == [302, 301, 300]
    ids = tokenizer.load(file).encode("The fox")
    assert found.processor.encode("The fox").ids == [*ids, found.eos]


DAMAGE = {
    "empty": (lambda f: (f / "vocab.txt").unlink(), "there is no tokenizer"),
    "one of two": (lambda f: ((f / "vocab.txt").unlink(), (f / "vocab.json").write_text("{}")), "there is no tokenizer"),
    "twice": (lambda f: (f / "vocab.txt").write_text("\n".join([*WORDS, "cat"])), "stands twice"),
    "no separator": (lambda f: (f / "vocab.txt").write_text("[CLS]\n[UNK]\n"), "sep_token = '[SEP]' is not in the vocabulary"),
    "too many": (lambda f: (f / "vocab.txt").write_text("\n".join([*WORDS, "more"])), "has 17 ids, the model's table 16 rows"),
    "bytes": (lambda f: (f / "vocab.txt").write_bytes(b"\xff\xfe\n"), "cannot be read"),
    "whole file cut": (lambda f: (f / "tokenizer.json").write_text('{"version"'), "cannot be read"),
    "notes cut": (lambda f: (f / "tokenizer_config.json").write_text("{"), "tokenizer_config.json: cannot be read as JSON"),
    "notes are a list": (lambda f: (f / "tokenizer_config.json").write_text("[1]"), "tokenizer_config.json: cannot be read"),
    "no token": (lambda f: (f / "tokenizer_config.json").write_text('{"mask_token": 5}'), "cannot be read"),
    "strange option": (lambda f: (f / "tokenizer_config.json").write_text('{"do_lower_case": "perhaps"}'), "cannot be read"),
    "not SentencePiece": (lambda f: ((f / "vocab.txt").unlink(), (f / "spiece.model").write_bytes(b"nothing")), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tokenizers_are_refused(damage, tmp_path):
    word_piece(tmp_path)
    change, words = DAMAGE[damage]
    change(tmp_path)
    with pytest.raises(UserError) as refused:
        vocabulary.load(tmp_path, "bert", len(WORDS))
    assert words in str(refused.value)


def test_word_pieces_say_where_they_stand_in_the_text_as_it_was(tmp_path):
    text = "Thé CATS, sat.语"
    ids, places = word_piece(tmp_path).encode_places(text)
    assert ids == word_piece(tmp_path).encode(text)
    assert [text[first:after] for first, after in places] == ["Thé", "CAT", "S", ",", "sat", ".", "语"]


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not say where its tokens stand"):
        t5_pieces(tmp_path).encode_places("the cat")
