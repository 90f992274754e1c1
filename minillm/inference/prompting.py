"""What a language model answers to a prompt: the log-probability of each class's word, without training.

    left to right   s_c = sum over t of log p(w_t | prompt, w_1 ... w_{t-1})     Brown et al. 2020, section 2.4
    both ways       s_c = log p(w at the mask | the rest)                         Schick and Schuetze 2021, section 3.1
    calibrated      s_c - log of the mean over content-free prompts of p_c        Zhao et al. 2021, section 5

The softmax of s over the classes is the answer. With `mean`, a word's log-probability is divided by its number of tokens.
A prompt is read once, and its key-value cache serves all words.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minillm.inference.generate import prompt_batch
from minillm.inference.sentence import pad_rows
from minillm.params import unstack_blocks

ROWS = 64  # prompts of a pass
Ids = Sequence[int]


def score_words(
    module: Any, config: Any, params: Any, prompts: Sequence[Ids], words: Sequence[Ids], *, mean: bool = False
) -> np.ndarray:
    """log p(word | prompt) [prompts, words] of a model that reads from left to right. Compiled once for each bucket.

    Raises: UserError where a prompt with the longest word does not fit into the context.
    """
    sizes = np.array([len(word) for word in words])
    padded = np.zeros((len(words), sizes.max()), np.int32)
    for row, word in zip(padded, words, strict=True):
        row[: len(word)] = word
    params, order, found = unstack_blocks(params), sorted(range(len(prompts)), key=lambda i: len(prompts[i])), {}
    for start in range(0, len(order), ROWS):
        numbers = order[start : start + ROWS]  # those of like length together
        filled = [prompts[i] for i in numbers] + [prompts[numbers[0]]] * (ROWS - len(numbers))
        batch, lengths = prompt_batch(config, filled, int(sizes.max()) - 1)
        scores = np.asarray(_continue(params, batch | {"lengths": lengths}, padded, sizes, module, config), np.float64)
        found |= dict(zip(numbers, scores, strict=False))
    scores = np.stack([found[i] for i in range(len(prompts))])
    return scores / sizes if mean else scores


@functools.partial(jax.jit, static_argnames=("module", "config"))
def _continue(params, batch, words, sizes, module, config):
    """words [classes, longest], padded -> the sums of their log-probabilities after each prompt [batch, classes]."""
    tokens, lengths, (classes, longest) = batch["tokens"], batch["lengths"], words.shape
    carry = module.init_carry(params, batch, config, tokens.shape[1] + longest - 1)
    output = module.apply(params, {"tokens": tokens, "lengths": lengths}, config, carry=carry)
    last = jnp.take_along_axis(output.hidden, (lengths - 1)[:, None, None], axis=1)
    first = _log_softmax(module.logits(params, last))[:, 0]  # [batch, vocab]
    scores = first[:, words[:, 0]]
    if longest == 1:
        return scores
    carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, classes, axis=0), output.carry)
    spoken = jnp.tile(words[:, :-1], (len(tokens), 1))  # [batch * classes, longest - 1]
    hidden = module.apply(params, {"tokens": spoken}, config, carry=carry).hidden
    after = _log_softmax(module.logits(params, hidden)).reshape(len(tokens), classes, longest - 1, -1)
    picked = jnp.take_along_axis(after, words[None, :, 1:, None], axis=-1)[..., 0]
    return scores + jnp.where(jnp.arange(1, longest) < sizes[:, None], picked, 0.0).sum(-1)


def score_masks(
    apply: Callable, logits: Callable, params: Any, prompts: Sequence[Ids], places: Sequence[int], words: Sequence[Ids],
    *, pad: int, context: int,
) -> np.ndarray:  # fmt: skip
    """log p(word at the mask) [prompts, words] of a model that reads both ways; places: of each prompt's mask."""
    order, found = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), {}
    chosen = np.array([word for (word,) in words], np.int32)
    for start in range(0, len(order), ROWS):
        numbers = order[start : start + ROWS]
        batch = pad_rows([prompts[i] for i in numbers], pad, ROWS, context)
        at = np.zeros(ROWS, np.int32)
        at[: len(numbers)] = [places[i] for i in numbers]
        scores = np.asarray(_fill(params, batch, at, chosen, apply, logits), np.float64)
        found |= dict(zip(numbers, scores, strict=False))
    return np.stack([found[i] for i in range(len(prompts))])


@functools.partial(jax.jit, static_argnames=("apply", "logits"))
def _fill(params, batch, places, words, apply, logits):
    hidden = apply(params, batch).hidden
    asked = jnp.take_along_axis(hidden, places[:, None, None], axis=1)
    return _log_softmax(logits(params, asked))[:, 0][:, words]


def _log_softmax(scores):
    return jax.nn.log_softmax(scores.astype(jnp.float32))


def answers(scores: np.ndarray) -> np.ndarray:
    """Scores [..., classes] -> probabilities among the classes."""
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def calibrate(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Probabilities [prompts, classes] divided by those of content-free prompts, anew summing to 1.

    Zhao et al. 2021, section 5: W = diag(p_cf)^-1, b = 0, with p_cf the mean over content-free texts. content_free: their
    scores [texts, classes], the same for all prompts, or [prompts, texts, classes].
    """
    expected = answers(content_free).mean(-2)
    return answers(np.log(np.maximum(answers(scores), 1e-300)) - np.log(np.maximum(expected, 1e-300)))


def score_rows(
    apply: Callable,
    logits: Callable,
    params: Any,
    rows: Sequence[Ids],
    starts: Sequence[int],
    *,
    pad: int,
    context: int,
) -> np.ndarray:
    """log p of each row's tokens from its `start` on, given those before [rows], of a model that reads from left to right.

    What a whole reply is worth, where each question has candidates of its own. A row longer than the context loses its end.
    """
    order, found = sorted(range(len(rows)), key=lambda i: len(rows[i])), {}
    for first in range(0, len(order), ROWS):
        numbers = order[first : first + ROWS]
        batch = pad_rows([rows[i][:context] for i in numbers], pad, ROWS, context)
        begins = np.ones(ROWS, np.int32)
        begins[: len(numbers)] = [starts[i] for i in numbers]
        scores = np.asarray(_rest(params, batch, begins, apply, logits), np.float64)
        found |= dict(zip(numbers, scores, strict=False))
    return np.array([found[i] for i in range(len(rows))])


@functools.partial(jax.jit, static_argnames=("apply", "logits"))
def _rest(params, batch, starts, apply, logits):
    tokens = batch["tokens"]
    after = _log_softmax(logits(params, apply(params, {"tokens": tokens}).hidden)[:, :-1])
    picked = jnp.take_along_axis(after, tokens[:, 1:, None], axis=-1)[..., 0]
    asked = batch["mask"][:, 1:] & (jnp.arange(1, tokens.shape[1]) >= starts[:, None])
    return jnp.where(asked, picked, 0.0).sum(-1)
