"""Adapters: narrow networks behind the sublayers of a frozen model. Houlsby et al. 2019, Pfeiffer et al. 2021."""

from collections.abc import Sequence

from minillm.errors import UserError
from minillm.nn.adapter import adapter_specs
from minillm.params import Specs, flatten, prefix, stack, unflatten
from minillm.tuning.adding import adding
from minillm.tuning.contract import Tuning

ATTENTION, FEEDFORWARD = "/output/kernel", "/down/kernel"  # the last product of each sublayer of a block


def adapter(size: int, placement: str = "houlsby", heads: Sequence[str] = ()) -> Tuning:
    """x + up(GELU(down(x))) on a sublayer's output, before the residual sum; up begins at zero: nothing changes at first.

    houlsby: after every sublayer, attention and feed-forward (section 2.1; in a decoder also after cross-attention;
    deviation: the norms stay frozen, theirs train).
    pfeiffer: after the feed-forward alone (AdapterFusion, section 3.2; deviations: GELU, and no norm is moved).
    Raises: UserError where the model has no such sublayers.
    """
    ends = (ATTENTION, FEEDFORWARD) if placement == "houlsby" else (FEEDFORWARD,)

    def added(table: Specs) -> Specs:
        rows = {}
        for path, row in table.items():
            if "blocks" in path.split("/") and path.endswith(ends):
                layers, _, width = row.shape
                place = path.removesuffix(ATTENTION).removesuffix(FEEDFORWARD)
                rows |= prefix(stack(adapter_specs(width, size), layers), f"{place}/adapter")
        if not rows:
            raise UserError("the model has no Transformer blocks to adapt", "tuning.method", "use another method")
        return rows

    init, specs = adding(added, heads)
    return Tuning(init, specs, lambda trainable, frozen: unflatten(flatten(frozen) | flatten(trainable)))
