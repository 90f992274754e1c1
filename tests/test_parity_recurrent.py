"""RNN and LSTM against torch.nn: values, last states and gradients in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import lstm, rnn
from minillm.nn import linear, recurrent

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]  # third parties warn about themselves

SIZES = [(7, 5, 1, 4), (11, 9, 2, 8), (5, 13, 3, 6)]  # vocabulary, length, layers, width
KINDS = {
    "tanh": (rnn, {"activation": "tanh"}),
    "relu": (rnn, {"activation": "relu"}),
    "lstm": (lstm, {"forget_bias": 0.0}),
    "lstm-remembering": (lstm, {"forget_bias": 1.0}),
}
# ours -> torch's name in layer l; torch adds two biases, of which ours is the sum, so that both have its gradient
NAMES = {"input/kernel": "weight_ih_l{}", "recurrent/kernel": "weight_hh_l{}", "input/bias": "bias_ih_l{}"}


def random_params(specs, seed):
    born = params.init_params(specs, jax.random.key(seed))
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3 * draw.normal(size=leaf.shape).astype(np.float32), born)


def reference(kind, inputs, width, layers, layer_weights):
    """The torch module with our weights; the constant of the forget gate goes into the second bias."""
    import torch

    module, settings = KINDS[kind]
    theirs = (
        torch.nn.LSTM(inputs, width, layers, batch_first=True)
        if module is lstm
        else torch.nn.RNN(inputs, width, layers, nonlinearity=settings["activation"], batch_first=True)
    )
    with torch.no_grad():
        for number, weights in enumerate(layer_weights):
            for path, name in NAMES.items():
                getattr(theirs, name.format(number)).copy_(torch.tensor(np.asarray(weights[path]).T))
            second = getattr(theirs, f"bias_hh_l{number}").zero_()
            if module is lstm:
                second[width : 2 * width] = settings["forget_bias"]
    return theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_whole_model_equals_torch(kind, size):
    import torch

    vocabulary, length, layers, width = size
    module, settings = KINDS[kind]
    config = module.Config(vocabulary=vocabulary, layers=layers, width=width, **settings)
    ours = random_params(module.param_specs(config), 0)
    flat = params.flatten(ours["blocks"])
    theirs = reference(kind, width, width, layers, [{path: flat[path][n] for path in NAMES} for n in range(layers)])
    draw = np.random.default_rng(1)
    ids = draw.integers(vocabulary, size=(2, length))
    weighting = draw.normal(size=(2, length, vocabulary)).astype(np.float32)
    carry = module.init_carry(ours, {"tokens": ids}, config, length)
    carry = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), carry)

    def score(weights, carry):
        output = module.apply(weights, {"tokens": jnp.array(ids)}, config, carry=carry)
        logits = module.logits(weights, output.hidden)
        return (logits * weighting).mean() + sum(leaf.mean() for leaf in output.carry.values()), (logits, output.carry)

    (gradients, carry_gradients), (logits, after) = jax.jit(jax.grad(score, (0, 1), has_aux=True))(ours, carry)

    table = torch.tensor(ours["embedding"]["table"], requires_grad=True)
    start = {name: torch.tensor(np.swapaxes(leaf, 0, 1).copy(), requires_grad=True) for name, leaf in carry.items()}
    states = (start["hidden"], start["cell"]) if module is lstm else start["hidden"]
    hidden, last = theirs(table[torch.tensor(ids)], states)
    last = dict(zip(("hidden", "cell"), last if module is lstm else (last,), strict=False))
    expected = hidden @ table.T
    ((expected * torch.tensor(weighting)).mean() + sum(leaf.mean() for leaf in last.values())).backward()

    equal = lambda mine, its, name: np.testing.assert_allclose(mine, its, atol=1e-5, rtol=1e-4, err_msg=name)
    equal(logits, expected.detach().numpy(), "logits")
    for name in after:
        equal(after[name].swapaxes(0, 1), last[name].detach().numpy(), f"last {name}")
        equal(carry_gradients[name].swapaxes(0, 1), start[name].grad.numpy(), f"gradient of the first {name}")
    equal(gradients["embedding"]["table"], table.grad.numpy(), "embedding/table")
    flat = params.flatten(gradients["blocks"])
    for number in range(layers):
        for path, name in NAMES.items():
            equal(flat[path][number], getattr(theirs, name.format(number)).grad.numpy().T, f"blocks/{number}/{path}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_with_inputs_of_another_width_equals_torch(kind):
    import torch

    module, settings = KINDS[kind]
    gates = 4 if module is lstm else 1
    ours = random_params(recurrent.recurrent_specs(3, 5, gates), 2)
    theirs = reference(kind, 3, 5, 1, [params.flatten(ours)])
    x = np.random.default_rng(3).normal(size=(2, 7, 3)).astype(np.float32)
    cell = recurrent.lstm_cell if module is lstm else recurrent.rnn_cell
    names = ("hidden", "cell") if module is lstm else ("hidden",)
    state = {name: jnp.zeros((2, 5)) for name in names}
    projected = linear.linear(ours["input"], jnp.array(x))
    states, _ = recurrent.run_over_time(lambda state, now: cell(ours, state, now, *settings.values()), state, projected)
    np.testing.assert_allclose(states["hidden"], theirs(torch.tensor(x))[0].detach().numpy(), atol=1e-5)
