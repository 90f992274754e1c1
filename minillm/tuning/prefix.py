"""Prefix tuning: trained keys and values before those of every self-attention. Li and Liang 2021."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.errors import UserError
from minillm.nn.linear import linear, linear_specs
from minillm.params import Params, ParamSpec, Specs, flatten, prefix, stack, unflatten
from minillm.tuning.adding import adding
from minillm.tuning.contract import Tuning

NETWORK = "/prefix/table"  # of a prefix that a network makes


def prefix_tuning(length: int, hidden: int = 0, heads: Sequence[str] = ()) -> Tuning:
    """`length` keys and values [layers, length, attention] in every stack's self-attention; positions are not consumed.

    With `hidden`, a network makes them from a table [length, hidden] while training (section 4.3), one per stack of
    blocks; `bake` leaves the plain rows. Unlike an adapter it changes the model from the start: the first rows are small,
    so that keys score about 0 and values add about nothing, but they take their share of the softmax. (The paper starts
    from activations of real words where data are few.) Raises: UserError where the model has no attention.
    """

    def added(table: Specs) -> Specs:
        rows = {}
        for path, row in table.items():
            place = path.removesuffix("/key/kernel")
            if place != path and "blocks" in place.split("/") and not place.endswith("cross_attention"):
                layers, _, width = row.shape
                new = _network(layers, length, hidden, width) if hidden else _plain(layers, length, width)
                rows |= prefix(new, f"{place}/prefix")
        if not rows:
            raise UserError("the model has no self-attention", "tuning.method", "use another method")
        return rows

    init, specs = adding(added, heads)
    return Tuning(init, specs, lambda trainable, frozen: unflatten(flatten(frozen) | flatten(bake(trainable))))


def bake(trainable: Params) -> Params:
    """The rows with every network replaced by the keys and values that it makes: what a model without it can load."""
    rows = flatten(trainable)
    for path in [path for path in rows if path.endswith(NETWORK)]:
        place = path.removesuffix("/table")
        network = {name: rows.pop(name) for name in list(rows) if name.startswith(f"{place}/")}
        parts = unflatten({name.removeprefix(f"{place}/"): row for name, row in network.items()})
        rows |= prefix(make_prefix(parts), place)
    return unflatten(rows)


def make_prefix(params: Params) -> dict[str, Float[Array, "layers prefix attention"]]:
    """P[i] = MLP(P'[i]) = W tanh(V P'[i] + a) + b, for the keys and values of all layers. Li and Liang 2021, section 4.3."""
    hidden = jnp.tanh(linear(params["up"], params["table"]))
    made = {}
    for name in ("key", "value"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        made[name] = jnp.einsum("ph,lha->lpa", hidden, kernel) + bias[:, None]
    return made


def _plain(layers: int, length: int, width: int) -> Specs:
    row = ParamSpec((layers, length, width), ("layers", None, "attention"))
    return {"key": row, "value": row}


def _network(layers: int, length: int, hidden: int, width: int) -> Specs:
    """Rows: table [length, hidden], up [hidden, hidden], and key and value [layers, hidden, attention]."""
    specs = {"table": ParamSpec((length, hidden), (None, None), scale=1.0)}
    specs |= prefix(linear_specs(hidden, hidden, (None, None), scale=hidden**-0.5), "up")
    for name in ("key", "value"):
        specs |= prefix(stack(linear_specs(hidden, width, (None, "attention"), scale=0.02), layers), name)
    return specs
