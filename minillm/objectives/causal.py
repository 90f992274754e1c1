"""The autoregressive objective: predict each next token from those before it.

L = - sum over t of  w_t log p(x_{t+1} | x_1 ... x_t)  /  sum over t of w_t        Radford et al. 2018, equation 1
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Sums


def token_losses(
    logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Negative log-likelihood of each target in nats, and the logarithm of the normaliser, in float32.

    The target's logit is picked by comparison, not by indexing: its gradient then fuses with the softmax's instead of
    becoming a scatter.
    """
    logits = logits.astype(jnp.float32)
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    hit = jnp.arange(logits.shape[-1]) == targets[..., None]
    return log_normaliser - jnp.where(hit, logits, 0.0).sum(-1), log_normaliser


def causal(
    model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0, z_loss: bool = False
) -> Sums:
    """Sums over the tokens with weight: cross-entropy "loss", and "z" where asked; metrics "nll" and "accuracy".

    Label smoothing e replaces the target by (1 - e) target + e uniform (Szegedy et al. 2016, section 7). The z-loss
    log^2 Z keeps the normaliser near 1 (Chowdhery et al. 2022, section 5); give it a coefficient near 1e-4.

    Where `extra` holds a "carry", the rows go on from it, and the extra that comes back holds the new one: truncated
    back-propagation through time, since no gradient flows from one call to the one before.
    """
    carried = {"carry": extra["carry"]} if extra and "carry" in extra else {}
    output = model.apply(params, batch, key=key, **carried)
    extra = extra | {"carry": output.carry} if carried else extra
    logits = model.logits(params, output.hidden)
    return prediction_sums(logits, batch, extra, label_smoothing=label_smoothing, z_loss=z_loss)


def prediction_sums(
    logits: Float[Array, "batch length vocab"], batch: Batch, extra, *, label_smoothing: float, z_loss: bool
) -> Sums:
    """What `causal` returns, from logits and the batch's targets and weights."""
    weights = batch["weights"].astype(jnp.float32)
    total = weights.sum()
    losses, log_normaliser = token_losses(logits, batch["targets"])
    correct = (logits.argmax(-1) == batch["targets"]).astype(jnp.float32)
    metrics = {"nll": ((losses * weights).sum(), total), "accuracy": ((correct * weights).sum(), total)}
    if label_smoothing:
        uniform = log_normaliser - logits.astype(jnp.float32).mean(-1)
        losses = (1.0 - label_smoothing) * losses + label_smoothing * uniform
    sums, denominators = {"loss": (losses * weights).sum()}, {"loss": total}
    if z_loss:
        sums["z"], denominators["z"] = (jnp.square(log_normaliser) * weights).sum(), total
    return Sums(sums, denominators, metrics, extra)
