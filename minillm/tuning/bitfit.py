"""BitFit: only biases train. Ben Zaken et al. 2022."""

from collections.abc import Mapping, Sequence

from minillm.errors import UserError
from minillm.params import Specs, flatten, unflatten
from minillm.tuning.adding import adding, matching
from minillm.tuning.contract import Tuning

BIASES = "*bias"  # of linear layers and LayerNorms, and Transformer-XL's u and v, which are added to every query


def bitfit(heads: Sequence[str] = ()) -> Tuning:
    """Every row named bias trains, and the heads; all else is frozen (section 3.1).

    Raises: UserError where the model has no bias (T5, or bias = false).
    """
    split_init, split_specs = adding(lambda frozen: {}, (BIASES, *heads))

    def check(rows: Mapping) -> None:
        if not matching(rows, (BIASES,)):
            raise UserError("the model has no bias to train", "tuning.method", "use another method")

    def init(params, key):
        check(flatten(params))
        return split_init(params, key)

    def specs(model_specs: Specs) -> Specs:
        check(model_specs)
        return split_specs(model_specs)

    def attach(trainable, frozen):
        return unflatten(flatten(frozen) | flatten(trainable))

    return Tuning(init, specs, attach)
