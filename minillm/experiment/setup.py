"""config -> model, optimizer, training step and shardings: everything that does not depend on the text itself."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from minillm import hosts, params, sharding
from minillm.config import Experiment, model_config
from minillm.errors import UserError
from minillm.experiment.examples import example_length, row_lengths
from minillm.experiment.recipes import domains, few, tasks
from minillm.experiment.recipes.around import recipe_gradient, recipe_objective, recipe_tuning
from minillm.models.contract import Model, bind
from minillm.objectives import OBJECTIVES
from minillm.sections.experiment import NEEDS
from minillm.training.optimizer import make_optimizer, make_schedule
from minillm.training.state import State
from minillm.training.step import accumulate, init_state, make_eval_step, make_train_step
from minillm.tuning import make_tuning
from minillm.tuning.contract import Tuning


class Setup(NamedTuple):
    """All that training needs but data."""

    module: Any  # what generates; its context is that which the tuning leaves
    config: Any  # the model's own, for `module`
    specs: dict  # the whole table
    model: Model
    tuning: Tuning
    optimizer: Any
    schedule: Callable
    mesh: Any
    shardings: tuple  # of (state, frozen, batch)
    key: Any
    born: Callable  # (key, base) -> (state, frozen) before the first step
    train_step: Callable  # jitted
    eval_step: Callable  # jitted
    fresh_carry: Callable  # () -> {"carry": of rows that have read nothing}, or {} where none is carried
    gradient: Callable  # not jitted: what the training step computes first


def make_setup(
    experiment: Experiment,
    vocabulary: int,
    devices: Sequence[jax.Device] | None = None,
    shares: Mapping[str, float] | None = None,
) -> Setup:
    """Builds everything; allocates no array but the key.

    `devices`: those of the mesh; None: the first that JAX has. `shares`: of the tasks in a mixture, which the data tells.
    """
    train, mesh = experiment.train, sharding.make_mesh(experiment.mesh.data, experiment.mesh.model, devices)
    module, config, model = _make_model(experiment, vocabulary, mesh)
    specs, carry = module.param_specs(config), _carry_maker(experiment, module, config)
    specs = specs | tasks.task_specs(experiment, specs, vocabulary)
    tuning = make_tuning(experiment.tuning, heads=head_patterns(experiment), steps=train.steps)
    tuning = recipe_tuning(experiment, tuning)
    module, config = tuning.wrap_module(module, config)
    _refuse_sizes(experiment, getattr(config, "context", 1))
    objective, coefficients = make_objective(experiment, shares)
    trainable_specs = tuning.specs(specs)
    optimizer = make_optimizer(experiment.optimizer, train.steps, params.decay_mask(trainable_specs))
    batch = sharding.batch_sharding(mesh)
    gradient = recipe_gradient(experiment, objective, model, tuning, coefficients)
    gradient = domains.remembering(experiment, accumulate(gradient, train.shards, mesh))
    born = functools.partial(_born, specs, tuning, optimizer, lambda: carry() | domains.memory(experiment))
    places = sharding.param_shardings(specs | trainable_specs, sharding.RULES[experiment.mesh.rules], mesh)
    shardings = state_shardings(born, places, mesh)
    copies = sharding.replicated(mesh)
    train_step = make_train_step(gradient, optimizer, tuning, coefficients, train.on_non_finite == "skip")
    train_step = jax.jit(
        train_step if jax.process_count() == 1 else hosts.noted(train_step),
        in_shardings=(*shardings, batch, copies),
        out_shardings=(shardings[0], copies),
        donate_argnums=0,
    )
    eval_step = jax.jit(
        make_eval_step(evaluation_objective(experiment), model, tuning, train.shards, mesh),
        in_shardings=(shardings[0].trainable, shardings[1], batch, batch),
        out_shardings=(copies, batch),
    )
    schedule = make_schedule(experiment.optimizer, train.steps)
    return Setup(module, config, specs, model, tuning, optimizer, schedule, mesh, (*shardings, batch),
                 jax.random.key(train.seed), born, train_step, eval_step, jax.jit(carry, out_shardings=batch),
                 gradient)  # fmt: skip


def _make_model(experiment: Experiment, vocabulary: int, mesh: Any) -> tuple[Any, Any, Model]:
    """(module, its Config, the model with that Config bound), as the mesh lets them be."""
    module, config = model_config(experiment.model, vocabulary)
    if getattr(config, "kernel", None) == "auto" and max(mesh.size, experiment.train.shards) > 1:
        config = dataclasses.replace(config, kernel="own")  # the fused one is measured, and tried, on one device alone
    model = bind(module, config)
    if experiment.train.shards == 1:  # a virtual shard is computed on one device of "data"
        model = sharding.place_activations(model, experiment.mesh.rules, mesh)
    return module, config, model


def _refuse_sizes(experiment: Experiment, context: int) -> None:
    """Raises: UserError where examples are too long, or a batch cannot be split as the mesh wants it."""
    train = experiment.train
    for name in (tasks.MAIN, *tasks.active(experiment)):
        _refuse_long_examples(tasks.part(experiment, name), context)
    parts = "shards" if train.shards > 1 else "batch_size"
    if (count := getattr(train, parts)) % experiment.mesh.data:
        message = f"{parts} = {count} cannot be split over mesh.data = {experiment.mesh.data} devices"
        raise UserError(message, f"train.{parts}, mesh.data", f"make {parts} a multiple of mesh.data")
    if jax.process_count() > 1 and train.shards == 1:
        if experiment.invariance is not None and experiment.invariance.method == "irm":
            message = "several processes share a batch by its shards, and irm's penalty cannot be parted into shards"
            raise UserError(message, "invariance.method", "use dro, or one process")
        message = "several processes share a batch by its shards, got 1"
        raise UserError(message, "train.shards", "set it to mesh.data or more")


def refuse_kernel(experiment: Experiment) -> None:
    """Raises: UserError where the attention's kernel does not run on this machine."""
    if experiment.model.get("kernel") == "cudnn" and jax.default_backend() != "gpu":
        raise UserError(f"cuDNN runs on NVIDIA GPUs, this is a {jax.default_backend()}", "model.kernel", "leave it out")


def with_own_kernel(experiment: Experiment) -> Experiment:
    """The same model with the attention that runs anywhere, where this machine has no GPU."""
    if experiment.model.get("kernel") != "cudnn" or jax.default_backend() == "gpu":
        return experiment
    return dataclasses.replace(experiment, model=experiment.model | {"kernel": "own"})


def _refuse_long_examples(experiment: Experiment, context: int) -> None:
    length, longest = row_lengths(experiment)
    prompted = experiment.tuning.method == "prompt"
    if longest > context:
        what = f"examples of {length} tokens" + (f" become rows of {longest}, which" if longest > length else "")
        room = (
            f"what tuning.prompt_length leaves of the context, {context}"
            if prompted
            else f"the model's context of {context}"
        )
        mend = f"make data.length{' or tuning.prompt_length' * prompted} smaller or model.context larger"
        raise UserError(f"{what} are longer than {room}", "data.length", mend)


def head_patterns(experiment: Experiment) -> tuple[str, ...]:
    """Paths of the objectives' own heads, which train whatever the tuning method."""
    if experiment.objective.name == "pattern":
        return ()  # its words are scored by what was pretrained
    heads = NEEDS[experiment.objective.name].tasks
    others = ("tasks/*", "pooler/*") if tasks.active(experiment) else ("pooler/*",) if heads else ()
    return (*(f"{head}/*" for head in heads), *others)


def make_objective(
    experiment: Experiment, shares: Mapping[str, float] | None = None
) -> tuple[Callable, dict[str, float]]:
    """The [objective] section, and those of [tasks]: the function and a coefficient per term."""
    if tasks.active(experiment):
        alone = lambda part: (*make_objective(part), NEEDS[part.objective.name].terms)
        return tasks.joint_objective(experiment, shares, alone)
    section = experiment.objective
    objective, coefficients = evaluation_objective(experiment), dict(section.coefficients)
    options = NEEDS[section.name].options
    if "label_smoothing" in options:
        objective = functools.partial(objective, label_smoothing=section.label_smoothing)
    if "z_loss" in options:
        objective = functools.partial(objective, z_loss=section.z_loss > 0.0)
        coefficients |= {"z": section.z_loss} if section.z_loss > 0.0 else {}
    objective, coefficients = few.with_terms(experiment, objective, coefficients)
    return recipe_objective(experiment, objective, coefficients)


def evaluation_objective(experiment: Experiment) -> Callable:
    """What held-out rows are measured by: the objective without what only training adds."""
    objective, section = OBJECTIVES[experiment.objective.name], experiment.contrastive
    if experiment.objective.name != "simcse" or section is None:
        return objective
    return functools.partial(objective, temperature=section.temperature, pooling=section.pooling)


def _carry_maker(experiment: Experiment, module, config) -> Callable[[], dict]:
    if experiment.data.packing != "continued":
        return dict
    length = example_length(experiment)
    rows = {"tokens": np.zeros((experiment.train.batch_size, length), np.int32)}
    return lambda: {"carry": module.init_carry({}, rows, config, length)}


def state_shardings(born: Callable, places: dict, mesh) -> tuple[State, Any]:
    """Shardings of (state, frozen): every copy of a parameter lies where the parameter lies, a carry with its rows."""
    state, frozen = jax.eval_shape(born, jax.random.key(0))
    found = sharding.like_params(state, places, mesh)
    if "carry" in state.extra:
        rows = jax.tree.map(lambda leaf: sharding.batch_sharding(mesh), state.extra["carry"])
        found = found._replace(extra=found.extra | {"carry": rows})
    return found, sharding.like_params(frozen, places, mesh)


def abstract_state(setup: Setup) -> tuple[State, Any]:
    """(state, frozen) as shapes, types and shardings: a checkpoint's template."""
    shapes = jax.eval_shape(setup.born, jax.random.key(0))
    attach = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    return tuple(jax.tree.map(attach, tree, place) for tree, place in zip(shapes, setup.shardings[:2], strict=True))


def new_state(setup: Setup, base: Mapping[str, np.ndarray] | None = None) -> tuple[State, Any]:
    """(state, frozen), each array born where it belongs; `base` has parameters, by path, that are not left to chance."""
    return jax.jit(setup.born, out_shardings=setup.shardings[:2])(setup.key, dict(base or {}))


def _born(specs, tuning: Tuning, optimizer, fresh: Callable[[], dict], key, base=None) -> tuple[State, Any]:
    tuning_key = params.leaf_key(key, "tuning")
    chance = params.flatten(params.init_params(specs, key, jnp.float32))
    trainable, frozen, extra = tuning.init(params.unflatten(chance | (base or {})), tuning_key)
    return init_state(trainable, extra | fresh(), optimizer), frozen
