"""Several processes, one run: real ones on loopback, each with two simulated devices."""

import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_labelled

from minillm import config as configs
from minillm import hosts, sharding
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.data import load_data
from minillm.experiment.folder import read_json, read_lines
from minillm.training import provenance

TEXT = " ".join(
    f"The {a} {b} {c}." for a in ("old", "red", "wet") for b in ("cat", "dog", "fox") for c in ("ran", "sat", "hid")
)
RAW = {
    "tokenizer": {"vocabulary": 320, "kind": "char"},
    "model": {"context": 16, "layers": 1, "width": 16, "heads": 2, "dropout": 0.1},
    "train": {"steps": 300, "batch_size": 16, "shards": 8, "evaluate_every": 50, "log_every": 1, "hash_every": 50},
    "mesh": {"data": 4},
}  # fmt: skip
LOST_AFTER = 20


@pytest.fixture
def config(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join([TEXT] * 12), encoding="utf8")
    raw = RAW | {"data": {"source": "text", "path": str(tmp_path / "text.txt"), "validation": 0.2}}
    path = tmp_path / "run.toml"
    path.write_text(configs.to_toml(configs.check(raw, "test")), encoding="utf8")
    return path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(config: Path, out: Path, *options: str, own: tuple[str, ...] = ()) -> list[subprocess.Popen]:
    """Both processes, each with two devices; `own` options have the number of the process in them."""
    port = free_port()
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": "2"}
    settings = {"distributed": "true", "coordinator": f"127.0.0.1:{port}", "processes": 2, "lost_after": LOST_AFTER}
    found = []
    for process in range(2):
        mesh = [
            part
            for key, value in (settings | {"process": process}).items()
            for part in ("--set", f"mesh.{key}={value}")
        ]
        command = [
            sys.executable,
            "-m",
            "minillm.cli",
            "run",
            str(config),
            "--out",
            str(out),
            *mesh,
            *options,
            *(part.format(process=process) for part in own),
        ]
        found.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return found


def wait_for(out: Path, step: int, processes) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = (out / "metrics.jsonl").read_text().count("\n") if (out / "metrics.jsonl").exists() else 0
        if lines > step:
            return
        ended = [process.communicate()[0] for process in processes if process.poll() is not None]
        assert not ended, f"ended too early:\n{ended[0]}"
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def child_of(process: subprocess.Popen) -> int:
    """The process that trains; the one that was started watches it."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one_and_survive_a_signal_and_a_loss(config, tmp_path):
    out = tmp_path / "two"
    first = start(config, out)
    wait_for(out, 20, first)
    first[1].kill()  # who watches: its child does not live on alone, but saves, stops, and tells the other
    said = [process.communicate(timeout=60)[0] for process in first]
    assert [process.returncode for process in first] == [143, -signal.SIGKILL], "\n=====\n".join(said)
    assert "stopped and saved at step" in said[0]
    stopped = len(provenance.read(out / "provenance.jsonl"))
    assert 20 <= stopped < 290

    second = start(config, out, "--resume")
    wait_for(out, stopped + 10, second)
    os.kill(child_of(second[1]), signal.SIGKILL)
    killed = time.monotonic()
    said = [process.communicate(timeout=60)[0] for process in second]
    assert time.monotonic() - killed < LOST_AFTER + 20
    assert [process.returncode for process in second] == [1, 1], said
    assert all("start all processes again with --resume" in text for text in said), said

    third = start(config, out, "--resume")
    said = [process.communicate(timeout=120)[0] for process in third]
    assert [process.returncode for process in third] == [0, 0], said
    assert "this model" in said[0]
    assert "this model" not in said[1]
    assert not [path for path in tmp_path.iterdir() if path.name not in ("two", "run.toml", "text.txt")]

    straight = runs.run(configs.load(config), tmp_path / "one", False, lambda text: None, lambda step, line: None)
    assert read_json(out / "summary.json")["parameter_hash"] == straight["parameter_hash"]
    chains = [provenance.last_chain(provenance.read(root / "provenance.jsonl")) for root in (out, tmp_path / "one")]
    assert chains[0] == chains[1]
    losses = [
        [line["loss"] for line in read_lines(root / "metrics.jsonl") if "loss" in line]
        for root in (out, tmp_path / "one")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_two_processes_go_back_together(config, tmp_path):
    """At every small spike, so that it happens often; each process decides by itself, from what all of them know."""
    settings = ["train.steps=60", "train.checkpoint_every=5", "train.spike=1.0", "train.spike_window=10", "optimizer.learning_rate=1e-5",
                "train.on_spike=rewind", "train.bad_steps=200"]  # fmt: skip
    processes = start(config, tmp_path / "two", *(part for setting in settings for part in ("--set", setting)))
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    alone = configs.load(config, settings)
    straight = runs.run(alone, tmp_path / "one", False, lambda text: None, lambda step, line: None)
    summary = read_json(tmp_path / "two/summary.json")
    assert len(summary["bad_steps"]) > 2
    for name in ("bad_steps", "parameter_hash"):
        assert summary[name] == straight[name]


@pytest.mark.slow
def test_pretraining_and_a_tuned_stage_are_stopped_and_go_on_as_one_process_would(tmp_path):
    (tmp_path / "data.txt").write_text(tiny_labelled.reviews(80), encoding="utf8")
    mesh = "[mesh]\ndata = 4\n[tuning]\nmethod = 'lora'\nrank = 2\n"
    text = tiny_labelled.config(tmp_path / "data.txt", steps=200) + tiny_labelled.PRETRAIN + mesh
    text = text.replace("[train]\n", "[train]\nshards = 8\nlog_every = 1\n", 1)
    (tmp_path / "run.toml").write_text(text, encoding="utf8")
    out = tmp_path / "two"
    first = start(tmp_path / "run.toml", out)
    wait_for(out, 10, first)
    first[0].send_signal(signal.SIGINT)
    said = [process.communicate(timeout=90)[0] for process in first]
    assert [process.returncode for process in first] == [130, 143], "\n=====\n".join(said)
    second = start(tmp_path / "run.toml", out, "--resume")
    said = [process.communicate(timeout=120)[0] for process in second]
    assert [process.returncode for process in second] == [0, 0], "\n=====\n".join(said)
    assert "First:" not in said[0], "the stage before was complete"
    alone = runs.run(
        bases.load(tmp_path / "run.toml"), tmp_path / "one", False, tiny_labelled.silent, tiny_labelled.silent
    )
    assert read_json(out / "summary.json")["parameter_hash"] == alone["parameter_hash"]


@pytest.mark.slow
def test_processes_that_differ_are_refused(config, tmp_path):
    differing = start(config, tmp_path / "run", own=("--set", "train.seed={process}"))
    said = [process.communicate(timeout=90)[0] for process in differing]
    assert all(process.returncode for process in differing), said
    assert any("the config of process 1 is not that of process 0" in text for text in said), said
    assert not list((tmp_path / "run").glob("*.json*"))


FAILS = """
import sys
from minillm import hosts
from minillm.sections.experiment import MeshConfig
process = int(sys.argv[1])
with hosts.one_of_several(orderly=StopIteration):
    hosts.join(MeshConfig(data=2, distributed=True, coordinator=sys.argv[2], processes=2, process=process, lost_after=10))
    hosts.wait("here")
    if process == 0:
        raise BrokenPipeError("nobody reads")
    hosts.wait("never")
"""


@pytest.mark.slow
def test_an_unforeseen_error_in_one_process_ends_the_other_too():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
    address = f"127.0.0.1:{free_port()}"
    both = [subprocess.Popen([sys.executable, "-c", FAILS, str(process), address], env=environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for process in range(2)]  # fmt: skip
    said = [process.communicate(timeout=60)[0] for process in both]
    assert all(process.returncode for process in both), said
    assert "BrokenPipeError: nobody reads" in said[0]


def test_rows_that_do_not_lie_side_by_side_are_refused(monkeypatch):
    """As on a TPU, whose devices jax.make_mesh would put into another order than that of their processes."""
    mesh = sharding.make_mesh(4)
    rows, devices = sharding.batch_sharding(mesh), list(mesh.devices.flat)
    places = rows.devices_indices_map((8,))
    of = lambda *own: types.SimpleNamespace(addressable_devices_indices_map=lambda shape: {d: places[d] for d in own})
    assert hosts.own_rows(of(*devices[:2]), 8) == slice(0, 4)
    assert hosts.own_rows(of(devices[3], devices[2]), 8) == slice(4, 8)
    with pytest.raises(ValueError, match="side by side"):
        hosts.own_rows(of(devices[0], devices[3]), 8)


@pytest.mark.slow
def test_as_many_devices_as_shards_or_fewer_give_the_same_bits_in_runs_of_their_own(tmp_path):
    """The pool of threads, on which the bits of products depend, grows with simulated devices unless it is fixed."""
    hashes = []
    for devices in (2, 8):
        flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": str(devices)}
        settings = ["train.steps=20", "train.evaluate_every=20", "train.shards=8", f"mesh.data={devices}"]
        command = [sys.executable, "-m", "minillm.cli", "run", "configs/copy.toml", "--out", str(tmp_path / str(devices)),
                   *(part for setting in settings for part in ("--set", setting))]  # fmt: skip
        subprocess.run(command, env=environment, check=True, capture_output=True, cwd=Path(__file__).parents[1])
        hashes.append(read_json(tmp_path / str(devices) / "summary.json")["parameter_hash"])
    assert hashes[0] == hashes[1]


BERT = {"kind": "bert", "context": 16, "layers": 1, "width": 16, "heads": 2}
DOCUMENTS = {"separator": "sat.", "validation": 0.4}
READINGS = {
    "stream": {},
    "packed": {"data": {"packing": "packed"}},
    "continued": {"data": {"packing": "continued"}, "model": {"kind": "rnn", "context": 16, "width": 16}},
    "masked": {"objective": {"name": "masked"}, "model": BERT},
    "words": {"objective": {"name": "masked", "whole_words": True}, "model": BERT},
    "pairs": {"objective": {"name": "masked_next_sentence"}, "model": BERT, "data": DOCUMENTS},
    "structural": {"objective": {"name": "structural"}, "model": BERT, "data": DOCUMENTS},
    "span": {"objective": {"name": "span"}, "model": BERT | {"kind": "t5", "context": 24}},
}  # fmt: skip


@pytest.mark.parametrize("sections", READINGS.values(), ids=READINGS)
def test_rows_that_processes_read_apart_are_the_batch(sections, config, tmp_path):
    raw = configs.read_toml(config)
    raw = raw | {"train": raw["train"] | {"shards": 1}, "mesh": {}}
    raw |= {name: (raw[name] if name == "data" else {}) | section for name, section in sections.items()}
    experiment = configs.check(raw, "test")
    data = load_data(experiment, tmp_path / "tokenizer.model")
    for step in (0, 7):
        whole = data.batch(step)
        parts = [data.batch_rows(step, slice(start, start + 4)) for start in (0, 4, 8, 12)]
        assert all(part.keys() == whole.keys() for part in parts)
        for name, leaf in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), leaf, name)
        together = np.concatenate([provenance.hash_shards(part, 2) for part in parts])
        assert provenance.hash_arrays({"shards": together}) == provenance.hash_batch(whole, 8)


@pytest.mark.parametrize("name", ["stream", "masked", "span"])
def test_a_host_does_not_read_the_rows_of_others(name, config, tmp_path, monkeypatch):
    from minillm.data import batches

    raw = configs.read_toml(config)
    data = load_data(configs.check(raw | READINGS[name], "test"), tmp_path / "tokenizer.model")
    read, example = [], batches._example
    monkeypatch.setattr(
        batches, "_example", lambda dataset, seed, number: read.append(number) or example(dataset, seed, number)
    )
    data.batch_rows(3, slice(4, 8))
    assert read == [52, 53, 54, 55]
