"""Recurrent layers: the cells of Elman's network and of the LSTM, and the loop over time that both share.

A state is a dict of arrays [batch, model]: {"hidden"}, or {"hidden", "cell"}. What a layer does to its inputs needs no
state, so `linear(params["input"], x)` runs for all times at once; only the product with the hidden state is in the loop
(width 256, batch 16, length 256, two cores: the LSTM's gradient takes 0.29 s, torch's 0.65 s; unrolling gains nothing).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from minillm.nn.linear import linear
from minillm.params import ParamSpec, Specs

State = dict[str, Float[Array, "batch model"]]
States = dict[str, Float[Array, "batch length model"]]

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def recurrent_specs(inputs: int, width: int, gates: int = 1) -> Specs:
    """Rows of one layer: input kernel [inputs, gates * width] with bias, recurrent kernel [width, gates * width].

    Kernels start uniform in +-1/sqrt(width), as in torch; biases at zero. The gates' axis has no name, so no mesh splits
    it: a split would cost a collective at every time step.
    """
    kernel = lambda rows: ParamSpec((rows, gates * width), ("model", None), "uniform", width**-0.5)
    bias = ParamSpec((gates * width,), (None,), "zeros")
    return {"input/kernel": kernel(inputs), "input/bias": bias, "recurrent/kernel": kernel(width)}


def rnn_cell(params: dict, state: State, projected: Float[Array, "batch gates"], activation: str = "tanh") -> State:
    """h_t = tanh(W x_t + b + U h_{t-1}). Elman 1990; `projected` is W x_t + b. ReLU: Le et al. 2015."""
    return {"hidden": ACTIVATIONS[activation](projected + linear(params["recurrent"], state["hidden"]))}


def lstm_cell(params: dict, state: State, projected: Float[Array, "batch gates"], forget_bias: float = 1.0) -> State:
    """One step of the LSTM; `projected` is W x_t + b.

        i, f, g, o = W x_t + b + U h_{t-1}             in this order, that of torch
        c_t = sigmoid(f + forget_bias) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Hochreiter and Schmidhuber 1997; the forget gate is Gers et al. 2000, and its bias of 1, with which a cell remembers
    before it has learned to, Jozefowicz et al. 2015. The cell is a sum over time: float32 whatever the type of h.
    """
    gates = projected + linear(params["recurrent"], state["hidden"])
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates.astype(jnp.float32), 4, axis=-1)
    kept = jax.nn.sigmoid(forget_gate + forget_bias) * state["cell"]
    cell = kept + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    return {"hidden": (jax.nn.sigmoid(output_gate) * jnp.tanh(cell)).astype(gates.dtype), "cell": cell}


def run_over_time(
    cell: Callable[[State, Array], State],
    state: State,
    projected: Float[Array, "batch length gates"],
    starts: Bool[Array, "batch length"] | None = None,
    lengths: Int[Array, "batch"] | None = None,
) -> tuple[States, State]:
    """Runs `cell` from `state` over all times -> the states after each, and the last one.

    Where `starts` is true, the state is forgotten before the token is read. A row's state stands still from its length
    on, so that the last state is that of its last real token.
    """

    def step(state, now):
        projected, start, real = now
        before = state if start is None else _select(start, jax.tree.map(jnp.zeros_like, state), state)
        after = cell(before, projected)
        after = after if real is None else _select(real, after, state)
        return after, after

    real = None if lengths is None else jnp.arange(projected.shape[1])[:, None] < lengths
    starts = None if starts is None else starts.T
    last, states = lax.scan(step, state, (projected.swapaxes(0, 1), starts, real))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), states), last


def document_starts(
    reset: Bool[Array, "batch length"] | None, segments: Int[Array, "batch length"] | None
) -> Bool[Array, "batch length"] | None:
    """Where a token begins a document: as told, and where a packed row goes from one segment to the next."""
    if segments is None:
        return reset
    changes = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return changes if reset is None else changes | reset


def _select(rows, state: State, otherwise: State) -> State:
    return jax.tree.map(lambda a, b: jnp.where(rows[:, None], a, b), state, otherwise)
