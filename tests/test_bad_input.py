"""What a user gets wrong: one line that says what, where and how to mend, exit code 2, and nothing half-written."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_labelled import PRETRAIN, based, config, reviews, silent

from minillm.errors import UserError
from minillm.experiment import folder as folders
from minillm.training import checkpoint

ROOT = Path(__file__).parents[1]
COPY = str(ROOT / "configs/copy.toml")
TEXT = """
name = "text"
[data]
source = "text"
path = "text.txt"
[tokenizer]
vocabulary = 300
[model]
context = 32
layers = 1
width = 32
heads = 2
[train]
steps = 4
batch_size = 2
evaluate_every = 2
[baselines]
orders = [1]
xz = false
"""

# setting over configs/copy.toml -> words that the one line must hold
SETTINGS = {
    "trian.steps=3": "trian", "train.step=3": "did you mean 'steps'", "train.steps='10'": "train.steps", "train.steps=0": "steps",
    "train.steps=-4": "steps", "train.steps=1.5": "--set train.steps=1.5: it should be", "train.batch_size=0": "batch_size", "train.shards=3": "shards",
    "train.seed=-1": "seed", "train.keep_last=0": "keep_last", "train.patience=0": "patience", "train.log_every=0": "log_every",
    "train.hash_every=-1": "hash_every", "model.heads=3": "heads must divide width", "model.heads=0": "at least 1",
    "model.kind='lstmm'": "unknown model", "model.kind='bert'": "from left to right", "model.vocabulary=5": "tokenizer", "model.dropout=1.0": "dropout",
    "model.dropout=nan": "model.dropout", "model.norm='batch'": "model.norm", "model.hidden=0": "hidden", "model.layers=0": "at least 1",
    "model.norm_epsilon=0.0": "norm_epsilon", "model.width=4": "rotary", "model.contxt=8": "did you mean 'context'", "model.kind='lstm'": "lstm has no such key",
    "optimizer.learning_rate=0.0": "learning_rate", "optimizer.learning_rate=nan": "learning_rate",
    "optimizer.learning_rate=inf": "learning_rate", "optimizer.learning_rate=-1.0": "learning_rate", "optimizer.name='lion'": "optimizer.name",
    "optimizer.beta1=1.0": "beta1", "optimizer.clip_norm=0.0": "clip_norm", "optimizer.warmup_steps=-1": "warmup_steps",
    "optimizer.final_ratio=2.0": "final_ratio", "optimizer.name='sgd'": "weight_decay says nothing to the optimizer 'sgd'", "mesh.data=64": "devices", "mesh.model=0": "mesh", "mesh.rules='zero'": "mesh.rules",
    "data.source='nowhere'": "known sources", "data.source='text'": "symbols says nothing", "data.validation=0.0": "validation",
    "data.validation=1.0": "validation", "data.packing='tight'": "data.packing", "data.length=0": "length",
    "data.length=99": "copy_length", "data.symbols=3": "symbols", "sample.top_k=3000000000": "top_k",
    "sample.seed=-1": "seed", "model.context=4": "context",
    "tokenizer.vocabulary=3": "vocabulary", "tokenizer.kind='word'": "tokenizer.kind", "sample.temperature=-1.0": "temperature",
    "sample.top_p=0.0": "top_p", "sample.top_k=0": "top_k", "sample.tokens=0": "tokens", "objective.label_smoothing=1.0": "label_smoothing",
    "objective.name='masked'": "masked-LM head", "tuning.freeze=['embedding/*']": "freeze says nothing to the method 'full'",
    "tuning.method='freeze'": "tuning.freeze", "tuning.rank=0": "rank must be at least 1", "tuning.rank=4": "rank says nothing to the method 'full'", "baselines.orders=[0]": "orders",
    "train.steps": "section.key=value", "name.x=1": "name", "name='a/b'": "one folder's name",
}  # fmt: skip

PROSE = "".join(f"Sentence {i} says that the number {i * i} is a square.\n" for i in range(200)).encode()

# name -> content of text.txt, settings, words
CORPORA = {
    "missing": (None, [], "no such file"), "empty": (b"", [], "empty"), "binary": (b"ab\0cd" * 99, [], "offset 2"),
    "latin": ("caf\u00e9 ".encode("latin-1") * 99, [], "byte 0xe9 at offset 3"), "short": (b"abc", [], "too"),
    "blank": (b" \n\n ", [], "no text"), "large vocabulary": (PROSE, ["tokenizer.vocabulary=9000"], "larger than the text allows"),
    "small vocabulary": (PROSE, ["tokenizer.vocabulary=100"], "smaller than"),
    "length": (PROSE, ["data.limit=300", "model.context=512", "tokenizer.vocabulary=290"], "one example needs 513"),
    "long prompt": (PROSE, [f"sample.prompts=['{'word ' * 99}']"], "shorten it"),
    "unknown text": (PROSE + "é".encode() * 60, ["tokenizer.byte_fallback=false", "tokenizer.kind=char", "tokenizer.vocabulary=60"], "does not know: 'é'"),
    "no label": (PROSE, ["data.source=lines", "data.labels=['a','b']"], "line 1: no colon in 'Sentence 0"),
    "unknown label": (b"x:a\ny:b\nz:c\n", ["data.source=lines", "data.labels=['a','b']"], "line 3: unknown class 'c'"),
    "mixed encodings": ("\u597d:a\n\u574f:b\n".encode() + "\u5f88\u597d:a\n".encode("gb18030"), ["data.source=lines", "data.labels=['a','b']"], "1 of 4 lines are not, 2 others are: mixed encodings"),
    "unknown prompt": (PROSE, ["tokenizer.byte_fallback=false", "tokenizer.vocabulary=100", "sample.prompts=['é']"], "does not know 'é'"),
}  # fmt: skip


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs `minillm ...` in this process -> (exit code, stderr)."""
    from minillm import cli

    def run(*arguments):
        for module in (cli.runs, cli.labs, cli.exchange, cli.lessons):
            monkeypatch.setattr(module, "prepare", lambda: None)
        monkeypatch.setattr(sys, "argv", ["minillm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A finished text run of four steps in tmp_path/run; the working folder is tmp_path."""
    from minillm import config as configs
    from minillm.experiment import run as runs

    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_bytes(PROSE)
    Path("c.toml").write_text(TEXT, encoding="utf8")
    runs.run(configs.load(Path("c.toml")), Path("run"), False, lambda text: None, lambda step, line: None)
    return tmp_path / "run"


def one_line(errors: str, words: str) -> None:
    assert errors.startswith("minillm: "), errors
    assert errors.count("\n") == 1, errors
    assert words in errors, errors


@pytest.mark.parametrize("setting", SETTINGS)
def test_bad_settings_leave_nothing(setting, command, tmp_path):
    code, errors = command("run", COPY, "--set", setting, "--out", tmp_path / "r")
    one_line(errors, SETTINGS[setting])
    assert code == 2
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", CORPORA)
def test_bad_corpora_leave_nothing(kind, command, tmp_path, monkeypatch):
    content, settings, words = CORPORA[kind]
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("text.txt").write_bytes(content)
    Path("c.toml").write_text(TEXT, encoding="utf8")
    code, errors = command("run", "c.toml", "--out", "r", *(part for s in settings for part in ("--set", s)))
    one_line(errors, words)
    assert code == 2
    assert not Path("r").exists()


@pytest.mark.parametrize(("name", "content", "words"), [
    ("none.toml", None, "no such config"), ("broken.toml", b"[data\n", "TOML"), ("bytes.toml", b"\xff\xfe", "TOML"),
    ("empty.toml", b"", "missing"), ("list.toml", b"data = [1]", "data"),
])  # fmt: skip
def test_bad_configs(name, content, words, command, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, errors = command("run", tmp_path / name, "--out", tmp_path / "r")
    one_line(errors, words)
    assert code == 2
    assert not (tmp_path / "r").exists()


# what is done to a finished run -> (damage, command, words)
DAMAGE = {
    "tokenizer cut": (lambda r: _cut(r / "tokenizer.model"), ["sample", "run"], "tokenizer.model"),
    "tokenizer gone": (lambda r: (r / "tokenizer.model").unlink(), ["sample", "run"], "tokenizer is missing"),
    "tokenizer swapped": (lambda r: _another(r / "tokenizer.model"), ["sample", "run"], "not the run's tokenizer"),
    "manifest gone": (lambda r: (r / "manifest.json").unlink(), ["sample", "run"], "manifest.json"),
    "config cut": (lambda r: (r / "config.toml").write_text("[data\n"), ["eval", "run"], "config.toml"),
    "text changed": (lambda r: Path("text.txt").write_bytes(PROSE + b"more"), ["eval", "run"], "text differs"),
    "text gone": (lambda r: Path("text.txt").unlink(), ["eval", "run"], "no such file"),
    "no checkpoint": (lambda r: (r / "checkpoints").rename("away"), ["sample", "run"], "no complete checkpoint"),
    "not a run": (lambda r: None, ["sample", "."], "not a run"),
    "no folder": (lambda r: None, ["verify", "nowhere"], "not a run"),
    "no summary": (lambda r: (r / "summary.json").unlink(), ["compare", "run"], "summary.json"),
    "summary cut": (lambda r: _cut(r / "summary.json"), ["compare", "run"], "not JSON"),
    "log gone": (lambda r: (r / "provenance.jsonl").unlink(), ["verify", "run"], "provenance.jsonl"),
    "empty split": (lambda r: None, ["eval", "run", "--split", "test"], "data.test"),
    "huge seed": (lambda r: None, ["sample", "run", "--seed", str(2**40)], "seed"),
    "surrogate": (lambda r: None, ["sample", "run", "--prompt", "\udcff"], "UTF-8"),
    "metrics cut": (lambda r: (r / "metrics.jsonl").write_text("{broken\n"), ["compare", "run"], "metrics.jsonl"),
    "summary of another": (lambda r: (r / "summary.json").write_text("{}"), ["compare", "run"], "not a run's summary"),
    "no such split": (lambda r: None, ["eval", "run", "--split", "train"], "validation or test"),
    "long prompt": (lambda r: None, ["sample", "run", "--prompt", "word " * 99], "shorten it"),
    "many tokens": (lambda r: None, ["sample", "run", "--tokens", "99"], "do not fit"),
    "run exists": (lambda r: None, ["run", "c.toml", "--out", "run"], "--resume"),
    "changed config": (lambda r: None, ["run", "c.toml", "--out", "run", "--resume", "--set", "model.heads=4"], "model.heads"),
    "fewer steps than done": (lambda r: None, ["run", "c.toml", "--out", "run", "--resume", "--set", "train.steps=2"], "4 steps already"),
    "unknown source": (lambda r: None, ["fetch", "nowhere"], "known sources"),
    "branch of nothing": (lambda r: None, ["branch", "nowhere", "--at", "2"], "no such folder"),
    "branch without a checkpoint": (lambda r: None, ["branch", "run", "--at", "3"], "no checkpoint of step 3; there are: 2, 4"),
    "branch with nothing to do": (lambda r: None, ["branch", "run", "--at", "4"], "nothing is left to train"),
    "branch with another model": (lambda r: None, ["branch", "run", "--at", "2", "--set", "model.width=64"], "cannot change model.width"),
    "branch into its trunk": (lambda r: None, ["branch", "run", "--at", "2", "--out", "run"], "holds a run already"),
}  # fmt: skip


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _another(path: Path) -> None:
    from minillm.data import tokenizer

    tokenizer.train([PROSE.decode()], 310, "bpe", model_file=path)


def test_damaged_runs_and_wrong_commands(trained, command):
    shutil.copytree(trained, "whole")
    for kind, (damage, arguments, words) in DAMAGE.items():
        damage(trained)
        code, errors = command(*arguments)
        assert code == 2, kind
        one_line(errors, words)
        shutil.rmtree(trained)
        shutil.copytree("whole", trained)
        Path("text.txt").write_bytes(PROSE)


# wrong uses of labelled runs -> (command, words); "full" has trained every weight, "lora" a part on the base "full/pretrain"
LABELLED = {
    "no run": (["predict", "nowhere", "--text", "a"], "not a run"),
    "no labels": (["predict", "full/pretrain", "--text", "a"], "labels no texts"),
    "nothing to label": (["predict", "full"], "there is no text"),
    "strength of no attack": (["eval", "full", "--strength", "1"], "--strength: there is no attack"),
    "an attack of nothing": (["eval", "full", "--attack", "fgm", "--strength", "0"], "nothing is attacked"),
    "empty text": (["predict", "full", "--text", "a", "--text", " "], "text 2: the text is empty"),
    "no file": (["predict", "full", "--file", "none.txt"], "no such file -> mend its path"),
    "binary file": (["predict", "full", "--file", "binary"], "a binary file (zero byte at offset 2)"),
    "folder for a file": (["predict", "full", "--file", "full"], "Is a directory"),
    "adapter of another base": (["predict", "lora", "--text", "a", "--adapter", "other.safetensors"], "another base"),
    "adapter cut": (["predict", "lora", "--text", "a", "--adapter", "cut.safetensors"], "cannot be read as safetensors"),
    "adapter gone": (["predict", "lora", "--text", "a", "--adapter", "none"], "there is no such file"),
    "folder for an adapter": (["predict", "lora", "--text", "a", "--adapter", "full"], "this is a folder"),
    "adapter on the base itself": (["predict", "full/pretrain", "--text", "a", "--adapter", "a.safetensors"], "holds no base"),
    "nothing frozen": (["adapter", "full", "x.safetensors"], "every parameter was trained"),
    "adapter into no folder": (["adapter", "lora", "nowhere/x.safetensors"], "No such file or directory"),
    "adapter below a file": (["adapter", "lora", "reviews.txt/x"], "Not a directory"),
    "grid without values": (["sweep", "c.toml", "--grid", "train.steps="], "expected section.key=value"),
    "grid of seeds": (["sweep", "c.toml", "--grid", "train.seed=1,2"], "name them with --seeds"),
    "grid with a wrong value": (["sweep", "staged.toml", "--grid", "tuning.method=lora,lorra"], "got 'lorra'"),
    "grid with a rank too high": (["sweep", "staged.toml", "--set", "tuning.method=lora", "--grid", "tuning.rank=8,17"], "no rank of 17"),
    "no seeds": (["sweep", "c.toml", "--grid", "train.steps=1", "--seeds", "0,x"], "expected numbers with commas"),
    "sweep into a run": (["sweep", "c.toml", "--grid", "train.steps=1", "--out", "full"], "the folder of a run"),
    "sweep into a file": (["sweep", "c.toml", "--grid", "train.steps=1", "--out", "c.toml"], "this is a file"),
    "range in a grid": (["sweep", "c.toml", "--grid", "optimizer.learning_rate=1e-4..1e-2:log"], "draw points from it with --random"),
    "no range": (["sweep", "c.toml", "--random", "2"], "no key varies"),
    "empty range": (["sweep", "c.toml", "--grid", "train.steps=3..2", "--random", "2"], "no numbers in it"),
    "too few points": (["sweep", "c.toml", "--grid", "train.steps=2..3", "--random", "4"], "2 different ones were found -> ask for 2"),
    "too few cores": (["sweep", "c.toml", "--grid", "train.steps=1,2", "--parallel", "999"], "999 runs at once"),
    "tracking without a project": (["run", "c.toml", "--set", "tracking.wandb=''"], "wandb names a project"),
    "lab: task without labels": (["lab", "m.toml", "--set", "tasks.t.data.labels=[]"], "classify needs the classes"),
    "lab: unknown method": (["lab", "m.toml", "--set", "methods.m.tuning.method=lorra"], "got 'lorra'"),
    "lab: no such kernel": (["lab", "m.toml", "--set", "methods.m.tuning.targets=['x']"], "matches no kernel"),
    "lab: unknown base": (["lab", "m.toml", "--set", "shared.base.run=@none"], "the lab's bases are staged"),
    "images have no words": (["run", "vit.toml", "--set", "pretrain.objective.name=masked"], "vit is none"),
    "rows that the run has not": (["run", "staged.toml", "--set", "pretrain.tuning.method=adapter"], "pretrain: tuning.method"),
    "tags of whole texts": (["run", "staged.toml", "--set", "objective.name=tag"], "cannot learn from the source 'lines'"),
    "tokenizer of its own": (["run", "staged.toml", "--set", "base.run=full"], "the base brings its tokenizer"),
}  # fmt: skip
LAB = """
name = "m"
seeds = [0]
[bases.staged]
data = { source = "lines", path = "reviews.txt", labels = ["neg", "pos"] }
model = { kind = "bert", context = 16, layers = 1, width = 16, heads = 2 }
objective = { name = "masked" }
[shared]
base = { run = "@staged" }
[tasks.t]
data = { source = "lines", path = "reviews.txt", labels = ["neg", "pos"] }
objective = { name = "classify" }
[methods.m]
tuning = { method = "lora" }
"""
VIT = '[data]\nsource = "digits"\n[model]\nkind = "vit"\n[objective]\nname = "classify"\n[pretrain]\nobjective = { name = "masked_patches" }\n'


def test_wrong_uses_of_labelled_runs_leave_nothing(tmp_path, monkeypatch, command):
    from minillm.experiment import adapters
    from minillm.experiment import base as bases
    from minillm.experiment import run as runs

    monkeypatch.chdir(tmp_path)
    Path("reviews.txt").write_text(reviews(60))
    Path("c.toml").write_text(config(tmp_path / "reviews.txt", steps=1))
    Path("staged.toml").write_text(config(tmp_path / "reviews.txt", steps=1) + PRETRAIN)
    Path("based.toml").write_text(based(tmp_path / "reviews.txt", tmp_path / "full/pretrain"))
    Path("m.toml").write_text(LAB)
    Path("vit.toml").write_text(VIT)
    Path("binary").write_bytes(b"ab\0cd")
    for name, file, sets in (("full", "staged", []), ("lora", "based", ["tuning.method=lora", "train.steps=1"]),
                             ("other", "c", ["tuning.method=lora", "train.seed=5"])):  # fmt: skip
        runs.run(bases.load(Path(f"{file}.toml"), sets), Path(name), False, silent, silent)
    adapters.save(Path("lora"), Path("a.safetensors"))
    adapters.save(Path("other"), Path("other.safetensors"))
    shutil.copy("a.safetensors", "cut.safetensors")
    _cut(Path("cut.safetensors"))
    before = sorted(tmp_path.rglob("*"))
    for kind, (arguments, words) in LABELLED.items():
        code, errors = command(*arguments)
        assert code == 2, kind
        one_line(errors, words)
        assert sorted(tmp_path.rglob("*")) == before, kind


@pytest.mark.parametrize(
    "option", [["--tokens", "0"], ["--temperature", "-1"], ["--top-p", "2"], ["--top-k", "0"], ["--x", "1"]]
)
def test_bad_options(option, command):
    assert command("sample", "run", *option)[0] == 2


def test_ctrl_c_before_or_after_training_says_how_to_go_on(command, tmp_path, monkeypatch):
    from minillm.commands.shared import SAID
    from minillm.experiment import run as runs

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", interrupted)
    code, errors = command("run", COPY, "--set", "train.steps=3", "--out", tmp_path / "r")
    SAID.clear()
    one_line(errors, f"go on with: minillm run {COPY} --set train.steps=3 --out {tmp_path / 'r'} --resume")
    assert code == 130


def test_a_misspelt_model_is_told_from_a_run(command, tmp_path):
    (tmp_path / "passages.txt").write_text("a\n")
    code, errors = command("search", "minilm-brt", "--file", tmp_path / "passages.txt", "--query", "a")
    one_line(errors, "did you mean minilm-bert? It is a model of `minillm fetch`")
    assert code == 2


def test_what_a_user_types_is_text(trained, command, capsys, monkeypatch):
    """Control symbols and markup in a prompt are characters: nothing is interpreted, nothing is lost."""
    from minillm.config import SampleConfig
    from minillm.experiment.ask import reopen

    prompts = ("<s></s><pad>", "[bold]x[/bold]", "<b>&amp;")
    rows = reopen.sample(trained, SampleConfig(prompts, tokens=2))
    assert [row["prompt"] for row in rows] == list(prompts)
    opened = reopen.open_run(trained)
    for prompt in prompts:
        ids = opened.tokenizer.encode(prompt)
        assert opened.tokenizer.decode(ids) == prompt
        assert min(ids) > opened.tokenizer.eos


def test_folders_that_cannot_take_a_run(command, tmp_path):
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary/mine.txt").write_text("mine")
    for out, words in ((tmp_path / "diary", "not a run"), (tmp_path / "diary/mine.txt", "folder was expected"),
                       (tmp_path / "diary/mine.txt/r", "ot a directory"), (Path("/proc/nowhere"), "/proc/nowhere")):  # fmt: skip
        code, errors = command("run", COPY, "--out", out)
        one_line(errors, words)
        assert code == 2
    assert [p.name for p in (tmp_path / "diary").iterdir()] == ["mine.txt"]


def test_a_second_process_in_the_same_folder_is_refused(command, tmp_path):
    with (tmp_path / ".lock").open("w") as handle:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        code, errors = command("run", COPY, "--out", tmp_path)
    one_line(errors, "another process")
    assert code == 2
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_full_disk_ends_a_run_with_one_line_and_its_checkpoints_intact(tmp_path):
    """A limit on the size of files stands for the full disk: the kernel refuses the write in the same way."""
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "minillm.cli", "run", COPY, "--set", "train.steps=3", "--set", "model.width=128"]
    done = subprocess.run(
        [sys.executable, "-c", limit, *command, "--out", tmp_path / "r"], capture_output=True, text=True,
        env={**os.environ, "MINILLM_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": ""},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "earlier ones are intact" in done.stderr
    assert not checkpoint.steps(tmp_path / "r/checkpoints")
    assert not list((tmp_path / "r/checkpoints").iterdir())


def test_no_space_is_said_in_words(tmp_path):
    with pytest.raises(UserError, match="free some space"), folders.system_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))
