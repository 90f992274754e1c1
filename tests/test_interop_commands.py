"""`minillm import hf` and `minillm export hf` as a user runs them: real processes, whole folders, one line where it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillm import params
from minillm.errors import UserError
from minillm.experiment import exchange
from minillm.interop import huggingface
from minillm.models import MODELS, bert, gpt, t5, vit
from minillm.sections.experiment import TuningConfig
from minillm.training import checkpoint, loop
from minillm.tuning import freeze, make_tuning

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]
SIZES = {"context": 16, "layers": 2, "width": 8, "heads": 2, "hidden": 12}


def random_params(kind, config):
    generator = np.random.default_rng(0)
    specs = MODELS[kind].param_specs(config)
    return params.unflatten({path: generator.normal(size=s.shape).astype(np.float32) for path, s in specs.items()})


def bytes_vocabulary():
    """The 256 signs that stand for bytes, and one merge."""
    from tokenizers import pre_tokenizers

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {sign: i for i, sign in enumerate([*signs, "th", "<|endoftext|>"])}


def make_gpt2(folder, **options):
    vocab = bytes_vocabulary()
    config = gpt.Config(vocabulary=len(vocab) + 2, **SIZES)
    folder.mkdir()
    ours = random_params("gpt", config)
    end = vocab["<|endoftext|>"]
    huggingface.write(folder, "gpt", config, ours, extra={"bos_token_id": end, "eos_token_id": end}, **options)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n")
    return ours


def make_bert(folder, tasks=("masked",)):
    config = bert.Config(vocabulary=len(WORDS), **SIZES, tasks=tasks)
    folder.mkdir()
    ours = random_params("bert", config)
    huggingface.write(folder, "bert", config, ours)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return ours


def minillm(*arguments, code=0):
    """The real command in a process of its own -> (stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "minillm.cli", *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""},
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_import_sample_and_export_by_command(tmp_path):
    make_gpt2(tmp_path / "gpt2")
    said = json.loads(minillm("import", "hf", tmp_path / "gpt2", tmp_path / "run", "--json")[0])
    assert said["kind"] == "gpt"
    assert said["architecture"] == "GPT2LMHeadModel"
    assert said["source_dtypes"] == {"float32": 28}
    said = json.loads(minillm("sample", tmp_path / "run", "--prompt", "the", "--tokens", 3, "--json")[0])
    assert [row["prompt"] for row in said] == ["the"]
    out, _ = minillm("export", "hf", tmp_path / "run", tmp_path / "out")
    assert "GPT2LMHeadModel" in out
    assert contents(tmp_path / "out") == contents(tmp_path / "gpt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2", "out", "run"]


def test_an_imported_gpt_goes_on_where_a_run_would(imported, tmp_path):
    """Sampling it is sampling its weights; its text is not known, so it is not evaluated; others do not write."""
    from minillm.config import SampleConfig
    from minillm.experiment.ask import reopen

    opened = reopen.open_run(imported)
    (row,) = reopen.sample(imported, SampleConfig(("the",), tokens=3, temperature=0.0))
    model, ids = exchange.open_model(imported), [opened.tokenizer.bos, *opened.tokenizer.encode("the")]
    weights = jax.tree.map(jnp.asarray, model.params)
    for _ in range(3):
        hidden = gpt.apply(weights, {"tokens": jnp.array([ids], jnp.int32)}, model.config).hidden
        ids.append(int(gpt.logits(weights, hidden)[0, -1].argmax()))
    assert opened.tokenizer.decode(ids) == f"the{row['text']}"
    with pytest.raises(UserError, match="huggingface"):
        reopen.evaluate(imported, "validation")
    make_bert(tmp_path / "bert")
    exchange.import_run(tmp_path / "bert", tmp_path / "other")
    with pytest.raises(UserError, match="an imported bert has no experiment"):
        reopen.sample(tmp_path / "other", SampleConfig(("the",)))


def test_a_damaged_model_leaves_no_run(tmp_path):
    make_bert(tmp_path / "bert")
    tensors = load_file(tmp_path / "bert/model.safetensors")
    tensors["bert.pooler.surprise"] = np.zeros(3, np.float32)
    save_file(tensors, tmp_path / "bert/model.safetensors")
    _, errors = minillm("import", "hf", tmp_path / "bert", tmp_path / "run", code=2)
    assert errors.startswith("minillm: ")
    assert errors.count("\n") == 1
    assert "bert.pooler.surprise" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["bert"]


@pytest.fixture
def imported(tmp_path):
    make_gpt2(tmp_path / "gpt2")
    exchange.import_run(tmp_path / "gpt2", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "vit"])
def test_every_kind_comes_and_goes(kind, tmp_path):
    source = tmp_path / "source"
    if kind == "bert":
        ours = make_bert(source, ("masked", "next_sentence"))
    elif kind == "gpt2":
        ours = make_gpt2(source)
    else:
        source.mkdir()
        config = t5.Config(vocabulary=300, **SIZES) if kind == "t5" else vit.Config(layers=1, width=8, heads=2)
        ours = random_params(kind, config)
        huggingface.write(source, kind, config, ours)
        if kind == "t5":
            sentence_piece(source / "spiece.model")
    exchange.import_run(source, tmp_path / "run")
    model = exchange.open_model(tmp_path / "run")
    assert model.step == 0
    assert all(np.array_equal(leaf, params.flatten(ours)[path]) for path, leaf in params.flatten(model.params).items())
    exchange.export_run(tmp_path / "run", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


def sentence_piece(path):
    import sentencepiece

    text = ["the cats sat on the mat .", "a cat and a hat that sat"] * 20
    with path.open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=model, vocab_size=30, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            num_threads=1, minloglevel=2, hard_vocab_limit=False,
        )  # fmt: skip


def test_the_type_of_the_source_is_remembered(tmp_path):
    make_gpt2(tmp_path / "half", dtype="float16")
    assert "float16" in exchange.import_run(tmp_path / "half", tmp_path / "run")["note"]
    wide, narrow = (exchange.export_run(tmp_path / "run", tmp_path / name, name) for name in ("float32", "float16"))
    assert "--dtype float16" in wide["note"]
    assert narrow["note"] == ""
    assert contents(tmp_path / "float16") == contents(tmp_path / "half")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "float32"))
    assert all(np.array_equal(before[name].astype(np.float32), after[name]) for name in before)


def test_changed_weights_are_exported(imported, tmp_path):
    """A checkpoint of a later step, as fine-tuning writes it, is what goes out."""
    tuned = params.unflatten(
        {path: leaf + 1 for path, leaf in params.flatten(exchange.open_model(imported).params).items()}
    )
    checkpoint.save(imported / "checkpoints", 7, {"trainable": tuned}, loop.Progress()._asdict())
    assert exchange.export_run(imported, tmp_path / "out")["step"] == 7
    found = huggingface.read(tmp_path / "out")
    assert np.array_equal(found.params["embedding"]["table"], tuned["embedding"]["table"])


def test_frozen_parameters_are_exported_too(imported, tmp_path):
    """Of a run that trains only a part, the other part lies in `frozen/`."""
    flat = params.flatten(exchange.open_model(imported).params)
    frozen = {path: leaf for path, leaf in flat.items() if path.startswith("position/")}
    trained = params.unflatten({path: leaf for path, leaf in flat.items() if path not in frozen})
    checkpoint.save(imported / "checkpoints", 1, {"trainable": trained}, loop.Progress()._asdict())
    with pytest.raises(UserError, match="position/table is not there"):
        exchange.open_model(imported)
    checkpoint.save(imported / "frozen", 0, params.unflatten(frozen), {})
    exchange.export_run(imported, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "gpt2")


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_low_rank_parts_are_merged_on_the_way_out(method, imported, tmp_path):
    """Of a run with LoRA, the trained rows and the frozen kernels go out as one kernel each."""
    section = TuningConfig(method, rank=3, alpha=6.0, **({"target_rank": 2.0} if method == "adalora" else {}))
    tuning = make_tuning(section, heads=(), steps=1)
    trainable, frozen, _ = tuning.init(exchange.open_model(imported).params, jax.random.key(0))
    trainable = jax.tree.map(lambda leaf: leaf + 0.5, trainable)
    checkpoint.save(imported / "checkpoints", 1, {"trainable": trainable}, loop.Progress()._asdict())
    checkpoint.save(imported / "frozen", 0, frozen, {})
    config = imported / "config.toml"
    with pytest.raises(UserError, match="is not one of a plain gpt"):
        exchange.export_run(imported, tmp_path / "out")
    config.write_text(
        config.read_text()
        + f"\n[tuning]\nmethod = '{method}'\nrank = 3\nalpha = 6.0\ntarget_rank = {section.target_rank}\n"
    )
    exchange.export_run(imported, tmp_path / "out")
    found, row = huggingface.read(tmp_path / "out"), "blocks/attention/value"
    rows, base = params.flatten(trainable), np.asarray(params.flatten(frozen)[f"{row}/kernel"])
    middle = rows.get(f"{row}/lora/values", np.ones((2, 3)))[:, None]
    expected = base + 2.0 * (np.asarray(rows[f"{row}/lora/down"]) * middle) @ np.asarray(rows[f"{row}/lora/up"])
    np.testing.assert_allclose(params.flatten(found.params)[f"{row}/kernel"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.params["embedding"]["table"], frozen["embedding"]["table"])


def test_stacks_that_freezing_split_go_out_whole(imported, tmp_path):
    weights, raised = exchange.open_model(imported).params, lambda leaf: leaf + 0.5
    trainable, frozen, _ = freeze(["final_norm/*"], 1).init(weights, None)
    checkpoint.save(
        imported / "checkpoints", 1, {"trainable": jax.tree.map(raised, trainable)}, loop.Progress()._asdict()
    )
    checkpoint.save(imported / "frozen", 0, frozen, {})
    config = imported / "config.toml"
    config.write_text(
        config.read_text() + "\n[tuning]\nmethod = 'freeze'\nfreeze_layers = 1\nfreeze = ['final_norm/*']\n"
    )
    found = params.flatten(exchange.open_model(imported).params)
    for path, before in params.flatten(weights).items():
        if path.startswith("blocks/"):
            before = np.concatenate([before[:1], before[1:] + np.float32(0.5)])
        np.testing.assert_array_equal(found[path], before, err_msg=path)


REFUSED = {
    "import into a run": (lambda r: exchange.import_run(r.parent / "gpt2", r), "not empty"),
    "import into a file": (lambda r: exchange.import_run(r.parent / "gpt2", r / "config.toml"), "a folder was expected"),
    "import nothing": (lambda r: exchange.import_run(r.parent / "nowhere", r.parent / "new"), "no such folder"),
    "import a file": (lambda r: exchange.import_run(r / "config.toml", r.parent / "new"), "a folder was expected"),
    "export into a full folder": (lambda r: exchange.export_run(r, r.parent / "gpt2"), "not empty"),
    "export no run": (lambda r: exchange.export_run(r.parent / "gpt2", r.parent / "new"), "not a run"),
    "export strange type": (lambda r: exchange.export_run(r, r.parent / "new", "int8"), "unknown type 'int8'"),
    "no tokenizer": (lambda r: ((r.parent / "gpt2/merges.txt").unlink(), exchange.import_run(r.parent / "gpt2", r.parent / "new")), "there is no tokenizer"),
    "checkpoint gone": (lambda r: ((r / "checkpoints").rename(r / "away"), exchange.export_run(r, r.parent / "new")), "no complete checkpoint"),
    "manifest gone": (lambda r: ((r / "manifest.json").unlink(), exchange.export_run(r, r.parent / "new")), "manifest.json"),
    "config cut": (lambda r: ((r / "config.toml").write_text("[model"), exchange.export_run(r, r.parent / "new")), "config.toml"),
    "other sizes": (lambda r: ((r / "config.toml").write_text('[model]\nkind = "gpt"\nlayers = 3\n'), exchange.export_run(r, r.parent / "new")), "the config wants"),
    "another model": (lambda r: ((r / "config.toml").write_text('[model]\nkind = "rnn"\n'), exchange.export_run(r, r.parent / "new")), "not one of a plain rnn"),
    "tokenizer changed": (lambda r: ((r / "tokenizer/merges.txt").write_text("#version: 0.2\n"), exchange.export_run(r, r.parent / "new")), "not the run's tokenizer"),
    "damaged weights": (lambda r: (next((r / "checkpoints/step_00000000/arrays").rglob("*.zarray")).write_text("{}"), exchange.export_run(r, r.parent / "new")), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_goes_wrong_is_said_and_leaves_nothing(case, imported):
    act, words = REFUSED[case]
    with pytest.raises(UserError) as refused:
        act(imported)
    assert words in str(refused.value)
    assert {path.name for path in imported.parent.iterdir()} == {"gpt2", "run"}


def test_a_run_of_our_own_is_exported_with_its_tokenizer(tmp_path, monkeypatch):
    """Trained by `minillm run`, read back: the same weights, the same ids for the same text."""
    from minillm import config as configs
    from minillm.experiment import run as runs
    from minillm.interop.huggingface import vocabulary

    monkeypatch.chdir(tmp_path)
    text = "".join(f"Sentence {i} says that {i * i} is a square.\n" for i in range(200))
    Path("text.txt").write_text(text)
    Path("c.toml").write_text(
        '[data]\nsource = "text"\npath = "text.txt"\n[tokenizer]\nvocabulary = 300\n[model]\ncontext = 32\nlayers = 1\nwidth = 32\n'
        'heads = 2\nnorm = "rms"\nposition = "rotary"\nactivation = "silu"\ngated = true\nbias = false\n[train]\nsteps = 2\n'
        "batch_size = 2\nevaluate_batches = 1\n[baselines]\norders = [1]\nxz = false\n"
    )
    runs.run(configs.load(Path("c.toml")), Path("run"), False, lambda text: None, lambda step, line: None)
    said = exchange.export_run(Path("run"), Path("out"))
    assert (said["architecture"], said["step"]) == ("LlamaForCausalLM", 2)
    ours = exchange.load_tokenizer(exchange.RunFolder(Path("run")))
    theirs = vocabulary.load(Path("out"), "llama", 300)
    for sample in (text[:500], "  Ünknown 语言\t\n\n x ", ""):
        assert theirs.encode(sample) == ours.encode(sample)
        assert theirs.decode(theirs.encode(sample)) == sample
    exchange.import_run(Path("out"), Path("again"))
    ours, again = exchange.open_model(Path("run")), exchange.open_model(Path("again"))
    assert vars(again.config) == vars(ours.config) | {"hidden": 128}
    assert all(
        np.array_equal(a, b)
        for a, b in zip(params.flatten(ours.params).values(), params.flatten(again.params).values(), strict=True)
    )
