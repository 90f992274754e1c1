"""Optimisers and learning-rate schedules, put together from optax. Lesson 03 writes SGD and AdamW by hand."""

from dataclasses import dataclass, fields
from typing import Literal

import jax.numpy as jnp
import optax

ADAM = ("beta1", "beta2", "epsilon")
READS = {"sgd": (), "momentum": ("momentum",), "adam": ADAM, "adamw": (*ADAM, "weight_decay"), "adafactor": ()}


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer; steps count updates, not examples."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    name: Literal["sgd", "momentum", "adam", "adamw", "adafactor"] = "adamw"
    learning_rate: float = 1e-3  # the peak, after warm-up
    schedule: Literal["cosine", "linear", "inverse_square_root", "constant"] = "cosine"
    warmup_steps: int = 0
    final_ratio: float = 0.1  # cosine and linear end at final_ratio * learning_rate
    weight_decay: float = 0.1  # adamw only, decoupled, on matrices and tables only
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float | None = 1.0  # largest global norm of the gradient; None: no clipping

    def __post_init__(self):
        for name in ("learning_rate", "epsilon"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("momentum", "beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0.0 <= self.final_ratio <= 1.0:
            raise ValueError(f"final_ratio must be in [0, 1], got {self.final_ratio}")
        if self.warmup_steps < 0 or self.weight_decay < 0.0:
            raise ValueError("warmup_steps and weight_decay must not be negative")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise ValueError(f"clip_norm must be above 0 (or left out for none), got {self.clip_norm}")
        defaults = {field.name: field.default for field in fields(self)}
        for name in ("momentum", *ADAM, "weight_decay"):
            if name not in READS[self.name] and getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} says nothing to the optimizer {self.name!r}: leave it out")


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """step -> learning rate: linear warm-up from 1/warmup_steps of the peak, then the named decay until `steps`.

    inverse_square_root: peak * sqrt(warmup / step) (Vaswani et al. 2017, equation 3, up to a constant).
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    rest = max(steps - warmup, 1)
    if config.schedule == "cosine":
        decay = optax.cosine_decay_schedule(peak, rest, config.final_ratio)
    elif config.schedule == "linear":
        decay = optax.linear_schedule(peak, peak * config.final_ratio, rest)
    elif config.schedule == "constant":
        decay = optax.constant_schedule(peak)
    else:
        start = max(warmup, 1)
        decay = lambda step: peak * (start / (jnp.maximum(step, 0) + start)) ** 0.5  # optax asks below 0 in warm-up
    if warmup == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), decay], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int, decay_mask) -> optax.GradientTransformation:
    """Global-norm clipping (Pascanu et al. 2013), then the named rule under its schedule.

    Args:
        steps: updates of the whole run, the schedule's end.
        decay_mask: tree of bool like the parameters, from `params.decay_mask`.
    """
    rate = make_schedule(config, steps)
    adam = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon}
    rules = {
        "sgd": lambda: optax.sgd(rate),
        "momentum": lambda: optax.sgd(rate, momentum=config.momentum),
        "adam": lambda: optax.adam(rate, **adam),
        "adamw": lambda: optax.adamw(rate, **adam, weight_decay=config.weight_decay, mask=decay_mask),
        "adafactor": lambda: optax.adafactor(rate, multiply_by_parameter_scale=False, clipping_threshold=1.0),
    }
    clip = optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(clip, rules[config.name]())
