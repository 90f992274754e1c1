"""The bench works end to end, with and without its peer."""

import json
import math
import os
import subprocess
import sys

import pytest

from minillm.bench import display, kernels, measure, roofline
from minillm.bench.client import Worker
from minillm.errors import UserError


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    """What `minillm bench --quick --json` answers where torch is not installed."""
    folder = tmp_path_factory.mktemp("absent")
    (folder / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-m", "minillm.cli", "bench", "--quick", "--json"], capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": path})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def numbers(tree):
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from numbers(value)
    elif isinstance(tree, int | float):
        yield tree


def test_every_number_is_finite_and_positive(without_torch):
    found = list(numbers(without_torch))
    assert len(found) > 20
    assert all(math.isfinite(number) and number > 0 for number in found)
    ours = [row for row in without_torch["cases"] if row["side"] == "minillm"]
    assert [row["do"] for row in ours] == ["step", "step", "evaluate", "generate", "generate"]
    assert [row["compilations"] for row in ours if row["do"] != "evaluate"] == [1, 1, 1, 1]
    assert set(without_torch["lora"]) == {"lora", "lora_all"}
    assert without_torch["lora"]["lora"]["optimizer_share"] < without_torch["lora"]["lora_all"]["optimizer_share"]


def test_what_is_not_installed_says_how_to_install_it(without_torch, capsys):
    peers = [row for row in without_torch["cases"] if row["side"] != "minillm"]
    assert len(peers) == 10
    assert {row["missing"] for row in peers} == {"not installed: pip install -e '.[parity]'"}
    display.show(without_torch)
    shown = capsys.readouterr().out
    assert "training step" in shown
    assert "not installed: pip install -e '.[parity]'" in shown
    assert "(bar" not in shown, "bars are for the full size"
    display.show(without_torch | {"size": "full"})
    assert "(bar 80%)" in capsys.readouterr().out


def test_a_ratio_compares_times_of_the_same_round():
    answer = lambda *seconds: [{"seconds": value} for value in seconds]
    again = {"jax": answer(1.0, 10.0, 2.0), "eager": answer(2.0, 15.0, 5.0)}
    row = measure.compare(measure.Case("x", "step", {}, 1.2), "eager", {"eager": {"seconds": 9.0}}, again)
    assert (row["seconds"], row["fastest"], row["first_seconds"], row["ratio"], row["bar"]) == (5.0, 2.0, 9.0, 2.0, 1.2)


def test_a_worker_that_dies_says_why():
    with pytest.raises(UserError, match="KeyError: 'no such size'"):
        Worker("jax", "no such size")


@pytest.mark.parity
@pytest.mark.parametrize("name", ["jax", "eager", "sdpa"])
def test_every_side_learns_the_same_batch(name):
    with Worker(name, "quick") as side:
        losses = [side.ask("step")["loss"] for _ in range(10)]
        assert losses[0] == pytest.approx(math.log(65), abs=0.1)
        assert losses[-1] < losses[0] - 0.1
        assert side.ask("evaluate")["loss"] < losses[0]
        assert side.ask("generate", rows=2)["tokens"] == 16


def test_the_roof_is_memory_on_the_left_and_products_on_the_right(without_torch, tmp_path):
    found = without_torch | {"matmul_flops_per_second": 100e9, "read_bytes_per_second": 10e9}
    step, one, sixteen = roofline.points(found)
    seconds = {row["case"]: row["seconds"] for row in found["cases"] if row["side"] == "minillm"}
    assert step.speed == pytest.approx(found["step_flops"] / seconds["training step"])
    assert (one.intensity, sixteen.intensity) == (0.5, 8.0), "two FLOPs per float32 weight and row"
    roofline.draw(found, tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")


def test_kernels_are_compared_where_there_is_one(capsys):
    """jax's plain form stands for the GPU's kernel: the numbers are of the same attention."""
    found = kernels.measure(kernels.QUICK, "xla")
    assert [row["length"] for row in found["attention"]] == [32, 64]
    assert all(row[name]["error"] < 0.02 for row in found["attention"] for name in ("own", "xla"))
    assert found["step"]["own"]["losses"][0] == pytest.approx(math.log(64), abs=0.2)
    display.show_kernels(found)
    shown = capsys.readouterr().out
    assert "with gradient, 2 x 32" in shown
    assert "tokens/s" in shown
    with pytest.raises(UserError, match="cuDNN runs on NVIDIA GPUs, this is a cpu"):
        kernels.measure(kernels.QUICK)
