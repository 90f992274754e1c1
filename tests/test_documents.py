"""The documents' own programs, corrected (configs/documents): each is described and runs on a little of its own data."""

from pathlib import Path

import pytest

from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.paper.describe import describe

pytestmark = pytest.mark.parity  # these fetch 135 MB

SHORT = ["train.steps=2", "train.batch_size=4", "train.evaluate_every=2", "data.limit=20000", "data.length=16"]
MORE = {
    3: ["data.limit=100000", "tokenizer.vocabulary=2000"],
    4: ["tokenizer.vocabulary=1000", "pretrain.train={ steps = 2, batch_size = 4, evaluate_every = 2 }"],
}


@pytest.mark.parametrize("number", range(1, 6))
def test_a_document_s_program_is_described_and_runs(number, tmp_path):
    path = Path(__file__).parents[1] / f"configs/documents/d{number}.toml"
    whole = bases.load(path)
    found = describe(whole)
    if number == 1:  # the head alone
        assert found["trainable_parameters"] == 384 * 384 + 384 + 3 * 384 + 3
    else:
        assert found["trainable_parameters"] > 500_000
    short = bases.load(path, [*SHORT, *MORE.get(number, [])])
    summary = runs.run(short, tmp_path / "run", False, lambda text: None, lambda step, line: None)
    assert summary["steps"] == 2
    assert summary["baselines"]
    assert "macro_f1" in summary["test"] if number != 3 else "bits_per_character" in summary["validation"]
    assert (tmp_path / "run/report.html").exists()
