"""Generation with a key-value cache: greedy, temperature, top-k and top-p, several samples, stop tokens.

A module with `init_carry`, `apply` and `logits` is all it needs: decoders, and encoder-decoders with sources.
The prompt is padded to a bucket and everything that varies is an argument of the compiled function, so that one
compilation serves every prompt length up to the bucket and every sampling setting.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from minillm.errors import UserError
from minillm.inference.constrained import Owed, mask, pay
from minillm.params import unstack_blocks


class Sampling(NamedTuple):
    """temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole. Arrays, so that no value recompiles."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


WHOLE = Sampling()


def filter_logits(logits: Float[Array, "batch vocab"], sampling: Sampling) -> Float[Array, "batch vocab"]:
    """Tempers the logits and sets those outside the top k (Fan et al. 2018) and the nucleus (Holtzman et al. 2020) to -inf.

    The nucleus is the smallest set of most likely tokens whose probabilities sum to at least top_p; it never is empty.
    Temperature comes first, then top-k, then top-p, as in Hugging Face's `generate`.
    """
    logits = logits.astype(jnp.float32) / jnp.maximum(sampling.temperature, 1e-6)
    whole = (sampling.top_k <= 0) & (sampling.top_p >= 1.0)
    return jax.lax.cond(whole, lambda logits: logits, lambda logits: _keep_likely(logits, sampling), logits)


def _keep_likely(logits, sampling: Sampling):
    """Top-k and top-p, by sorting the vocabulary: greedy and plain sampling go without."""
    vocabulary = logits.shape[-1]
    order = jnp.argsort(-logits, axis=-1)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    k = jnp.where(sampling.top_k > 0, sampling.top_k, vocabulary)
    ranked = jnp.where((jnp.arange(vocabulary) < k)[None], ranked, -jnp.inf)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    ranked = jnp.where((before < sampling.top_p) | (sampling.top_p >= 1.0), ranked, -jnp.inf)
    back = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(ranked, back, axis=-1)


def sample_token(logits: Float[Array, "batch vocab"], key: Key[Array, ""], sampling: Sampling) -> Int[Array, "batch"]:
    """One token per row: the most likely at temperature 0, otherwise a draw from the filtered distribution."""
    noise = jax.random.gumbel(key, logits.shape, jnp.float32)  # the argmax of logits + Gumbel noise is a draw
    scores = jnp.where(sampling.temperature <= 0.0, logits, filter_logits(logits, sampling) + noise)
    ids = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    best = scores == scores.max(-1, keepdims=True)  # two plain reductions: `argmax` takes five times as long on a CPU
    return jnp.where(best, ids, scores.shape[-1] - 1).min(-1)


@functools.partial(jax.jit, static_argnames=("module", "config", "tokens"))
def _generate(params, batch, key, choice, module, config, tokens: int):
    """The compiled generation: new tokens [batch, tokens], stopped rows padded with 0.

    `batch` is `prompt_batch`'s with its "lengths"; choice = (sampling, stop ids, what is owed or None).
    """
    prompt, lengths, (sampling, stop, owed) = batch["tokens"], batch["lengths"], choice
    carry = module.init_carry(params, batch, config, prompt.shape[1] + tokens)
    params = unstack_blocks(params)
    output = module.apply(params, {"tokens": prompt, "lengths": lengths}, config, carry=carry)
    last = jnp.take_along_axis(output.hidden, (lengths - 1)[:, None, None], axis=1)

    def step(state, number):
        carry, hidden, done, owed = state
        logits = mask(module.logits(params, hidden)[:, -1], owed, stop, tokens - number)
        token = sample_token(logits, jax.random.fold_in(key, number), sampling)
        token = jnp.where(done, 0, token)
        done = done | (token[:, None] == stop[None, :]).any(-1)
        output = module.apply(params, {"tokens": token[:, None]}, config, carry=carry)
        return (output.carry, output.hidden, done, pay(owed, token)), token

    done = jnp.zeros(prompt.shape[0], bool)
    _, new = jax.lax.scan(step, (output.carry, last, done, owed), jnp.arange(tokens))
    return new.T


def bucket_size(length: int, context: int, tokens: int) -> int:
    """The prompt's padded length: the next power of two from 16 on, or all the room that the context leaves."""
    bucket = 16
    while bucket < length:
        bucket *= 2
    return min(bucket, context - tokens)


def prompt_batch(
    config, prompts: Sequence[Sequence[int]], tokens: int, sources: Sequence[Sequence[int]] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Prompts padded to their bucket, "tokens" [batch, bucket], and their lengths [batch].

    With `sources`, for an encoder-decoder, "source" and "source_mask" [batch, source bucket] too. Raises: UserError
    where a prompt or source is empty or does not fit into the context.
    """
    longest = max(len(prompt) for prompt in prompts)
    if min(len(prompt) for prompt in prompts) < 1:
        raise UserError("a prompt has no token", "--prompt", "begin with the beginning-of-text token")
    if longest + tokens > config.context:
        raise UserError(
            f"prompt of {longest} tokens + {tokens} new ones do not fit into the context of {config.context}",
            "--prompt, --tokens",
            f"use a shorter prompt or at most {max(config.context - longest, 0)} tokens",
        )
    padded, lengths = _pad(prompts, bucket_size(longest, config.context, tokens))
    batch = {"tokens": padded}
    if sources is not None:
        sizes = [len(source) for source in sources]
        if len(sources) != len(prompts) or not 1 <= min(sizes) <= max(sizes) <= config.context:
            raise UserError(
                f"{len(sources)} sources of {min(sizes)} to {max(sizes)} tokens for {len(prompts)} prompts",
                "sources",
                f"give one source per prompt, of 1 to {config.context} tokens",
            )
        batch["source"], sizes = _pad(sources, bucket_size(max(sizes), config.context, 0))
        batch["source_mask"] = np.arange(batch["source"].shape[1]) < sizes[:, None]
    return batch, lengths


def _pad(rows: Sequence[Sequence[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded on the right with 0 [rows, width], and their lengths [rows]; int32."""
    padded = np.zeros((len(rows), width), np.int32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded, np.array([len(row) for row in rows], np.int32)


def generate(
    module, config, params, prompts: Sequence[Sequence[int]], tokens: int, *,
    key, sampling=WHOLE, stop=(), sources=None, owed: Owed | None = None,
) -> list[list[int]]:  # fmt: skip
    """Continues each prompt (at least one id) by up to `tokens` ids; a row ends before its first stop id.

    An encoder-decoder reads `sources`, one per prompt; a prompt then is the target's beginning token. What is `owed` is
    written exactly so often.
    Raises: UserError where a prompt is empty, or where prompt and continuation do not fit into the context.
    """
    batch, lengths = prompt_batch(config, prompts, tokens, sources)
    settings = Sampling(*(np.asarray(v, t) for v, t in zip(sampling, (np.float32, np.int32, np.float32), strict=True)))
    stops = np.asarray(list(stop) or [-1], np.int32)
    new = _generate(params, batch | {"lengths": lengths}, key, (settings, stops, owed), module, config, tokens)
    return [before_stop(row, stop) for row in np.asarray(new).tolist()]


def before_stop(row: list[int], stop: Sequence[int]) -> list[int]:
    """The ids before the first stop id."""
    ends = [place for place, token in enumerate(row) if token in stop]
    return row[: ends[0]] if ends else row
