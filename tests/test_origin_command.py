"""`minillm origin` as a user runs it: imported runs, their copies, other models, and what it cannot compare."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from minillm import params
from minillm.data import tokenizer
from minillm.errors import UserError
from minillm.experiment import exchange
from minillm.experiment.ask import origin as origins
from minillm.interop import huggingface
from minillm.models import MODELS, bert, gpt, vit

SIZES = {"context": 16, "layers": 2, "width": 16, "heads": 2, "hidden": 24}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]
TEXTS = ["The cats sat.", "A dog barked at noon", "Nothing else happened here", "Rain, and then more rain"]


def random_params(kind, config, seed=0):
    return jax.tree.map(np.asarray, params.init_params(MODELS[kind].param_specs(config), jax.random.key(seed)))


def byte_vocabulary(merges=("t h",)):
    """The 256 signs that stand for bytes, and what the merges make."""
    from tokenizers import pre_tokenizers

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*signs, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    return {piece: number for number, piece in enumerate(pieces)}


def import_gpt(root, name, tree=None, merges=("t h",), seed=0):
    """A run made of GPT-2's files; tree: its parameters, else random ones."""
    vocabulary, source = byte_vocabulary(merges), root / f"{name}-source"
    config = gpt.Config(vocabulary=len(vocabulary), **SIZES)
    tree = random_params("gpt", config, seed) if tree is None else tree
    source.mkdir()
    end = vocabulary["<|endoftext|>"]
    huggingface.write(source, "gpt", config, tree, extra={"bos_token_id": end, "eos_token_id": end})
    (source / "vocab.json").write_text(json.dumps(vocabulary))
    (source / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    exchange.import_run(source, root / name)
    return root / name


def import_other(root, kind):
    source = root / f"{kind}-source"
    source.mkdir()
    if kind == "bert":
        config = bert.Config(vocabulary=len(WORDS), **SIZES, tasks=("masked",))
        (source / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    else:
        config = vit.Config(image=(4, 4), channels=1, patch=2, layers=1, width=8, heads=2, hidden=12)
    huggingface.write(source, kind, config, random_params(kind, config, seed=2))
    exchange.import_run(source, root / kind)
    return root / kind


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def original(runs):
    return import_gpt(runs, "original")


@pytest.fixture(scope="module")
def texts(runs):
    (runs / "texts.txt").write_text("\n\n".join(TEXTS) + "\n", encoding="utf8")
    return runs / "texts.txt"


def minillm(*arguments, code=0):
    command = [sys.executable, "-m", "minillm.cli", "origin", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""}, check=False, timeout=600
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_copy_is_found_out_and_all_is_said(runs, original, texts):
    copy = runs / "copy"
    shutil.copytree(original, copy)
    found = origins.compare(original, copy, texts)
    assert found["words"] == "the same weights"
    assert found["kinds"] == ["gpt", "gpt"]
    assert found["tokenizers"]["jaccard"] == found["tokenizers"]["same_id"] == 1.0
    assert found["outputs"]["texts"] == 4
    assert found["outputs"]["cka"] == pytest.approx(1.0)
    assert found["outputs"]["centred"] == pytest.approx(1.0)
    json.dumps(found)
    out, err = minillm(original, copy, "--texts", texts)
    assert out.startswith("the same weights: all 20 shared tensors are equal bit by bit")
    assert "blocks/attention/query/kernel" in out
    assert "258 and 258 pieces, 258 shared" in out
    assert "hidden states of 4 texts: linear CKA 1.000" in out
    assert not err


def test_a_rounded_copy_with_another_vocabulary(runs, original, texts):
    """Its pieces have other ids: rows of the embedding are compared by piece."""
    model = exchange.open_model(original)
    flat = {path: leaf.astype(np.float16).astype(np.float32) for path, leaf in params.flatten(model.params).items()}
    left, right = byte_vocabulary(), byte_vocabulary(("h e", "t h"))
    table = np.zeros((len(right), SIZES["width"]), np.float32)
    for piece, number in right.items():
        table[number] = flat["embedding/table"][left[piece]] if piece in left else 0.01
    other = import_gpt(runs, "rounded", params.unflatten(flat | {"embedding/table": table}), ("h e", "t h"))
    found = origins.compare(original, other, texts)
    assert found["words"] == "the same weights, rounded"
    assert (found["tokenizers"]["shared"], found["tokenizers"]["right"]) == (258, 259)
    assert found["tokenizers"]["same_id"] < 1.0
    total = sum(leaf.size for leaf in flat.values()) + SIZES["width"]
    assert found["parameters"]["compared"] == pytest.approx(1 - SIZES["width"] / total)


def test_other_models_are_unrelated_or_not_to_be_compared(runs, original):
    other = import_gpt(runs, "other", seed=1)
    found = origins.compare(original, other)
    assert found["words"] == "unrelated"
    assert found["outputs"]["texts"] > 20  # of the Python reference
    assert found["outputs"]["cka"] < 0.95
    assert found["outputs"]["centred"] < 0.3
    found = origins.compare(original, import_other(runs, "bert"))
    assert found["words"] == "unrelated"
    assert found["kinds"] == ["gpt", "bert"]
    assert found["tokenizers"]["jaccard"] < 0.1
    found = origins.compare(original, import_other(runs, "vit"))
    assert found["outputs"] is found["tokenizers"] is None


@pytest.mark.parametrize("kind", ["t5", "lstm"])
def test_hidden_states_of_other_kinds_with_our_own_tokenizer(kind, tmp_path):
    tokenizer.train(TEXTS * 20, 300, "bpe", model_file=tmp_path / "tokenizer.model")
    own = tokenizer.load(tmp_path / "tokenizer.model")
    pieces = origins.pieces_of(own)
    assert len(pieces) == own.vocabulary
    assert [pieces[number] for number in own.encode(TEXTS[0])] == own.pieces(TEXTS[0])
    sizes = {"t5": {**SIZES, "head": 8}, "lstm": {"layers": 1, "width": 8, "context": 16}}[kind]
    config = MODELS[kind].Config(vocabulary=own.vocabulary, **sizes)
    model = exchange.Trained(None, kind, config, random_params(kind, config), 0, {})
    states = origins.pooled_states(model, own, TEXTS * 6)
    assert states.shape == (24, config.width)
    np.testing.assert_allclose(states[:4], states[20:], atol=1e-5)  # whatever row of whatever batch


def test_mistakes_are_named(original, tmp_path):
    with pytest.raises(UserError, match="not a run"):
        origins.compare(original, tmp_path)
    (tmp_path / "one.txt").write_text("a single text\n")
    with pytest.raises(UserError, match="1 texts, at least two are needed"):
        origins.compare(original, original, tmp_path / "one.txt")
    _, err = minillm(original, original, "--texts", tmp_path / "none.txt", code=2)
    assert "no such file" in err
    assert err.count("\n") == 1
