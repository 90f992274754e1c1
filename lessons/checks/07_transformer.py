"""Checks of lesson 07: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.nn.attention import dot_product_attention
from minillm.nn.norm import layer_norm

shaped = functools.partial(as_array, infinite="is a whole row of scores hidden, or a sum 0?")


# post_norm_block

RANDOM = np.random.default_rng(7)
DRAW = lambda *shape: RANDOM.normal(size=shape).astype(np.float32)
X, MIX, UP = 2.0 * DRAW(3, 6) + 1.0, DRAW(3, 3), DRAW(6, 6)
ATTENTION = lambda x: jnp.asarray(MIX) @ jnp.asarray(x)  # mixes tokens, as attention does
FEEDFORWARD = lambda x: jnp.maximum(jnp.asarray(x) @ UP, 0.0) + 0.5
EPSILON = 0.3  # large: who leaves it out or puts it elsewhere is found

BLOCK_SLIPS = {
    "pre": "this is pre-norm, x + sublayer(norm(x)): in the paper's block the norm stands after the sum",
    "no residual": "the residual sums are missing: each sublayer's output is added to its input",
    "first residual": "the feed-forward's residual is the block's input: it is the normalised result of the attention",
    "parallel": "both sublayers read the block's input: the feed-forward reads what the attention made",
    "one norm": "a norm is missing after the attention: each sum has its own",
    "no last norm": "the last norm is missing: post-norm normalises after the feed-forward too",
    "tokens": "the norm runs over the tokens: mean and variance belong to one token, over its width (axis -1)",
    "sample": "the variance divides by the width minus one: use the plain mean of the squares",
    "outside": "epsilon is added to the standard deviation: it belongs under the root, to the variance",
    "no epsilon": "epsilon is not used: add it to the variance",
}


def _block(x, attention, feedforward, epsilon=1e-5, slip=None):
    axis = 0 if slip == "tokens" else -1

    def norm(x):
        variance = x.var(axis, keepdims=True, ddof=1 if slip == "sample" else 0)
        inside = 0.0 if slip in ("outside", "no epsilon") else epsilon
        scale = np.sqrt(variance + inside) + (epsilon if slip == "outside" else 0.0)
        return (x - x.mean(axis, keepdims=True)) / scale

    x = np.asarray(x)
    if slip == "pre":
        x = x + attention(norm(x))
        return x + feedforward(norm(x))
    keep = 0.0 if slip == "no residual" else x
    middle = np.asarray(keep + attention(x))
    middle = middle if slip == "one norm" else norm(middle)
    keep = {"no residual": 0.0, "first residual": x}.get(slip, middle)
    out = np.asarray(keep + feedforward(x if slip == "parallel" else middle))
    return out if slip == "no last norm" else norm(out)


def _check_block(function) -> None:
    x = X.copy()
    found = shaped(function(x, ATTENTION, FEEDFORWARD, EPSILON), X.shape, "the result")
    if not np.array_equal(x, X):
        raise Mistake("post_norm_block changed its argument: build a new array instead of x += ...")
    norm = lambda x: layer_norm({"scale": jnp.ones(6)}, x, EPSILON)
    middle = norm(X + ATTENTION(X))
    if not close(found, norm(middle + FEEDFORWARD(middle))):
        for slip, message in BLOCK_SLIPS.items():
            if close(found, _block(X, ATTENTION, FEEDFORWARD, EPSILON, slip)):
                raise Mistake(message)
        if not close(found.mean(-1), 0.0):
            raise Mistake(
                "the rows of the result have a mean: the last step of a post-norm block is a norm over the width"
            )
        raise Mistake("the result is wrong: try attention and feedforward that return 0; it must be norm(norm(x))")
    if not close(
        shaped(function(X.copy(), ATTENTION, FEEDFORWARD), X.shape, "the result"), _block(X, ATTENTION, FEEDFORWARD)
    ):
        raise Mistake("the result is right with epsilon = 0.3 but not with the default, which should be 1e-5")


# cross_attention

TARGET, SOURCE, PADDED = (
    DRAW(5, 6),
    DRAW(5, 6),
    np.array([True, True, True, False, False]),
)  # as long: mix-ups have the shape
QUERY, KEY, VALUE = DRAW(6, 4), DRAW(6, 4), DRAW(6, 4)

CROSS_SLIPS = {
    "asks": "source and target are exchanged: the target asks, the source is read",
    "keys": "keys and values come from the target: that is self-attention; the source is what is read",
    "values": "the values come from the target: keys and values belong together, both come from the source",
    "unmasked": "the source's padding is read: hide where source_mask is False",
    "late": "rows of the attention matrix do not sum to 1: is the mask applied after the softmax?",
    "inverted": "the mask is read the wrong way round: True means a real token",
    "causal": "there is a causal mask: the whole source is known before the first target token is written",
    "queries masked": "the mask hides target tokens: it belongs to the keys, along the last axis",
    "unscaled": "the scores are not divided by sqrt(head)",
    "width": "the scores are divided by the root of the width: it is the size of one query, the head",
    "axis": "the softmax runs along the queries: each target token's weights must sum to 1",
}


def _cross(target, source, source_mask, query, key, value, slip=None):
    if slip == "asks":
        target, source = source, target
    read = target if slip == "keys" else source
    q, k, v = target @ query, read @ key, (target if slip == "values" else read) @ value
    scores = q @ k.T / np.sqrt({"unscaled": 1, "width": query.shape[0]}.get(slip, query.shape[1]))
    mask = np.broadcast_to(source_mask, scores.shape)
    seen = {
        "unmasked": np.ones_like(mask),
        "late": np.ones_like(mask),
        "inverted": ~mask,
        "queries masked": mask.T,
    }.get(slip, mask)
    seen = mask & np.tri(*mask.shape, dtype=bool) if slip == "causal" else seen
    scores, axis = np.where(seen, scores, -1e9), 0 if slip == "axis" else 1
    weights = np.exp(scores - scores.max(axis, keepdims=True))
    weights = weights / weights.sum(axis, keepdims=True)
    return (np.where(mask, weights, 0.0) if slip == "late" else weights) @ v


def _check_cross(function) -> None:
    kernels = [kernel.copy() for kernel in (QUERY, KEY, VALUE)]
    for mask in (np.ones(5, bool), PADDED):
        found = shaped(function(TARGET.copy(), SOURCE.copy(), mask.copy(), *kernels), (5, 4), "the result")
        add = lambda x: jnp.asarray(x)[None, :, None]
        right = dot_product_attention(
            add(TARGET @ QUERY), add(SOURCE @ KEY), add(SOURCE @ VALUE), jnp.broadcast_to(mask, (1, 1, 5, 5))
        )
        if close(found, right[0, :, 0]):
            continue
        for slip, message in CROSS_SLIPS.items():
            if close(found, _cross(TARGET, SOURCE, mask, QUERY, KEY, VALUE, slip)):
                raise Mistake(message)
        where = "without padding" if mask.all() else "with padding in the source"
        raise Mistake(f"the result is wrong {where}: print the weights [length, keys], does each row sum to 1?")
    short = shaped(
        function(TARGET[:2].copy(), SOURCE.copy(), PADDED.copy(), *kernels), (2, 4), "the result for 2 target tokens"
    )
    if not close(short, _cross(TARGET[:2], SOURCE, PADDED, QUERY, KEY, VALUE)):
        raise Mistake("the result changes with the number of target tokens: no target token reads another here")
    winner = np.where(PADDED, TARGET @ QUERY @ (SOURCE @ KEY).T, -np.inf).argmax(1)  # scores so large leave one weight
    large = np.asarray(function(TARGET * 1000, SOURCE.copy(), PADDED.copy(), *kernels))
    if not np.allclose(large, (SOURCE @ VALUE)[winner], atol=1e-2):
        raise Mistake("large scores overflow in exp: subtract each row's largest visible score first")


def _overflow(target, source, source_mask, query, key, value):
    with np.errstate(all="ignore"):
        scores = target @ query @ (source @ key).T / np.sqrt(query.shape[1])
        weights = np.where(source_mask, np.exp(scores), 0.0)
        return weights / weights.sum(1, keepdims=True) @ (source @ value)


# decoder_batch

ANSWERS = [[5, 6, 7], [8], [0, 9]]  # 0 is a real token here

BATCH_SLIPS = {
    "not shifted": "the decoder reads the very token that it should write: tokens begin with `begin`, one place later",
    "no end": "`end` is never a target: the model would not learn to stop",
    "begin in targets": "`begin` is a target: the first thing to write is the answer's first token",
    "end in tokens": "the decoder reads `end`: after it there is nothing left to write",
    "all count": "the weights are 1 everywhere: padding is trained on as if it were an answer",
    "end uncounted": "the target `end` has weight 0: the model would not learn to stop",
    "zero": "a real token whose id is 0 has weight 0: use the lengths to find the padding, not the ids",
    "padding counts": "one place after `end` counts: a row of n ids has n + 1 targets",
}


def _batch(answers, begin, end, slip=None):
    size = max(map(len, answers)) + (2 if slip in ("begin in targets", "end in tokens", "padding counts") else 1)
    rows = {"tokens": [], "targets": [], "weights": []}
    for answer in answers:
        tokens, targets = [begin, *answer], [*answer, end]
        tokens = {"not shifted": targets, "end in tokens": [*tokens, end]}.get(slip, tokens)
        targets = {"no end": [*answer], "begin in targets": [begin, *targets]}.get(slip, targets)
        ones = len(answer) + {"end uncounted": 0, "padding counts": 2, "all count": size, "no end": 0}.get(slip, 1)
        weights = [float(token != 0) for token in targets] if slip == "zero" else [1.0] * min(ones, size)
        for name, row in (("tokens", tokens), ("targets", targets), ("weights", weights)):
            rows[name].append([*row, *[0] * (size - len(row))])
    return {name: np.array(value) for name, value in rows.items()}


def _check_batch(function) -> None:
    found = function([list(answer) for answer in ANSWERS], 2, 3)
    if not isinstance(found, dict) or set(found) != {"tokens", "targets", "weights"}:
        names = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise Mistake(f"decoder_batch returned {names}, expected a dict with the keys tokens, targets, weights")
    right = _batch(ANSWERS, 2, 3)
    same = lambda other: all(np.array_equal(_loose(found[name]), other[name]) for name in right)
    if same(right):
        return
    for slip, message in BATCH_SLIPS.items():
        if same(_batch(ANSWERS, 2, 3, slip)):
            raise Mistake(message)
    for name, expected in right.items():
        rows = shaped(found[name], expected.shape, f'decoder_batch(...)["{name}"]')
        if not np.array_equal(rows, expected):
            raise Mistake(f"{name} are {rows.astype(int).tolist()}, expected {expected.astype(int).tolist()}")


def _loose(value):
    """As an array, whatever its shape; None where it is none."""
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


CHECKS = {"post_norm_block": _check_block, "cross_attention": _check_cross, "decoder_batch": _check_batch}

HINTS = {
    "post_norm_block": (
        "Write norm(x) first: x - x.mean(axis=-1, keepdims=True), divided by np.sqrt(the mean of its squares + epsilon).",
        "Two lines then: x = norm(x + attention(x)); return norm(x + feedforward(x)).",
    ),
    "cross_attention": (
        "q = target @ query [length, head]; k, v = source @ key, source @ value [keys, head]; scores = q @ k.T.",
        "np.where(source_mask, scores, -np.inf) hides columns; subtract each row's maximum before np.exp.",
    ),
    "decoder_batch": (
        "Both rows have len(answer) + 1 ids: [begin, *answer] and [*answer, end].",
        "Start from np.zeros((rows, longest + 1)) and write each row into its first len(answer) + 1 places.",
    ),
}

MISTAKES = {
    "post_norm_block": [(functools.partial(_block, slip=slip), message) for slip, message in BLOCK_SLIPS.items()],
    "cross_attention": [
        *((functools.partial(_cross, slip=slip), message) for slip, message in CROSS_SLIPS.items()),
        (_overflow, "subtract each row's largest visible score"),
    ],
    "decoder_batch": [(functools.partial(_batch, slip=slip), message) for slip, message in BATCH_SLIPS.items()],
}
