"""Beam search: the most likely continuation, sought among the best few at every step.

    score(Y) = log p(Y | X) / lp(Y),    lp(Y) = ((5 + |Y|) / (5 + 1))^alpha        Wu et al. 2016, equation 14

At every step the `beams` best continuations are taken. Those that end leave for the finished ones, and the next best
that do not end fill the beam up again; the search ends when no live one can still beat the worst finished one. With one
beam it is greedy generation; with enough beams to hold every sequence it is exhaustive. |Y| counts the stop token; a
hypothesis that reaches the last step ends there. No coverage penalty.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from minillm.inference.constrained import Owed, follow, mask, pay
from minillm.inference.generate import before_stop, prompt_batch


class Hypothesis(NamedTuple):
    """New ids, without the stop token, and the length-normalised log-probability."""

    tokens: list[int]
    score: float


class Beam(NamedTuple):
    """Settings of the search."""

    beams: int = 4
    alpha: float = 0.6  # of the length penalty; 0 prefers short hypotheses
    stop: int = -1  # the id that ends a hypothesis; -1: none


USUAL = Beam()


class Search(NamedTuple):
    """State of the search; B rows of K beams. Dead places have a score of minus infinity."""

    step: Any
    carry: Any  # of B * K rows
    hidden: Any  # [B * K, 1, model], from which the next token follows
    live: Any  # [B, K] log-probabilities
    tokens: Any  # [B, K, length], 0 from the current step on
    finished: Any  # [B, K] scores, best first
    finished_tokens: Any  # [B, K, length]
    owed: Any  # with [B, K, signs] left, or None


def length_penalty(length, alpha):
    """Wu et al. 2016, equation 14: 1 at length 1, and with alpha 0."""
    return ((5.0 + length) / 6.0) ** alpha


def beam_search(
    module, config, params, prompts: Sequence[Sequence[int]], tokens: int, settings: Beam = USUAL, *,
    sources=None, owed: Owed | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Up to `settings.beams` hypotheses of up to `tokens` ids per prompt, best first.

    An encoder-decoder reads `sources`. What is `owed` is in each hypothesis exactly so often, where `tokens` suffice.
    Raises: ValueError for beams < 1 or a negative alpha (the end of the search relies on it), UserError where prompts or
    sources do not fit into the context.
    """
    beams, alpha, stop = settings
    if beams < 1 or alpha < 0.0:
        raise ValueError(f"beams must be at least 1 and alpha not negative, got {beams} and {alpha}")
    batch, lengths = prompt_batch(config, prompts, tokens, sources)
    rules = (np.float32(alpha), np.int32(stop), owed)
    new, scores = _beam_search(params, batch | {"lengths": lengths}, rules, module, config, tokens, beams)
    rows = zip(np.asarray(new).tolist(), np.asarray(scores).tolist(), strict=True)
    return [
        [Hypothesis(before_stop(ids, (stop,)), score) for ids, score in zip(*row, strict=True) if score > -np.inf]
        for row in rows
    ]


@functools.partial(jax.jit, static_argnames=("module", "config", "tokens", "beams"))
def _beam_search(params, batch, rules, module, config, tokens: int, beams: int):
    """The compiled search: finished tokens [batch, beams, tokens] and scores [batch, beams], best first.

    `batch` is `prompt_batch`'s with its "lengths"; rules = (alpha, stop, what is owed or None).
    """
    prompt, lengths, (alpha, stop, owed) = batch["tokens"], batch["lengths"], rules
    rows = prompt.shape[0]
    carry = module.init_carry(params, batch, config, prompt.shape[1] + tokens)
    output = module.apply(params, {"tokens": prompt, "lengths": lengths}, config, carry=carry)
    last = jnp.take_along_axis(output.hidden, (lengths - 1)[:, None, None], axis=1)
    # what `apply` hands back untouched, such as an encoder's memory, is the same for all beams of a row: it stays
    stays = jax.tree.map(lambda old, new: old is new, carry, output.carry)
    carry, hidden = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), (output.carry, last))
    only_first = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # the beams are equal at first: one is enough
    none = jnp.full((rows, beams), -jnp.inf)
    blank = jnp.zeros((rows, beams, tokens), jnp.int32)
    if owed is not None:
        owed = owed._replace(left=jnp.repeat(owed.left[:, None], beams, axis=1))
    start = Search(jnp.zeros((), jnp.int32), carry, hidden, only_first + jnp.zeros((rows, 1)), blank, none, blank, owed)

    def carried(carry, parents):  # each beam goes on from its parent's carry
        return jax.tree.map(lambda leaf, same: leaf if same else leaf[parents], carry, stays)

    def is_open(search: Search):
        best = search.live.max(1) / length_penalty(tokens, alpha)  # a live one can get no better than this
        return (search.step < tokens) & (best > search.finished.min(1)).any()

    def step(search: Search):
        log_probabilities = jax.nn.log_softmax(module.logits(params, search.hidden)[:, -1].astype(jnp.float32))
        log_probabilities = log_probabilities.reshape(rows, beams, -1)
        log_probabilities = mask(log_probabilities, search.owed, jnp.atleast_1d(stop), tokens - search.step)
        search, parents, token = _extend(search, log_probabilities, alpha, stop)
        flat = (jnp.arange(rows)[:, None] * beams + parents).reshape(-1)
        output = module.apply(params, {"tokens": token.reshape(-1, 1)}, config, carry=carried(search.carry, flat))
        owed = pay(follow(search.owed, parents), token)
        return search._replace(carry=output.carry, hidden=output.hidden, owed=owed)

    search = jax.lax.while_loop(is_open, step, start)
    return search.finished_tokens, search.finished


def _extend(search: Search, log_probabilities, alpha, stop):
    """One more token, whose log_probabilities are [batch, beams, vocab] -> (search, parents, tokens [batch, beams])."""
    rows, beams, vocabulary = log_probabilities.shape
    candidates = (search.live[:, :, None] + log_probabilities).reshape(rows, beams * vocabulary)
    # at most `beams` of the best can end, one per beam: so many more leave enough that go on
    scores, places = jax.lax.top_k(candidates, min(2 * beams, beams * vocabulary))
    parents, token = places // vocabulary, (places % vocabulary).astype(jnp.int32)
    texts = jnp.take_along_axis(search.tokens, parents[..., None], axis=1)
    texts = jnp.where(jnp.arange(texts.shape[-1]) == search.step, token[..., None], texts)

    length = search.step + 1
    ends = (token == stop) | (length == texts.shape[-1])
    chosen = jnp.arange(scores.shape[1]) < beams
    ended = jnp.where(ends & chosen, scores / length_penalty(length, alpha), -jnp.inf)
    finished, finished_tokens = _best(beams, ended, texts, search.finished, search.finished_tokens)

    live, order = jax.lax.top_k(jnp.where(token == stop, -jnp.inf, scores), beams)
    parents, token = (jnp.take_along_axis(x, order, axis=1) for x in (parents, token))
    texts = jnp.take_along_axis(texts, order[..., None], axis=1)
    search = search._replace(step=length, live=live, tokens=texts, finished=finished, finished_tokens=finished_tokens)
    return search, parents, token


def _best(count: int, scores, texts, more_scores, more_texts):
    """The best `count` of both lists."""
    scores, texts = jnp.concatenate([scores, more_scores], 1), jnp.concatenate([texts, more_texts], 1)
    scores, order = jax.lax.top_k(scores, count)
    return scores, jnp.take_along_axis(texts, order[..., None], axis=1)
