"""Prefix and prompt tuning beside peft, on transformers' models with imported weights: values and gradients in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity_interop import make_theirs, random_batch

from minillm import params
from minillm.interop import huggingface
from minillm.models import MODELS
from minillm.models.contract import bind
from minillm.tuning.prefix import prefix_tuning
from minillm.tuning.prompt import prompt_tuning

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

LENGTH, WIDTH, LAYERS, ROWS = 2, 16, 2, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def make_pair(case, kind, folder, **settings):
    """(their model with peft's rows, ours, our frozen parameters, our batch, theirs)."""
    import peft
    import torch

    base = make_theirs(case)
    base.save_pretrained(folder)
    found = huggingface.read(folder)
    task = "CAUSAL_LM" if case == "gpt2" else "FEATURE_EXTRACTION"
    theirs = peft.get_peft_model(base, kind(task_type=task, num_virtual_tokens=LENGTH, **settings)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.prompt_encoder.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    ours, batch = random_batch(case)
    ours.pop("token_types", None), batch.pop("token_type_ids", None)  # peft does not lengthen these
    return theirs, bind(MODELS[found.kind], found.config), jax.tree.map(jnp.asarray, found.params), ours, batch


def compare(tuning, model, trainable, frozen, batch, output):
    """Our gradient of what their loss is, once the hidden states or logits are seen to be equal."""
    import torch

    pull = np.random.default_rng(4).normal(size=output.shape).astype(np.float32)
    (output * torch.tensor(pull)).sum().backward()

    def loss(trainable):
        weights = tuning.attach(trainable, frozen)
        found = tuning.wrap(model).apply(weights, batch).hidden
        found = found if output.shape[-1] == WIDTH else model.logits(weights, found)
        return (found * pull).sum(), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(trainable)
    plain = model.apply(frozen, batch).hidden
    assert output.shape[-1] != WIDTH or np.abs(found - plain).max() > 1e-2
    np.testing.assert_allclose(found, output.detach().numpy(), **CLOSE)
    return params.flatten(gradients)


def prefix_parts(theirs, projection):
    """Our path -> (our axes of their array, their parameter, how it becomes ours)."""
    encoder = theirs.prompt_encoder["default"]
    layered = lambda leaf: leaf.reshape(-1, LAYERS, 2, WIDTH)
    place = "blocks/attention/prefix"
    if not projection:
        cut = lambda which: lambda leaf: layered(leaf)[:, :, which].swapaxes(0, 1)
        return {f"{place}/{name}": (encoder.embedding.weight, cut(i)) for i, name in enumerate(("key", "value"))}
    inner, outer = encoder.transform[0], encoder.transform[2]
    turn = lambda leaf: leaf.T
    rows = {f"{place}/table": (encoder.embedding.weight, lambda leaf: leaf)}
    rows |= {f"{place}/up/kernel": (inner.weight, turn), f"{place}/up/bias": (inner.bias, turn)}
    for i, name in enumerate(("key", "value")):
        kernel = lambda leaf, i=i: layered(leaf.T)[:, :, i].swapaxes(0, 1)
        bias = lambda leaf, i=i: layered(leaf)[0, :, i]
        rows |= {f"{place}/{name}/kernel": (outer.weight, kernel), f"{place}/{name}/bias": (outer.bias, bias)}
    return rows


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("case", ["bert", "gpt2"])
def test_a_prefix_is_that_of_peft(case, projection, tmp_path):
    import peft
    import torch

    settings = {"prefix_projection": True, "encoder_hidden_size": WIDTH} if projection else {}
    theirs, model, frozen, ours, batch = make_pair(case, peft.PrefixTuningConfig, tmp_path, **settings)
    rows = prefix_parts(theirs, projection)
    trainable = {path: jnp.asarray(turn(leaf.detach().numpy())) for path, (leaf, turn) in rows.items()}
    tuning = prefix_tuning(LENGTH, WIDTH if projection else 0)
    born, _, _ = tuning.init(frozen, jax.random.key(0))
    assert {p: leaf.shape for p, leaf in params.flatten(born).items()} == {
        p: leaf.shape for p, leaf in trainable.items()
    }

    places = torch.arange(batch["input_ids"].shape[1])[None]  # a prefix consumes none; peft would count from LENGTH on
    seen = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    seen = torch.cat([torch.ones(ROWS, LENGTH, dtype=seen.dtype), seen], dim=1)
    past = theirs.get_prompt(ROWS)
    output = theirs.get_base_model()(**batch | {"attention_mask": seen, "position_ids": places}, past_key_values=past)
    output = output.logits if case == "gpt2" else output.last_hidden_state
    gradients = compare(tuning, model, params.unflatten(trainable), frozen, ours, output)
    for path, (leaf, turn) in rows.items():
        np.testing.assert_allclose(gradients[path], turn(leaf.grad.numpy()), err_msg=path, **CLOSE)


@pytest.mark.parametrize("case", ["bert", "gpt2"])
def test_a_prompt_is_that_of_peft(case, tmp_path):
    """Their output has the prompt's places, too; ours begins at the row."""
    import peft

    theirs, model, frozen, ours, batch = make_pair(case, peft.PromptTuningConfig, tmp_path)
    vectors = theirs.prompt_encoder["default"].embedding.weight
    output = theirs(**batch)
    output = (output.logits if case == "gpt2" else output.last_hidden_state)[:, LENGTH:]
    trainable = {"prompt": {"table": jnp.asarray(vectors.detach().numpy())}}
    gradients = compare(prompt_tuning(LENGTH), model, trainable, frozen, ours, output)
    np.testing.assert_allclose(gradients["prompt/table"], vectors.grad.numpy(), **CLOSE)
