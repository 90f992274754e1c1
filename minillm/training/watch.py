"""Which steps must not stand, and what is done about them: values that are not finite, and spikes of the loss.

    stop     the run ends and names the first value that is not finite
    skip     the step counts, its update does not: decided on the device, see `step.py`
    rewind   back to the last checkpoint that the plan asked for; the batches from there to the bad step are left out
             (Chowdhery et al. 2022, section 5.1, who went back some 100 steps and left 200 to 500 batches out)

Parameters are looked at before they are saved, so that nobody goes back to broken ones. Decisions depend on these, on
metrics and on steps alone, so that a run that was killed decides as the straight one. What was skipped and left out is
kept with every checkpoint.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SAME_AS_DEVIATION = 1.4826  # of a normal distribution, over its median absolute deviation
RESOLUTION = 1e-3  # of the median: losses that hardly vary would make a spike of every one


class Watch(NamedTuple):
    """What is looked for and what follows; see `sections.TrainConfig`."""

    on_non_finite: str = "stop"
    spike: float | None = None
    window: int = 100
    on_spike: str = "warn"
    bad_steps: int = 10


class Mended(NamedTuple):
    """A bad step that the run went on from: after `to`, which is `step` itself where only the update was left out."""

    step: int
    to: int
    why: str


class Bad(Exception):
    """A step that must not stand."""

    def __init__(self, step: int, why: str, progress, rewinds: bool):
        super().__init__(why)
        self.step, self.why, self.progress, self.rewinds = step, why, progress, rewinds


def left_out(mended: Sequence[Sequence]) -> int:
    """How many batches the run has gone past so far: step n, counted from 0, reads batch n + left_out."""
    return sum(step - to for step, to, _ in mended)


def goes_back(watch: Watch) -> bool:
    """Whether the run may need older checkpoints."""
    return "rewind" in (watch.on_non_finite, watch.on_spike if watch.spike else "")


def back_to(bad: Bad) -> int:
    """The step to go back to: the anchor, or the checkpoint before it where the last rewind to it led no further.

    Other batches that end as those before speak against the state that was saved.
    """
    progress = bad.progress
    step, to, _ = progress.mended[-1] if progress.mended else (0, 0, "")
    again = to == progress.anchor and to < step and bad.step <= step
    return progress.before if again and progress.before is not None else progress.anchor


@jax.jit
def finite(tree: Any) -> jax.Array:
    """[] bool: no array holds an infinity or what is not a number. Of several processes, each learns it of the whole."""
    return jnp.stack([jnp.array(True), *(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))]).all()


def non_finite(metrics: Mapping[str, float]) -> str:
    """In words, which of loss and gradient norm is not finite; empty where both are."""
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(metrics.get(name, 0.0)):
            return f"the {name.replace('_', ' ')} became {metrics[name]}"
    return ""


def spike(losses: Sequence[float], loss: float, watch: Watch) -> str:
    """In words, that a loss is far above those before it; empty where it is not, or where too few are known.

    loss > median + spike * deviation, the deviation by the median absolute one, which earlier spikes do not widen
    (Hampel 1974).
    """
    if watch.spike is None or len(losses) < watch.window:
        return ""
    middle = statistics.median(losses)
    deviation = SAME_AS_DEVIATION * statistics.median(abs(value - middle) for value in losses)
    if loss <= middle + watch.spike * max(deviation, RESOLUTION * abs(middle)):
        return ""
    return f"the loss spiked to {loss:.4f}, the median of the {len(losses)} before is {middle:.4f}"
