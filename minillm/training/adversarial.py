"""Adversarial training: gradients at embeddings x that are changed a little, so that the loss is worse there.

    r_i = argmax over |r| <= strength of  L(x_i + r)            r [length, model], the change of example i

|r| is the Euclidean norm over all of an example's own tokens, padding left out. The change depends on its example alone, so
that shards and accumulation of a batch change nothing (beside a contrastive term on the batch, which is never parted). Each
method makes a gradient out of a gradient:

    fgm     r = strength g / |g|, g the slope of L by x; the mean of the gradients at x and at x + r.
            Goodfellow et al. 2015, section 6 (their alpha = 0.5); Miyato et al. 2017, equation 5 (their sum is twice that, and
            they normalise embeddings first, lest these grow until `strength` is nothing; here they may grow)
    pgd     `steps` times r <- project(r + step_size g / |g|), from r = 0; the gradient at x + r alone.
            Madry et al. 2018, equations 2.1 and section 2.1 (they also begin at random)
    freelb  the same ascents, from a random r; the mean of the gradients at every r on the way.
            Zhu et al. 2020, algorithm 1, with one mask of dropout for all ascents (section 3.3)

A slope and a gradient at the same place cost one backward pass. Per update these are 2 passes for fgm, steps + 1 for pgd
and steps for freelb, where plain training has 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from minillm.models.contract import Batch, Model
from minillm.nn.dropout import example_keys
from minillm.objectives.contract import Sums
from minillm.tuning.contract import Tuning

Change = Float[Array, "batch length model"]
START = 2**31 - 1  # keeps the random start's keys apart from those of dropout
LEAST = 1e-30  # in place of a norm of 0


def perturbed(model: Model) -> Model:
    """The model whose embeddings are changed by batch["perturbation"], where the batch has one."""

    def apply(params, batch: Batch, *, embeddings=None, **others):
        if "perturbation" not in batch:
            return model.apply(params, batch, embeddings=embeddings, **others)
        change, batch = batch["perturbation"], {name: leaf for name, leaf in batch.items() if name != "perturbation"}
        x = model.embed(params, batch) if embeddings is None else embeddings
        return model.apply(params, batch, embeddings=x + change.astype(x.dtype), **others)

    return model._replace(apply=apply)


def perturbable(tuning: Tuning) -> Tuning:
    """The tuning whose wrapped model reads batch["perturbation"]: it changes what a prompt has been put before, too."""
    return tuning._replace(wrap=lambda model: perturbed(tuning.wrap(model)))


def own_places(batch: Batch, shape: tuple[int, ...]) -> Bool[Array, "batch length 1"]:
    """Where embeddings of this shape may change: at a row's own tokens, not at padding nor at a prompt before them."""
    mask = batch["mask"] if "mask" in batch else batch["segments"] > 0 if "segments" in batch else jnp.ones(shape[:2])
    return jnp.pad(jnp.asarray(mask, bool), ((0, 0), (shape[1] - mask.shape[1], 0)))[..., None]


def norm(change: Change) -> Float[Array, "batch 1 1"]:
    """Of each example."""
    return jnp.sqrt(jnp.square(change).sum((1, 2), keepdims=True))


def unit(slope: Change, own: Bool[Array, "batch length 1"]) -> Change:
    """The slope at an example's own places, of norm 1; 0 where it is 0.

    It is divided by its largest entry first: the squares of a confident example's slope are below float32's smallest.
    """
    slope = jnp.where(own, slope.astype(jnp.float32), 0.0)
    slope = slope / jnp.maximum(jnp.abs(slope).max((1, 2), keepdims=True), LEAST)
    return slope / jnp.maximum(norm(slope), LEAST)


def climb(change: Change, slope: Change, own: Bool[Array, "batch length 1"], size: float, most: float) -> Change:
    """One step of `size` uphill, then back to the nearest change whose norm is at most `most`."""
    change = change + size * unit(slope, own)
    return change * jnp.minimum(1.0, most / jnp.maximum(norm(change), LEAST))


def ascend(slope_at: Callable[[Change], Change], start: Change, own: Array, steps: int, size: float, most: float):
    """`steps` climbs from `start`."""
    return jax.lax.fori_loop(0, steps, lambda _, change: climb(change, slope_at(change), own, size, most), start)


def random_start(key, batch: Batch, own: Bool[Array, "batch length 1"], width: int, strength: float) -> Change:
    """Uniform in [-strength, strength] / sqrt(n) at each of an example's n numbers: of norm strength / sqrt(3) or so.

    Zhu et al. 2020, algorithm 1, line 4. It depends on the example's index, not on its shard.
    """
    keys = example_keys(jax.random.fold_in(key, START), batch["index"])
    noise = jax.vmap(lambda key: jax.random.uniform(key, (own.shape[1], width), minval=-1.0, maxval=1.0))(keys)
    return jnp.where(own, strength * noise / jnp.sqrt(jnp.maximum(own.sum((1, 2), keepdims=True) * width, 1)), 0.0)


def adversarial(
    gradient: Callable, method: str, strength: float, steps: int = 1, size: float | None = None
) -> Callable:
    """A gradient of `training.step.make_gradient`, of a `perturbable` tuning, -> the adversarial one, with metrics more.

    The Sums are those of the first pass, so that losses compare with plain training's; "adversarial_NAME" is each term's
    mean in the last one. `size` is that of each step; None: 2.5 * strength / steps (Madry et al. 2018 on CIFAR).
    """
    size = 2.5 * strength / steps if size is None else size

    def changed(trainable, frozen, extra, batch, key, weights=None):
        shape = gradient.embeddings(trainable, frozen, batch).shape
        own, parts = own_places(batch, shape), (frozen, extra, batch, key, weights)
        zero = jnp.zeros(shape, jnp.float32)
        at = lambda change: _both(gradient, trainable, parts, change)
        if method == "fgm":
            (clean, slope), first = at(zero)
            (worse, _), last = at(climb(zero, slope, own, strength, strength))
            gradients = jax.tree.map(lambda a, b: 0.5 * (a + b), clean, worse)
        elif method == "pgd":
            slope_at = lambda change: _slope(gradient, trainable, parts, change)[0]
            slope, first = _slope(gradient, trainable, parts, zero)
            change = climb(zero, slope, own, size, strength)
            (gradients, _), last = at(ascend(slope_at, change, own, steps - 1, size, strength))
        else:
            start = random_start(key, batch, own, shape[-1], strength)
            gradients, first, last = _mean_on_the_way(
                at, trainable, start, lambda *way: climb(*way, own, size, strength), steps
            )
        named = {f"adversarial_{name}": (value, last.weights[name]) for name, value in last.sums.items()}
        return gradients, first._replace(metrics={**first.metrics, **named}, extra=extra)

    changed.weights, changed.loss, changed.embeddings = gradient.weights, gradient.loss, gradient.embeddings
    changed.interacts = getattr(gradient, "interacts", False)
    return changed


def _loss_at(gradient: Callable, parts: tuple) -> Callable:
    frozen, extra, batch, key, weights = parts
    return lambda trainable, change: gradient.loss(
        trainable, frozen, extra, {**batch, "perturbation": change}, key, weights
    )


def _both(gradient: Callable, trainable, parts: tuple, change: Change) -> tuple[tuple, Sums]:
    """((gradients, slope), Sums) at x + change, by one backward pass."""
    return jax.grad(_loss_at(gradient, parts), argnums=(0, 1), has_aux=True)(trainable, change)


def _slope(gradient: Callable, trainable, parts: tuple, change: Change) -> tuple[Change, Sums]:
    return jax.grad(_loss_at(gradient, parts), argnums=1, has_aux=True)(trainable, change)


def _mean_on_the_way(at: Callable, trainable, start: Change, further: Callable, steps: int) -> tuple:
    """(mean gradients, first Sums, last Sums) over `steps` changes, each a climb from the one before."""

    def step(carry, _):
        change, total = carry
        (gradients, slope), sums = at(change)
        total = jax.tree.map(lambda total, part: total + part / steps, total, gradients)
        return (further(change, slope), total), sums._replace(extra=None)

    nothing = jax.tree.map(jnp.zeros_like, trainable)
    (_, gradients), sums = jax.lax.scan(step, (start, nothing), length=steps)
    return gradients, *(jax.tree.map(lambda leaf, place=place: leaf[place], sums) for place in (0, -1))
