"""Every model under its own objective, as whole runs from a config: it resumes exactly and trains sharded."""

import contextlib
import dataclasses
import signal

import jax
import numpy as np
import pytest

from minillm import config as configs
from minillm.errors import UserError
from minillm.experiment import fork as forks
from minillm.experiment import run as runs
from minillm.experiment.ask import fill, reopen
from minillm.experiment.data import load_data, vocabulary_size
from minillm.experiment.examples import made_up
from minillm.experiment.paper.describe import step_flops
from minillm.experiment.setup import make_setup, new_state
from minillm.experiment.verify import verify

COMMON = """
[tokenizer]
vocabulary = 300
[train]
steps = 6
batch_size = 8
evaluate_every = 2
hash_every = 1
[optimizer]
warmup_steps = 1
[baselines]
orders = [1]
xz = false
[sample]
tokens = 4
"""
SIZE = "width = 16\nheads = 2\nlayers = 1\ncontext = 32\n"
FAMILY = {
    "rnn": "[model]\nkind = 'rnn'\nwidth = 16\nlayers = 1\ncontext = 16\n[data]\npacking = 'continued'\n",
    "lstm": "[model]\nkind = 'lstm'\nwidth = 16\nlayers = 1\ncontext = 16\n[data]\npacking = 'continued'\n",
    "transformer_xl": f"[model]\nkind = 'transformer_xl'\nmemory = 8\n{SIZE}[data]\npacking = 'continued'\n",
    "masked": f"[model]\nkind = 'bert'\n{SIZE}[data]\n",
    "masked_next_sentence": f"[model]\nkind = 'bert'\n{SIZE}[data]\n",
    "structural": f"[model]\nkind = 'bert'\n{SIZE}[data]\n",
    "t5": f"[model]\nkind = 't5'\n{SIZE}[data]\n",
    "transformer": f"[model]\nkind = 'transformer'\n{SIZE}[data]\n",
    "reverse": f"[model]\nkind = 'transformer'\n{SIZE}[data]\ncopy_length = 5\nsource = 'reverse'\n",
}
IMAGES = {
    "classify": "[model]\nkind = 'vit'\npatch = 4\nlayers = 1\nwidth = 16\nheads = 2\ndropout = 0.1\n[data]\nshifts = 1\n",
    "masked_patches": "[model]\nkind = 'vit'\npatch = 4\nlayers = 1\nwidth = 16\nheads = 2\n[data]\n",
    "denoising": "[model]\nkind = 'autoencoder'\nhidden = [16]\ncode = 4\n[data]\n",
}
FAMILY |= IMAGES
TUNED = {
    "lora": f"[tuning]\nmethod = 'lora'\nrank = 2\n{FAMILY['masked_next_sentence']}",
    "adalora": f"[tuning]\nmethod = 'adalora'\nrank = 4\ntarget_rank = 1.5\ntargets = ['*/input/kernel', 'blocks/recurrent/*']\n{FAMILY['lstm']}",
    "adapter": f"[tuning]\nmethod = 'adapter'\nadapter_size = 3\n{FAMILY['masked']}",
    "prefix": f"[tuning]\nmethod = 'prefix'\nprefix_length = 3\nprefix_hidden = 6\n{FAMILY['transformer']}",
    "prompt": f"[tuning]\nmethod = 'prompt'\nprompt_length = 3\n{FAMILY['t5']}length = 24\n",
    "thaw": "[tuning]\nmethod = 'freeze'\nfreeze_layers = 1\nlayer_decay = 0.5\nunfreeze_every = 2\n"
    + FAMILY["classify"].replace("layers = 1", "layers = 3"),
}
FAMILY |= TUNED
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in TUNED else name for name in FAMILY]
OBJECTIVES = {"t5": "span", "transformer": "span", "reverse": "sequence_to_sequence", "rnn": "causal", "lstm": "causal",
              "transformer_xl": "causal", "lora": "masked_next_sentence", "adalora": "causal", "adapter": "masked",
              "prefix": "span", "prompt": "span", "thaw": "classify"}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    sentence = "Sentence {0} of part {1} says that {2} is a number. It goes on, as {1} does!\n"
    path.write_text("###".join("".join(sentence.format(i, d, i * d) for i in range(12)) for d in range(24)))
    return path


def experiment(name, text, folder, *settings):
    sources = {"reverse": ""} | dict.fromkeys((*IMAGES, "thaw"), "source = 'digits'\n")
    source = sources.get(name, f"source = 'text'\nseparator = '###'\npath = '{text}'\n")
    objective = f"[objective]\nname = '{OBJECTIVES.get(name, name)}'\n"
    file = folder / f"{name}.toml"
    file.write_text(f"name = 'run'\n{FAMILY[name]}{source}{objective}{COMMON}")
    return configs.load(file, settings)


def finish(found, folder, resume=False):
    return runs.run(found, folder, resume, lambda text: None, lambda step, line: None)


LONG = ("transformer", "t5", "reverse", "structural", "masked_next_sentence")  # two runs of each take 15 to 35 s


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NAMES]
)
def test_a_stopped_run_goes_on_as_the_straight_one(name, text, tmp_path, monkeypatch):
    found = experiment(name, text, tmp_path)
    straight = finish(found, tmp_path / "straight")
    plain_fit = runs.loop.fit

    def stop_after_three(train_step, state, frozen, key, plan, progress, hooks):
        asked = iter([False, False, True, True])
        return plain_fit(train_step, state, frozen, key, plan, progress, hooks._replace(stopping=lambda: next(asked)))

    monkeypatch.setattr(runs.loop, "fit", stop_after_three)
    monkeypatch.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
    with pytest.raises(runs.Stopped):
        finish(found, tmp_path / "resumed")
    monkeypatch.undo()
    resumed = finish(found, tmp_path / "resumed", resume=True)
    measured = ("training_seconds", "step_seconds", "peak_memory_bytes")
    drop = lambda summary: {key: value for key, value in summary.items() if key not in measured}
    assert drop(resumed) == drop(straight)
    logs = [(tmp_path / part / "provenance.jsonl").read_bytes() for part in ("straight", "resumed")]
    assert logs[0] == logs[1]
    assert verify(tmp_path / "resumed", None, lambda text: None)["equal"]
    if (
        name == "adalora"
    ):  # frozen parameters, scores, and a state that goes on from row to row: a branch needs them all
        branch = finish(forks.make(tmp_path / "straight", 4, []), tmp_path / "branch")
        assert branch["parameter_hash"] == straight["parameter_hash"]
        assert verify(tmp_path / "branch", None, lambda text: None)["steps"] == 2


@pytest.mark.parametrize("name", NAMES)
def test_eight_devices_give_the_losses_of_one(name, text, tmp_path):
    losses = []
    for mesh in ({}, {"data": 4, "model": 2, "rules": "fsdp"}):
        found = experiment(name, text, tmp_path)
        found = dataclasses.replace(found, mesh=configs.MeshConfig(**mesh))
        data = load_data(found, tmp_path / "tokenizer.model")
        setup = make_setup(found, data.vocabulary)
        state, frozen = new_state(setup)
        row = []
        for step in range(3):
            state, metrics = setup.train_step(
                state, frozen, jax.device_put(data.batch(step), setup.shardings[2]), setup.key
            )
            row.append(float(metrics["loss"]))
        losses.append(row)
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_describe_knows_the_batches_without_reading(name, text, tmp_path):
    found = experiment(name, text, tmp_path)
    sharded = dataclasses.replace(
        found, train=dataclasses.replace(found.train, shards=2 if found.data.packing == "stream" else 1)
    )
    assert step_flops(found) == step_flops(sharded) > 0
    data = load_data(found, tmp_path / "tokenizer.model")
    shape = lambda batch: {key: (leaf.shape, leaf.dtype) for key, leaf in batch.items()}
    assert shape(made_up(found, data.vocabulary)) == shape(data.batch(0))
    for batch in data.evaluation("validation"):
        assert shape(batch) == shape(data.batch(0))


def test_the_carry_is_used_in_training_and_evaluation(text, tmp_path):
    """Without it the second batch would have another loss."""
    found = experiment("lstm", text, tmp_path)
    data = load_data(found, tmp_path / "tokenizer.model")
    setup = make_setup(found, data.vocabulary)
    (state, frozen), batches = new_state(setup), data.evaluation("validation")
    extra, fresh = setup.fresh_carry(), setup.fresh_carry()
    _, extra = setup.eval_step(state.trainable, frozen, batches[0], extra)
    carried, _ = setup.eval_step(state.trainable, frozen, batches[1], extra)
    alone, _ = setup.eval_step(state.trainable, frozen, batches[1], fresh)
    assert float(carried["nll"][0]) != float(alone["nll"][0])
    before = np.asarray(state.extra["carry"]["hidden"])
    state, _ = setup.train_step(state, frozen, data.batch(0), setup.key)
    assert not before.any()
    assert np.asarray(state.extra["carry"]["hidden"]).any()


def test_gaps_are_filled_in(text, tmp_path, monkeypatch):
    """What the model writes stands in its gap, whatever the order in which a decoder writes it."""
    for name in ("masked", "t5"):
        assert finish(experiment(name, text, tmp_path), tmp_path / name)["baselines"]["unigram"]
        for wrong in ("Sentence", "\udcff <mask>", "<mask> " * 40):
            with pytest.raises(UserError, match="prompt"):
                reopen.sample(tmp_path / name, configs.SampleConfig((wrong,)))
    settings = configs.SampleConfig(("It <mask> on, <mask>!",))
    opened = reopen.open_run(tmp_path / "masked")
    first, second = (opened.tokenizer.encode(word)[0] for word in ("a", "b"))
    last = opened.setup.config.vocabulary - 1
    scores = np.zeros((1, 2, last + 1), np.float32)
    scores[0, 0, first], scores[0, 1, second], scores[0, :, last] = 5.0, 4.0, 9.0  # the mask token is no answer
    model = opened.setup.model._replace(logits=lambda params, hidden: jax.numpy.asarray(scores))
    monkeypatch.setattr(reopen, "open_run", lambda root: opened._replace(setup=opened.setup._replace(model=model)))
    assert reopen.sample(tmp_path / "masked", settings)[0]["text"] == "\n→ It[a] on,[b]!"
    monkeypatch.undo()
    last = reopen.open_run(tmp_path / "t5").setup.config.vocabulary - 1
    monkeypatch.setattr(fill, "generate", lambda *arguments, **options: [[last - 1, second, second, last, first]])
    assert reopen.sample(tmp_path / "t5", settings)[0]["text"] == "\n→ It[a] on,[bb]!"


def test_prompts_that_cannot_be_filled_in_are_refused_before_training(text, tmp_path):
    found = experiment("t5", text, tmp_path, "sample.prompts=['<mask> and <mask> and <mask>']")
    with pytest.raises(UserError, match="3 gaps, the model knows 2"):
        finish(found, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.json*"))


def test_validation_loss_is_the_sum_that_is_trained(text, tmp_path):
    found = experiment("structural", text, tmp_path, "objective.coefficients.word_order=0.5", "train.steps=2")
    held_out = finish(found, tmp_path / "run")["validation"]
    terms = held_out["nll"] + 0.5 * held_out["word_order_nll"] + held_out["next_sentence_nll"]
    assert held_out["loss"] == pytest.approx(terms, rel=1e-6)


def test_pairs_are_evaluated_once_each(text, tmp_path):
    scored = []
    for batch_size in (8, 24):
        found = experiment("masked_next_sentence", text, tmp_path, f"train.batch_size={batch_size}")
        batches = load_data(found, tmp_path / "tokenizer.model").evaluation("validation")
        scored.append(sum(batch["sentence_weights"].sum() for batch in batches))
        assert all(
            (batch["weights"].sum(1) > 0).tolist() == (batch["sentence_weights"] > 0).tolist() for batch in batches
        )
    assert scored[0] == scored[1]


REFUSED = {
    ("masked", "model.kind='gpt'"): "masked-LM head",
    ("rnn", "model.kind='gpt'"): "carries no state",
    ("rnn", "train.shards=2"): "train.shards",
    ("t5", "data.packing='packed'"): "data.packing",
    ("t5", "objective.mask_rate=0.3"): "says nothing to the objective 'span'",
    ("t5", "data.source='copy'"): "cannot read the source 'copy'",
    ("masked", "objective.coefficients.loss=1.0"): "coefficients",
    ("masked", "objective.mask_rate=1.5"): "mask_rate",
    ("masked", "model.tasks=['pool']"): "heads that are missing",
    ("structural", "model.relations=2"): "tells 3 relations apart",
    ("prompt", "tuning.prompt_length=32"): "fills the context of 32",
    ("prompt", "data.length=40"): "what tuning.prompt_length leaves of the context, 29",
    ("thaw", "tuning.freeze_layers=4"): "4 blocks to freeze, the model has 3",
    ("rnn", "tuning.method='prompt'"): "before one text",
    ("rnn", "tuning.method='adapter'"): "no Transformer blocks",
    ("t5", "tuning.method='bitfit'"): "no bias",
    ("reverse", "data.source='python-docs'"): "copy_length says nothing to the source 'python-docs'",
    ("reverse", "data.source='digits'"): "use a source of text or copy or reverse",
    ("masked", "data.shifts=1"): "shifts says nothing to the source 'text'",
    ("denoising", "objective.name='causal'"): "from left to right",
    ("denoising", "objective.noise_rate=1.0"): "noise_rate",
    ("classify", "model.tasks=['patches']"): "heads that are missing",
    ("reverse", "objective.name='causal'"): "from left to right",
    ("reverse", "data.packing='packed'"): "packing says nothing to the source 'reverse'",
    ("masked", "model.context=2"): "at least 3 tokens",
    ("masked", "model.tasks=3"): "model.tasks",
    ("masked", "model.kind=[1]"): "unknown model",
    ("masked_next_sentence", "model.relations='x'"): "model.relations",
    ("masked_next_sentence", "model.relations=1"): "tells 2 relations apart",
    ("masked", "objective.coefficients.masked=0.0"): "nothing is learned",
    ("t5", "objective.span_length=1.0"): "become rows of",
    ("t5", "model.context=1"): "at least 2 tokens",
    ("classify", "model.labels=5"): "needs 10, got 5",
    ("classify", "model.image=[16, 16]"): "needs (8, 8)",
    ("denoising", "model.shape=[64]"): "needs (8, 8, 1)",
    ("denoising", "data.validation=0.3"): "validation says nothing to the source 'digits'",
}


@pytest.mark.parametrize(("name", "setting"), REFUSED)
def test_sections_that_do_not_fit_together_are_refused(name, setting, text, tmp_path):
    def read():
        found = experiment(name, text, tmp_path, setting)
        make_setup(found, vocabulary_size(found))

    with pytest.raises(UserError) as caught:
        read()
    assert REFUSED[name, setting] in str(caught.value)
