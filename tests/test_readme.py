"""What the README and the configs' headers say exists."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from minillm import config as configs
from minillm.data import fetch
from minillm.experiment.many import lab as labs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
LABS = (
    "back-translation.toml",
    "few-labels.toml",
    "self-training.toml",
    "self-training-frozen.toml",
    "noisy-labels.toml",
    "history.toml",
    "methods.toml",
    "prompting.toml",
    "prompting-masked.toml",
    "continual.toml",
    "adversarial.toml",
    "overfitting.toml",
    "multitask.toml",
    "invariance.toml",
)
CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))


def test_the_two_commands_come_first():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert blocks[0].strip() == "pip install -e . && minillm run configs/quickstart.toml"
    assert blocks[1].strip() == 'pip install -e ".[test]" && pytest'


def test_links_and_pictures_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 15
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_commands_and_configs_that_are_shown_exist():
    from minillm.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    for group in app.registered_groups:
        known |= {f"{group.name} {command.name}" for command in group.typer_instance.registered_commands}
    shown = re.findall(r"^(?:[A-Z_]+=\S+ )?minillm (.+?)(?:  +#.*)?$", README, re.MULTILINE)
    assert len(shown) > 6
    for line in shown:
        words = shlex.split(line)
        assert words[0] in known or " ".join(words[:2]) in known, line
        assert all((ROOT / word).exists() for word in words if word.startswith("configs/")), line
    assert [name for name in map(name_of, CONFIGS) if name not in README] == []


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def load(path):
    """The config; weights that would be fetched are left out, with the kind of model that they bring in their place."""
    raw = tomllib.loads(path.read_text(encoding="utf8"))
    if raw.get("base", {}).get("run") in fetch.MODELS:
        del raw["base"]
        raw["model"] = {"kind": "bert"} | raw.get("model", {})
    return configs.check(raw, str(path))


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_says_its_command_time_and_expectation_and_is_valid(path):
    header = path.read_text(encoding="utf8").split("\n\n")[0]
    command = "lab" if path.name in LABS else "describe" if path.parent.name == "scale" else "run"
    assert f"minillm {command} {name_of(path)}" in header
    assert "Time on two cores:" in header
    assert "Expected:" in header
    found = labs.load(path) if path.name in LABS else load(path)
    assert found.name == path.stem


@pytest.mark.parametrize("number", range(1, 6))
def test_a_document_s_program_says_what_was_wrong_with_it(number):
    header = (ROOT / f"configs/documents/d{number}.toml").read_text(encoding="utf8").split("\n\n")[0]
    wrong, _, instead = header.partition(f"Wrong in document {number}:")[2].partition("Here instead:")
    assert min(len(wrong), len(instead)) > 100


def test_the_config_that_tunes_a_run_is_valid():
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    raw = tomllib.loads(block)
    assert raw.pop("base") == {"run": "minilm-bert"}  # its tokenizer and model would have to be fetched
    found = configs.check(raw | {"model": {"kind": "bert"}}, "README.md")
    assert (found.tuning.method, found.data.labels) == ("lora", ("neg", "pos"))
