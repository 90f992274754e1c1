"""Round trips where the training text lacks what the text to encode has."""

import pytest

from minillm.data import tokenizer


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_space_survives_although_the_training_text_has_none(kind, byte_fallback, tmp_path):
    tokenizer.train(
        ["语言模型", "模型"], 12 + 256 * byte_fallback, kind, byte_fallback=byte_fallback, model_file=tmp_path / "m"
    )
    pieces = tokenizer.load(tmp_path / "m")
    for text in ("语言 模型", " ", "型  \n 模"):
        assert pieces.decode(pieces.encode(text)) == text
