"""LoRA and AdaLoRA beside peft, on transformers' models with imported weights: values, merged weights, gradients, ranks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity_interop import CASES, answers, make_theirs, random_batch

from minillm import params
from minillm.interop import huggingface
from minillm.sections.experiment import TuningConfig
from minillm.tuning import make_tuning
from minillm.tuning.lora import merge

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

RANK, ALPHA, STEPS = 4, 6, 20
# (their model, method) -> their modules, our patterns; module and row of a layer, of which each has its own
PLACES = {
    "bert classify": {
        "bert.encoder.layer.{}.attention.self.query": "blocks/attention/query",
        "bert.encoder.layer.{}.attention.self.value": "blocks/attention/value",
    },
    "gpt2": {"transformer.h.{}.mlp.c_fc": "blocks/feedforward/up"},
}
RUNS = [("bert classify", "lora"), ("bert classify", "adalora"), ("gpt2", "lora")]


def make_pair(case, method, folder):
    """(their model with peft's layers, what we read of it, our tuning, our trainable leaves, our frozen ones)."""
    import peft

    base = make_theirs(case)
    base.save_pretrained(folder)
    found = huggingface.read(folder)
    places = PLACES[case]
    modules = [place.rpartition(".")[2] for place in places]
    shared = {"target_modules": modules, "lora_alpha": ALPHA, "fan_in_fan_out": case == "gpt2"}
    phases = {"total_step": STEPS, "tinit": int(0.1 * STEPS), "tfinal": int(0.3 * STEPS), "target_r": 1}
    config = (
        peft.LoraConfig(r=RANK, **shared) if method == "lora" else peft.AdaLoraConfig(init_r=RANK, **shared, **phases)
    )
    theirs = peft.get_peft_model(base, config).eval()
    ranks = {"target_rank": 1.0} if method == "adalora" else {}
    patterns = tuple(f"{row}/kernel" for row in places.values())
    section = TuningConfig(method, targets=patterns, rank=RANK, alpha=float(ALPHA), **ranks)
    tuning = make_tuning(section, heads=(), steps=STEPS)
    trainable, frozen, extra = tuning.init(jax.tree.map(jnp.asarray, found.params), jax.random.key(0))
    generator = np.random.default_rng(3)
    trainable = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), jnp.float32) * 0.3, trainable)
    return theirs, found, tuning, trainable, frozen, extra


def their_rows(theirs, case, method):
    """Our path -> their parameters of its layers, and how ours turns into theirs."""
    rows = dict(theirs.base_model.model.named_parameters())
    ends = {"down": "lora_A.default", "up": "lora_B.default", "values": "lora_E.default"}
    ends = ends if method == "adalora" else {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
    return {
        f"{ours}/lora/{name}": [rows[f"{place.format(layer)}.{end}"] for layer in range(2)]
        for place, ours in PLACES[case].items()
        for name, end in ends.items()
    }


def transposed(leaf):
    """One layer of ours as theirs: matrices the other way around, singular values as a column."""
    return np.array(leaf).T if leaf.ndim == 2 else np.array(leaf)[:, None]


def put(theirs, trainable, case, method):
    """Writes our rows into their model."""
    import torch

    flat = params.flatten(trainable)
    for path, layers in their_rows(theirs, case, method).items():
        for layer, parameter in enumerate(layers):
            parameter.data = torch.tensor(transposed(flat[path][layer]))


@pytest.mark.parametrize(("case", "method"), RUNS)
def test_values_gradients_and_merged_weights_are_those_of_peft(case, method, tmp_path):
    import torch

    theirs, found, tuning, trainable, frozen, _ = make_pair(case, method, tmp_path)
    put(theirs, trainable, case, method)
    batch, their_batch = random_batch(case)
    fields = CASES[case][3]
    output = theirs(**their_batch).logits
    pull = np.random.default_rng(4).normal(size=output.shape).astype(np.float32)
    (output * torch.tensor(pull)).sum().backward()

    def ours(trainable):
        logits = answers(found, tuning.attach(trainable, frozen), batch, fields)["logits"]
        return (logits * pull).sum(), logits

    (_, logits), gradients = jax.value_and_grad(ours, has_aux=True)(trainable)
    plain = answers(found, found.params, batch, fields)["logits"]
    assert np.abs(logits - plain).max() > 1e-2
    np.testing.assert_allclose(logits, output.detach().numpy(), rtol=1e-5, atol=1e-5)
    rows = their_rows(theirs, case, method)
    assert rows.keys() == params.flatten(gradients).keys()
    for path, leaf in params.flatten(gradients).items():
        for layer, parameter in enumerate(rows[path]):
            np.testing.assert_allclose(
                transposed(leaf[layer]), parameter.grad.numpy(), rtol=1e-5, atol=1e-5, err_msg=path
            )
    merged = merge(tuning.attach(trainable, frozen))
    plain = theirs.merge_and_unload()
    for place, row in PLACES[case].items():
        for layer in range(2):
            weight = plain.get_submodule(place.format(layer)).weight.detach().numpy()
            kernel = params.flatten(merged)[f"{row}/kernel"][layer]
            np.testing.assert_allclose(kernel, weight if case == "gpt2" else weight.T, rtol=1e-5, atol=1e-5)
    want = plain(**their_batch).logits.detach().numpy()
    np.testing.assert_allclose(answers(found, merged, batch, fields)["logits"], want, rtol=1e-5, atol=1e-5)


def test_ranks_are_those_of_peft(tmp_path):
    """Both get the same weights and gradients, step by step; peft's last phase counts no scores, so it is left out."""
    import torch

    case, method = "bert classify", "adalora"
    theirs, _, tuning, trainable, _, extra = make_pair(case, method, tmp_path)
    generator, counts = np.random.default_rng(5), []
    noise = lambda leaf: jnp.asarray(generator.normal(size=leaf.shape), jnp.float32)
    for number in range(1, STEPS - int(0.3 * STEPS)):
        trainable = jax.tree.map(lambda leaf: leaf + 0.05 * noise(leaf), trainable)
        gradients = jax.tree.map(noise, trainable)
        put(theirs, trainable, case, method)
        for path, layers in their_rows(theirs, case, method).items():
            for layer, parameter in enumerate(layers):
                parameter.grad = torch.tensor(transposed(params.flatten(gradients)[path][layer]))
        theirs.base_model.update_and_allocate(number)
        trainable, extra = tuning.update(trainable, extra, gradients, number - 1)
        flat = params.flatten(trainable)
        for path, layers in their_rows(theirs, case, method).items():
            for layer, parameter in enumerate(layers):
                np.testing.assert_array_equal(
                    transposed(flat[path][layer]), parameter.detach().numpy(), err_msg=f"step {number}: {path}"
                )
        counts.append(sum(int((leaf != 0.0).sum()) for path, leaf in flat.items() if path.endswith("values")))
    assert counts[0] == 16
    assert counts[-1] == 4
    assert len(set(counts)) > 5
