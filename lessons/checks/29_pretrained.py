"""Checks of lesson 29: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.evaluation.origin import cosine

numbers = functools.partial(as_array, infinite="is something divided by zero?")
RANDOM = np.random.default_rng(29)


# stack_kernels

NAME = "encoder.layer.{}.attention.self.query.weight"
LAYERS = 12

STACKS = {
    "not transposed": "the kernels are not transposed: torch keeps [outputs, inputs], and a square kernel hides the mistake",
    "reshaped": "the shape is right and the numbers are mixed up: reshape does not exchange axes, .T does",
    "alphabetical": "the layers stand in the order of their names, in which 10 and 11 come before 2: use the numbers",
    "reversed": "the layers stand in reverse order: layer 0 comes first",
    "one for all": "every layer is a copy of one: does the loop use its own number in name.format?",
    "all axes": "transposing the stack exchanges all three axes: exchange the last two, or transpose each kernel first",
}


def _file(outputs: int, inputs: int) -> dict[str, np.ndarray]:
    tensors = {NAME.format(layer): RANDOM.normal(size=(outputs, inputs)) for layer in range(LAYERS)}
    tensors |= {NAME.format(layer).replace("query", "key"): np.zeros((outputs, inputs)) for layer in range(LAYERS)}
    return {name: tensors[name] for name in sorted(tensors)}


FILES = (_file(3, 5), _file(5, 5))


def _stack(tensors, name, layers, slip=None):
    order = sorted(range(layers), key=str) if slip == "alphabetical" else range(layers)
    order = [0] * layers if slip == "one for all" else list(order)[::-1] if slip == "reversed" else order
    kernels = [tensors[name.format(layer)] for layer in order]
    if slip == "not transposed":
        return np.stack(kernels)
    if slip == "reshaped":
        return np.stack([kernel.reshape(kernel.shape[::-1]) for kernel in kernels])
    return np.stack(kernels).T if slip == "all axes" else np.stack([kernel.T for kernel in kernels])


def check_stack_kernels(function: Callable) -> None:
    """Kernels that are not square, then square ones, where shapes tell nothing."""
    for tensors in FILES:
        given = {name: tensor.copy() for name, tensor in tensors.items()}
        found, right = numbers(function(given, NAME, LAYERS), None, "the stack"), _stack(tensors, NAME, LAYERS)
        if any(not np.array_equal(given[name], tensor) for name, tensor in tensors.items()):
            raise Mistake("stack_kernels changed the tensors that it got: build new arrays")
        if close(found, right):
            continue
        for slip, message in STACKS.items():
            if close(found, _stack(tensors, NAME, LAYERS, slip)):
                raise Mistake(message)
        if found.shape != right.shape:
            raise Mistake(f"the stack should have the shape {list(right.shape)}, got {list(found.shape)}")
        layer = int(np.argmax([not close(a, b) for a, b in zip(found, right, strict=True)]))
        raise Mistake(f"kernel {layer} of the stack is not the transposed tensor {NAME.format(layer)}")


# evidence

BASE = RANDOM.normal(size=(3, 4, 6)) + 0.5
PAIRS = ((BASE, BASE + RANDOM.normal(size=BASE.shape)), (BASE, -BASE + 0.2 * RANDOM.normal(size=BASE.shape)))

COSINES = {
    "rows": "this is the mean of the cosines of rows: one long vector, so long rows count for more",
    "centred": "the mean was taken off first: that is the correlation, the cosine is of the numbers as they are",
    "squared": "the norms are squared: divide by |left| |right|, each with its square root",
    "not divided": "the dot product is not divided by the two norms",
    "one norm": "divide by both norms, not by the square of one",
    "absolute": "the sign is lost: tensors that point in opposite directions have a negative cosine",
    "distance": "this is 1 - cosine, a distance",
}
SURPRISES = {
    "not scaled": "deviations is the cosine again: divide it by 1 / sqrt(n), what chance reaches",
    "n": "deviations is multiplied by n: the deviation of chance is 1 / sqrt(n), not 1 / n",
    "divided": "deviations is divided by sqrt(n): the more numbers there are, the *more* surprising the same cosine is",
    "rows": "n is the length of the first axis: it counts all numbers of the tensor",
}


def _cosine(left, right, slip=None):
    a, b = np.ravel(left), np.ravel(right)
    if slip == "centred":
        a, b = a - a.mean(), b - b.mean()
    if slip == "rows":
        pairs = zip(left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1]), strict=True)
        return float(np.mean([cosine(*pair) for pair in pairs]))
    norms = {"squared": (a @ a) * (b @ b), "not divided": 1.0, "one norm": a @ a}
    found = float(a @ b / norms.get(slip, np.linalg.norm(a) * np.linalg.norm(b)))
    return abs(found) if slip == "absolute" else 1.0 - found if slip == "distance" else found


def _evidence(left, right, slip=None, surprise=None):
    found, n = _cosine(left, right, slip), left.size
    factors = {"not scaled": 1.0, "n": n, "divided": n**-0.5, "rows": len(left) ** 0.5}
    return found, found * factors.get(surprise, n**0.5)


def check_evidence(function: Callable) -> None:
    """Two tensors that are alike, then two that are nearly opposite."""
    for left, right in PAIRS:
        result = function(left.copy(), right.copy())
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Mistake("evidence should return two numbers: the cosine, and its size in deviations")
        found = [float(numbers(part, (), name)) for part, name in zip(result, ("cosine", "deviations"), strict=True)]
        expected = _evidence(left, right)
        for slip, message in COSINES.items() if not close(found[0], expected[0]) else ():
            if close(found[0], _cosine(left, right, slip)):
                raise Mistake(message)
        if not close(found[0], expected[0]):
            raise Mistake(f"the cosine is {found[0]:.4f}, expected {expected[0]:.4f}: use all numbers as one vector")
        for slip, message in SURPRISES.items() if not close(found[1], expected[1]) else ():
            if close(found[1], _evidence(left, right, None, slip)[1]):
                raise Mistake(message)
        if not close(found[1], expected[1]):
            raise Mistake(f"deviations is {found[1]:.4f}, expected {expected[1]:.4f} = cosine * sqrt({left.size})")


# shared_mistakes

TRUTH, LEFT, RIGHT = (RANDOM.integers(0, 4, 200) for _ in range(3))
LEFT, RIGHT = (np.where(RANDOM.random(200) < 0.5, TRUTH, said) for said in (LEFT, RIGHT))
RIGHT = np.where(RANDOM.random(200) < 0.3, LEFT, RIGHT)
PERFECT = (TRUTH, TRUTH, RIGHT)  # nothing that both get wrong

SHARES = {
    "all": "this counts every example: where both are right they agree whoever made them",
    "either": "the denominator holds examples that only one gets wrong, on which they cannot agree: both must be wrong",
    "left": "the denominator is all that the first gets wrong: both must be wrong",
    "divided by all": "the count is right, but divided by all examples: divide by how many both get wrong",
    "both wrong": "this is the share of examples that both get wrong: of these, count those on which they say the same",
    "differ": "this is the share on which the two mistakes differ",
    "right": "this looks at the examples that both get right: there they always agree",
}


def _shared(truth, left, right, slip=None):
    wrong = [np.asarray(said) != truth for said in (left, right)]
    both, same = wrong[0] & wrong[1], left == right
    where = {"all": np.ones_like(both), "either": wrong[0] | wrong[1], "left": wrong[0], "right": ~wrong[0] & ~wrong[1]}
    if slip in where:
        return float((same & (both | (slip in ("all", "right"))))[where[slip]].mean()) if where[slip].any() else 0.0
    if slip in ("divided by all", "both wrong"):
        return float((both & same if slip == "divided by all" else both).mean())
    share = float(same[both].mean()) if both.any() else 0.0
    return 1.0 - share if slip == "differ" else share


def _empty_is_nan(truth, left, right):
    both = (left != truth) & (right != truth)
    with np.errstate(all="ignore"):
        return (left == right)[both].sum() / np.float64(both.sum())


def check_shared_mistakes(function: Callable) -> None:
    """Two mediocre classifiers, then one that is never wrong."""
    inputs = [array.copy() for array in (TRUTH, LEFT, RIGHT)]
    share, expected = float(numbers(function(*inputs), (), "the share")), _shared(TRUTH, LEFT, RIGHT)
    if not close(share, expected):
        for slip, message in SHARES.items():
            if close(share, _shared(TRUTH, LEFT, RIGHT, slip)):
                raise Mistake(message)
        raise Mistake(f"the share is {share:.4f}, expected {expected:.4f}: keep only what both get wrong, then compare")
    empty = as_array(function(*(array.copy() for array in PERFECT)), (), "the share")
    if not close(empty, 0.0):
        raise Mistake(
            f"where nothing is wrong in both, the share should be 0.0, got {float(empty):g}: 0 / 0 is no number"
        )


CHECKS = {"stack_kernels": check_stack_kernels, "evidence": check_evidence, "shared_mistakes": check_shared_mistakes}

HINTS = {
    "stack_kernels": (
        'name.format(3) is "encoder.layer.3.attention.self.query.weight"; go through range(layers), not through the file.',
        "np.stack([tensors[name.format(layer)].T for layer in range(layers)])",
    ),
    "evidence": (
        "array.ravel() makes one long vector of any tensor; a @ b is then the sum of products.",
        "cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b)); deviations = cosine * np.sqrt(a.size).",
    ),
    "shared_mistakes": (
        "both = (left != truth) & (right != truth) marks the examples that count.",
        "(left == right)[both].mean() is the share; both.any() says whether there is one at all.",
    ),
}

MISTAKES = {
    "stack_kernels": [(functools.partial(_stack, slip=slip), message) for slip, message in STACKS.items()],
    "evidence": [
        *((functools.partial(_evidence, slip=slip), message) for slip, message in COSINES.items()),
        *((functools.partial(_evidence, surprise=slip), message) for slip, message in SURPRISES.items()),
    ],
    "shared_mistakes": [
        *((functools.partial(_shared, slip=slip), message) for slip, message in SHARES.items()),
        (_empty_is_nan, "0 / 0"),
    ],
}
