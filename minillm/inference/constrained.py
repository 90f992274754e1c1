"""Constrained decoding: reserved tokens that a text must hold, each exactly so often.

    allowed(y) =  left(y) > 0           where y is reserved: it still is to be written
                  missing = 0           where y ends the text, missing = sum of left
                  missing < room        for all others; room: the places that are left, this one among them

Where all fit in at the beginning, missing <= room holds at every step, so that no text ends without them; where the room
only just suffices, they are all that may be written. Where they do not fit in, nothing else is written. Scores stay the
model's own, log p(y) of all tokens, those that are not allowed among them.

This is the simplest case of lexically constrained decoding (Hokamp and Liu 2017): a constraint is one token, the order is
free. They keep a beam for each number of constraints that are met (section 3), so that texts compete with their like;
here all share one, and a sign that the model would rather leave out may come late.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Owed(NamedTuple):
    """What is still to be written."""

    signs: Int[Array, "signs"]  # the reserved ids, all different
    left: Int[Array, "*rows signs"]  # how often each


def make_owed(signs: Sequence[int], counts: Any) -> Owed:
    """`counts` [rows, signs]: how often each of the signs is to be written in each row."""
    return Owed(np.asarray(signs, np.int32), np.asarray(counts, np.int32).reshape(len(counts), len(signs)))


def allowed(owed: Owed, vocabulary: int, stop: Int[Array, "stops"], room: Int[Array, ""]) -> Bool[Array, "*rows vocab"]:
    """What may be written next, by the rule above; `stop` are the ids that end a text, `room` is at least 1."""
    ids = jnp.arange(vocabulary)
    is_sign, is_stop = ((ids[:, None] == some).any(-1) for some in (owed.signs, stop))
    wanted = jnp.zeros((*owed.left.shape[:-1], vocabulary), bool).at[..., owed.signs].set(owed.left > 0)
    missing = owed.left.sum(-1, keepdims=True)
    return jnp.where(is_sign, wanted, (missing < room) & ~(is_stop & (missing > 0)))


def mask(scores: Float[Array, "*rows vocab"], owed: Owed | None, stop, room) -> Float[Array, "*rows vocab"]:
    """The scores, those of what is not allowed at minus infinity; unchanged where nothing is owed."""
    return scores if owed is None else jnp.where(allowed(owed, scores.shape[-1], stop, room), scores, -jnp.inf)


def pay(owed: Owed | None, tokens: Int[Array, "*rows"]) -> Owed | None:
    """What is left after a token of each row."""
    return None if owed is None else owed._replace(left=owed.left - (tokens[..., None] == owed.signs))


def follow(owed: Owed | None, parents: Int[Array, "batch beams"]) -> Owed | None:
    """What is left for beams that go on from their parents."""
    if owed is None:
        return None
    return owed._replace(left=jnp.take_along_axis(owed.left, parents[..., None], axis=1))
