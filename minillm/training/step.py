"""The training step as a pure function: objective -> gradient -> update.

Gradient = (trainable, frozen, extra, batch, key) -> (gradients, Sums): plain, or accumulated over shards of the batch.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from minillm.models.contract import Model
from minillm.objectives.contract import Objective, Sums, interacts, total_loss
from minillm.training.parts import over_parts
from minillm.training.state import State
from minillm.tuning.contract import Tuning


def make_gradient(objective: Objective, model: Model, tuning: Tuning, coefficients: Mapping[str, float]) -> Callable:
    """The plain gradient: (trainable, frozen, extra, batch, key, weights=None) -> (gradients, Sums).

    `weights` are the denominators of the whole batch, where `batch` is only a part of it; None: the batch's own.
    """
    model = tuning.wrap(model)

    def loss(trainable, frozen, extra, batch, key, weights):
        sums = objective(model, tuning.attach(trainable, frozen), batch, key, extra)
        return total_loss(sums, sums.weights if weights is None else weights, coefficients), sums

    def gradient(trainable, frozen, extra, batch, key, weights=None):
        return jax.grad(loss, has_aux=True)(trainable, frozen, extra, batch, key, weights)

    def only_weights(trainable, frozen, extra, batch, key):
        return loss(trainable, frozen, extra, batch, key, None)[1].weights

    def embeddings(trainable, frozen, batch):
        return jax.eval_shape(model.embed, tuning.attach(trainable, frozen), batch)

    gradient.weights = only_weights  # weights come from the data alone: XLA drops the forward pass
    gradient.loss, gradient.embeddings = loss, embeddings  # for wrappers that differentiate by more, or more than once
    gradient.interacts = interacts(objective)
    return gradient


def accumulate(gradient: Callable, shards: int, mesh: Mesh | None = None) -> Callable:
    """The same gradient as a sum over `shards` equal parts of the batch, added in a fixed order: see `parts.py`.

    The denominators of all parts are added first, so that the sum equals the full batch's gradient whatever the
    padding. Memory for activations falls by `shards`.
    """
    if shards == 1:
        return gradient
    if getattr(gradient, "interacts", False):
        raise ValueError("the examples of a batch interact in this objective: it cannot be accumulated over shards")

    def one(part, weights, trainable, frozen, extra, key):
        gradients, sums = gradient(trainable, frozen, extra, part, key, weights)
        return gradients, sums._replace(extra=None)

    def only_weights(part, trainable, frozen, extra, key):
        return gradient.weights(trainable, frozen, extra, part, key)

    def accumulated(trainable, frozen, extra, batch, key, weights=None):
        others = (trainable, frozen, extra, key)
        if weights is None:
            weights = over_parts(only_weights, shards, mesh)(batch, *others)
        gradients, sums = over_parts(one, shards, mesh)(batch, weights, *others)
        return gradients, sums._replace(extra=extra)

    return accumulated


def make_train_step(
    gradient: Callable, optimizer: optax.GradientTransformation, tuning: Tuning, coefficients: Mapping[str, float],
    skip_non_finite: bool = False,
) -> Callable:  # fmt: skip
    """train_step(state, frozen, batch, key) -> (state, metrics); pure, for `jax.jit` with the state donated.

    `key` is the run's; dropout's key is fold_in(key, step), so nothing random is carried. Metrics: "loss", the
    global norm of the gradient before clipping, and the objective's own means. With `skip_non_finite`, a step whose loss or
    norm is not finite changes nothing but the step.
    """

    def train_step(state: State, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        gradients, sums = gradient(state.trainable, frozen, state.extra, batch, key)
        loss = total_loss(sums, sums.weights, coefficients)
        if tuning.penalty is not None:
            value, penalty = jax.value_and_grad(tuning.penalty)(state.trainable, frozen)
            loss, gradients = loss + value, jax.tree.map(jnp.add, gradients, penalty)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.trainable)
        if tuning.scale is not None:
            updates = jax.tree.map(jnp.multiply, updates, tuning.scale(state.trainable, state.step))
        trainable, extra = optax.apply_updates(state.trainable, updates), sums.extra
        if tuning.update is not None:
            trainable, extra = tuning.update(trainable, extra, gradients, state.step)
        metrics = {"loss": loss, "gradient_norm": global_norm(gradients)} | means(sums)
        after = State(state.step + 1, trainable, optimizer_state, extra)
        return (unless_non_finite(state, after, metrics) if skip_non_finite else after), metrics

    return train_step


def unless_non_finite(before: State, after: State, metrics: Mapping[str, jax.Array]) -> State:
    """The state after a step, or the one before it where loss or gradient norm is not finite.

    The step and the schedule's count go on either way: the learning rate belongs to the step, not to the updates done.
    """
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    counts = lambda part: isinstance(part, optax.ScaleByScheduleState)
    choose = lambda old, new: new if counts(new) else jnp.where(finite, new, old)
    return jax.tree.map(choose, before, after, is_leaf=counts)._replace(step=after.step)


def global_norm(tree) -> jax.Array:
    """The Euclidean norm over all leaves as one vector."""
    return jnp.sqrt(sum(jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(tree)))


def means(sums: Sums) -> dict:
    """The objective's metrics, each sum over its weight."""
    return {name: value / jnp.maximum(weight, 1e-9) for name, (value, weight) in sums.metrics.items()}


def init_state(trainable, extra, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step."""
    return State(jnp.zeros((), jnp.int32), trainable, optimizer.init(trainable), extra)


def make_eval_step(
    objective: Objective, model: Model, tuning: Tuning, shards: int = 1, mesh: Mesh | None = None
) -> Callable:
    """eval_step(trainable, frozen, batch, extra) -> ({name: (sum, weight)}, extra); no dropout.

    The names are the metrics', and "term/NAME" for every term of the loss. `extra` is a carry where rows go on from batch
    to batch, else empty. With `shards`, the sums are added as those of the training step.
    """
    model = tuning.wrap(model)

    def eval_step(trainable, frozen, batch, extra):
        sums = objective(model, tuning.attach(trainable, frozen), batch, None, extra)
        terms = {f"term/{name}": (value, sums.weights[name]) for name, value in sums.sums.items()}
        return dict(sums.metrics) | terms, sums.extra

    if shards == 1:
        return eval_step
    only_sums = lambda part, trainable, frozen, extra: eval_step(trainable, frozen, part, extra)[0]
    summed = over_parts(only_sums, shards, mesh)
    return lambda trainable, frozen, batch, extra: (summed(batch, trainable, frozen, extra), extra)
