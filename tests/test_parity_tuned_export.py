"""A run that learned from labels, exported: transformers reads the same text with the same weights and says the same."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_parity_interop import load
from tiny_labelled import PRETRAIN, based, config, reviews, silent

from minillm.experiment import base as bases
from minillm.experiment import exchange, supervised
from minillm.experiment import run as runs
from minillm.experiment.ask.predict import as_documents, predict
from minillm.experiment.ask.reopen import open_run
from minillm.experiment.saved import restore

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

TEXTS = ["the room good a book", "awful screen the food a", "", "a 房间 👍"]
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


def train(root, text, *settings):
    """The run in root/run, and its export in root/out."""
    root.mkdir(exist_ok=True)
    (root / "c.toml").write_text(text)
    runs.run(bases.load(root / "c.toml", settings), root / "run", False, silent, silent)
    exchange.export_run(root / "run", root / "out")
    return root / "run", root / "out"


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    root = tmp_path_factory.mktemp("staged")
    (root / "reviews.txt").write_text(reviews())
    return train(root, config(root / "reviews.txt") + PRETRAIN)


def answers(out, *texts):
    """What transformers says of texts, or of pairs, each by itself: a number per class."""
    import torch
    import transformers

    theirs, reference = (
        load("AutoModelForSequenceClassification", out),
        transformers.AutoTokenizer.from_pretrained(out),
    )
    links = {"single_label_classification": lambda scores: scores.softmax(-1), "regression": lambda scores: scores,
             "multi_label_classification": torch.sigmoid}  # fmt: skip
    with torch.no_grad():
        scores = [theirs(**reference(*row, return_tensors="pt")).logits[0] for row in zip(*texts, strict=True)]
    names = [theirs.config.id2label[number] for number in range(theirs.config.num_labels)]
    return names, links[theirs.config.problem_type](torch.stack(scores)).numpy()


METHODS = {"full": [], "freeze": ["tuning.freeze_layers=1"], "bitfit": [], "lora": [], "adalora": []}


@pytest.mark.parametrize("method", METHODS)
def test_a_tuned_classifier_has_the_same_probabilities(method, staged, tmp_path):
    run, out = staged
    if method != "full":
        text = based(run.parent / "reviews.txt", run / "pretrain")
        run, out = train(tmp_path, text, f"tuning.method={method}", "train.steps=20", *METHODS[method])
    written = [text for text in TEXTS if text]
    names, theirs = answers(out, written)
    rows = [[row["probabilities"][name] for name in names] for row in predict(run, written)]
    assert names == ["neg", "pos"]
    np.testing.assert_allclose(rows, theirs, atol=2e-6)
    exchange.export_run(staged[0] / "pretrain", tmp_path / "before")
    before, after = (load_file(folder / "model.safetensors")[QUERY] for folder in (tmp_path / "before", out))
    assert np.array_equal(before, after) == (method in ("freeze", "bitfit"))


TASKS = {
    "pairs": ('source = "tsv"\nlabel_key = "label"\npair_key = "other"\nlabels = ["0", "1"]', "classify"),
    "multi_label": ('source = "tsv"\nlabel_key = "label"\nlabel_separator = ","\nlabels = ["0", "1"]', "multi_label"),
    "regression": ('source = "tsv"\nlabel_key = "label"', "regression"),
}


@pytest.mark.parametrize("task", TASKS)
def test_pairs_several_classes_and_numbers_go_out_as_such(task, tmp_path):
    section, objective = TASKS[task]
    lines = [line.partition(":")[0] for line in reviews(60).splitlines()]
    rows = "".join(f"{text}\t{number % 2}\tsays number {number}\n" for number, text in enumerate(lines))
    (tmp_path / "data.tsv").write_text(f"text\tlabel\tother\n{rows}")
    run, out = train(tmp_path, config(tmp_path / "data.tsv", data=section, objective=objective, steps=4))
    asked = [["the room", "a good book"]] + ([["says number", "good"]] if task == "pairs" else [])
    found = predict(run, *asked)
    ours = [list(row["probabilities"].values()) if "probabilities" in row else [row["value"]] for row in found]
    np.testing.assert_allclose(ours, answers(out, *asked)[1], atol=2e-6)


def test_a_tagger_has_the_same_scores(tmp_path):
    import torch

    lines = [line.partition(":")[0].split() for line in reviews(60).splitlines()]
    tagged = ("\n".join(f"{word}\t{'B-X' if word == 'book' else 'O'}" for word in words) for words in lines)
    (tmp_path / "tags.txt").write_text("\n\n".join(tagged) + "\n")
    keys = 'source = "conll"\nlabels = ["X"]\ndrop_duplicates = false'
    run, out = train(tmp_path, config(tmp_path / "tags.txt", data=keys, objective="tag", steps=4))
    opened = open_run(run)
    state, frozen, _ = restore(opened.folder, opened.setup, 4)
    documents = as_documents(opened, [text for text in TEXTS if text], None)
    dataset = supervised.make_rows(opened.experiment, opened.tokenizer, documents)
    (batch,) = batches = list(supervised.rows.row_evaluation_batches(dataset, len(documents)))
    ours = supervised.scorer(opened.setup, opened.experiment)(state.trainable, frozen, batches)
    theirs = load("AutoModelForTokenClassification", out)
    assert [theirs.config.id2label[number] for number in range(3)] == ["O", "B-X", "I-X"]
    asked = {"input_ids": "tokens", "attention_mask": "mask", "token_type_ids": "token_types"}
    with torch.no_grad():
        scores = theirs(**{name: torch.tensor(batch[key]).long() for name, key in asked.items() if key in batch}).logits
    seen = batch["mask"]
    np.testing.assert_allclose(ours[seen], scores.numpy()[seen], atol=1e-5)


def test_the_classes_of_an_imported_base_do_not_stay(tmp_path, staged):
    """Another head's names would go out with the new head."""
    exchange.import_run(staged[1], tmp_path / "base")
    text = based(staged[0].parent / "reviews.txt", tmp_path / "base")
    _, out = train(tmp_path / "new", text, "train.steps=2", "data.labels=['pos', 'neg']")
    assert answers(out, ["a"])[0] == ["pos", "neg"]
