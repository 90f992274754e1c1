"""Ids of our tokenizers against those of transformers, on tiny vocabularies made here."""

import json

import pytest
from test_interop_tokenizer import CORPUS, TEXTS, WORDS, byte_pairs, sentence_piece, t5_pieces, word_piece

from minillm.data import tokenizer
from minillm.interop.huggingface import pieces, vocabulary

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves


def theirs(folder, kind):
    """AutoTokenizer over the same files."""
    import transformers

    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def equal(ours, reference, texts=TEXTS):
    for text in (*texts, *CORPUS[:3]):
        assert ours.encode(text) == reference(text, add_special_tokens=False).input_ids, text


def test_word_piece(tmp_path):
    for notes in ({}, {"do_lower_case": False}, {"tokenize_chinese_chars": False}, {"strip_accents": False}):
        ours = word_piece(tmp_path, **notes)
        reference = theirs(tmp_path, "bert")
        equal(ours, reference, (*TEXTS, "The cats sat.", "Café语言dog"))
        assert [ours.bos, *ours.encode("the cats"), ours.eos] == reference("the cats").input_ids
        assert (
            ours.encode("a [SEP] b")
            == reference("a [SEP] b", add_special_tokens=False, split_special_tokens=True).input_ids
        )
        assert (ours.mask, ours.pad, ours.unk) == (
            reference.mask_token_id,
            reference.pad_token_id,
            reference.unk_token_id,
        )
        assert len(reference) == len(WORDS)


def test_byte_pairs(tmp_path):
    ours, reference = byte_pairs(tmp_path), theirs(tmp_path, "gpt2")
    equal(ours, reference, (*TEXTS, "the other the"))
    assert (ours.bos, ours.eos) == (reference.bos_token_id, reference.eos_token_id)
    assert ours.decode([257, 258, ours.eos]) == reference.decode([257, 258, ours.eos], skip_special_tokens=True)


def test_t5(tmp_path):
    ours, reference = t5_pieces(tmp_path), theirs(tmp_path, "t5")
    equal(ours, reference)
    assert len(reference) == ours.processor.get_vocab_size()
    for name in ("<extra_id_0>", "<extra_id_7>", "<extra_id_99>", "</s>", "<pad>", "<unk>"):
        assert ours.processor.token_to_id(name) == reference.convert_tokens_to_ids(name)
    assert [*ours.encode("The fox"), ours.eos] == reference("The fox").input_ids


def test_llama(tmp_path):
    sentence_piece(tmp_path / "tokenizer.model", "bpe", vocab_size=380, unk_id=0, bos_id=1, eos_id=2, byte_fallback=True,
                   normalization_rule_name="identity", remove_extra_whitespaces=False)  # fmt: skip
    equal(vocabulary.load(tmp_path, "llama", 400), theirs(tmp_path, "llama"))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_our_own_tokenizers_are_loaded_by_transformers(kind, tmp_path):
    """With bos before the text, as in training; the files themselves, read once more, agree as well."""
    file = tmp_path / "own.bin"
    tokenizer.train(CORPUS, 300, kind, model_file=file)
    ours = tokenizer.load(file)
    pieces.write(file, kind, pieces.Target("gpt", ours.vocabulary, 1000), tmp_path)
    for model in ("gpt2", "llama"):
        reference = theirs(tmp_path, model)
        equal(ours, reference)
        assert reference("The fox").input_ids == [ours.bos, *ours.encode("The fox")]
        assert reference.decode(ours.encode(TEXTS[1])) == TEXTS[1]
        assert (reference.eos_token_id, reference.pad_token_id, len(reference)) == (ours.eos, ours.pad, ours.vocabulary)


def test_our_own_bert_vocabulary_frames_and_masks(tmp_path):
    file = tmp_path / "own.bin"
    tokenizer.train(CORPUS, 300, "bpe", model_file=file)
    ours = tokenizer.load(file)
    pieces.write(file, "bpe", pieces.Target("bert", 301, 64), tmp_path)
    reference = theirs(tmp_path, "bert")
    found = reference("The fox", "the dog")
    first, second = ours.encode("The fox"), ours.encode("the dog")
    assert found.input_ids == [ours.bos, *first, ours.eos, *second, ours.eos]
    assert found.token_type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert (reference.mask_token_id, reference.cls_token_id, reference.sep_token_id) == (300, ours.bos, ours.eos)
