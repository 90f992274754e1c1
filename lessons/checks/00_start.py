"""Checks of lesson 00: each wrong answer is compared with those that others have given before, and named."""

import functools
from hashlib import sha256

import jax
import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.training.step import global_norm

shaped = functools.partial(as_array, infinite="is a root taken of something below 0?")


# distances

RANDOM = np.random.default_rng(0)
X, Y = (
    RANDOM.normal(size=(4, 3)).astype(np.float32),
    RANDOM.normal(size=(4, 3)).astype(np.float32),
)  # n = m: mix-ups fit

DISTANCE_SLIPS = {
    "squared": "these are the squared distances: take the root at the end",
    "transposed": "rows and columns are exchanged: entry [i, j] is the distance from x[i] to y[j]",
    "manhattan": "the absolute differences are added: square them, add, then take the root",
    "mean": "the squares are averaged: add them over the last axis",
    "rows": "each row of x is compared with one row of y only: give x the shape [n, 1, d]",
    "product": "this is the product x y^T: subtract before you square",
}


def _distances(x, y, slip=None):
    x, y = np.asarray(x), np.asarray(y)
    difference = x[:, None] - y[None]
    squares = (difference**2).mean(-1) if slip == "mean" else (difference**2).sum(-1)
    return {
        "squared": squares,
        "transposed": np.sqrt(squares).T,
        "manhattan": np.abs(difference).sum(-1),
        "rows": np.sqrt(((x - y[: len(x)]) ** 2).sum(-1)) if slip == "rows" else None,
        "product": x @ y.T,
    }.get(slip, np.sqrt(squares))


def _check_distances(function) -> None:
    found = function(X.copy(), Y.copy())
    if getattr(found, "shape", None) == (4,):
        raise Mistake(DISTANCE_SLIPS["rows"])
    found = shaped(found, (4, 4), "distances of 4 and 4 points")
    right = _distances(X, Y)
    if not close(found, right):
        for slip, message in DISTANCE_SLIPS.items():
            if close(found, _distances(X, Y, slip)):
                raise Mistake(message)
        raise Mistake("the distances are wrong: try one point each, (0, 0) and (3, 4); it must give 5")
    if not close(shaped(function(X[:2].copy(), Y.copy()), (2, 4), "distances of 2 and 4 points"), right[:2]):
        raise Mistake("right for as many points in x as in y, wrong for 2 and 4")


# global_norm

TREE = {"a": {"kernel": X, "bias": Y[0]}, "b": [np.float32(2.0) * Y, np.float32(3.0)]}

NORM_SLIPS = {
    "sum of norms": "the norms of the leaves are added: add the squares of all leaves, then take one root",
    "squared": "this is the square of the norm: take the root at the end",
    "absolute": "the absolute values are added: square them first",
    "mean": "the squares are averaged: the norm is the root of their sum",
    "first": "only the first leaf counts: go through all of jax.tree.leaves(tree)",
    "largest": "this is the norm of the largest leaf: all leaves are one vector",
}


def _norm(tree, slip=None):
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    squares = [(leaf**2).sum() for leaf in leaves]
    return {
        "sum of norms": np.sqrt(squares).sum(),
        "squared": sum(squares),
        "absolute": sum(np.abs(leaf).sum() for leaf in leaves),
        "mean": np.sqrt(sum(squares) / sum(leaf.size for leaf in leaves)),
        "first": np.sqrt(squares[0]),
        "largest": np.sqrt(max(squares)),
    }.get(slip, np.sqrt(sum(squares)))


def _check_norm(function) -> None:
    found = shaped(function(TREE), (), "the norm of a tree")
    if close(found, global_norm(jax.tree.map(jnp.asarray, TREE))):
        return
    for slip, message in NORM_SLIPS.items():
        if close(found, _norm(TREE, slip)):
            raise Mistake(message)
    raise Mistake(
        f"the norm is {found:.4f}, expected {_norm(TREE):.4f}: are nested dicts and lists walked to their leaves?"
    )


# draw

SHAPES = {"one": (300, 2), "two": (300, 2), "three": (7,)}

DRAW_SLIPS = {
    "one key": "two names of one shape have equal numbers: each name needs a key of its own",
    "by place": "removing a name changes the numbers of another: make the key from the name, not from its place",
    "no key": "two keys give equal numbers: fold the name into the key that is given",
    "numpy": "called twice with one key it gives other numbers: draw from the key, nothing may be remembered between calls",
    "uniform": "the numbers are not standard normal: use jax.random.normal",
    "length": "names of one length have equal numbers: use the whole name, for example its sha256",
}


def _word(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")


def _draw(key, shapes, slip=None):
    generator = jax.random.uniform if slip == "uniform" else jax.random.normal
    if slip == "numpy":
        return {name: np.random.normal(size=shape) for name, shape in shapes.items()}
    key = jax.random.key(0) if slip == "no key" else key
    words = {
        "one key": lambda place, name: 0,
        "by place": lambda place, name: place,
        "length": lambda place, name: len(name),
    }
    word = words.get(slip, lambda place, name: _word(name))
    return {
        name: generator(jax.random.fold_in(key, word(place, name)), shape)
        for place, (name, shape) in enumerate(shapes.items())
    }


def _arrays(function, seed: int, names=tuple(SHAPES)) -> dict[str, np.ndarray]:
    found = function(jax.random.key(seed), {name: SHAPES[name] for name in names})
    if not isinstance(found, dict) or set(found) != set(names):
        kind = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise Mistake(f"draw returned {kind}, expected a dict with the names {', '.join(names)}")
    return {name: shaped(found[name], SHAPES[name], f'draw(...)["{name}"]') for name in names}


def _check_draw(function) -> None:
    found, again, other = _arrays(function, 5), _arrays(function, 5), _arrays(function, 6)
    if not all(close(found[name], again[name]) for name in SHAPES):
        raise Mistake(DRAW_SLIPS["numpy"])
    if close(found["one"], other["one"]):
        raise Mistake(DRAW_SLIPS["no key"])
    fewer = _arrays(function, 5, ("two",))
    if close(found["one"], found["two"]):
        raise Mistake(DRAW_SLIPS["one key" if close(found["one"][0, 0], _first(function)) else "length"])
    if not close(found["two"], fewer["two"]):
        raise Mistake(DRAW_SLIPS["by place"])
    values = np.concatenate([found["one"].ravel(), found["two"].ravel()])
    if abs(values.mean()) > 0.15 or abs(values.std() - 1.0) > 0.15:
        raise Mistake(DRAW_SLIPS["uniform"])


def _first(function) -> float:
    """The first number of a name of another length."""
    found = function(jax.random.key(5), {"a longer name": SHAPES["one"]})
    return shaped(found["a longer name"], SHAPES["one"], "draw(...)")[0, 0]


# huber

POINTS = jnp.array([[-3.0, -1.0, -0.4], [0.0, 0.7, 2.5]])

HUBER_SLIPS = {
    "jump": "it jumps at |x| = 1: outside it is |x| - 1/2, so that both cases meet at 1/2",
    "no half": "inside it is x^2 / 2: without the half the slope jumps at 1",
    "exchanged": "the cases are exchanged: x^2 / 2 belongs where |x| <= 1",
    "one side": "below -1 it must grow too: compare and add |x|, not x",
    "sum": "the entries are added up: return one value per entry",
}


def _huber(x, slip=None):
    size = x if slip == "one side" else jnp.abs(x)
    inside, outside = jnp.square(x) * (1.0 if slip == "no half" else 0.5), size - (0.0 if slip == "jump" else 0.5)
    value = jnp.where((size > 1.0) if slip == "exchanged" else (size <= 1.0), inside, outside)
    return value.sum() if slip == "sum" else value


def _branches(x):
    if jnp.abs(x) <= 1.0:
        return 0.5 * x * x
    return jnp.abs(x) - 0.5


def _in_numpy(x):
    x = np.asarray(x)
    return np.where(np.abs(x) <= 1.0, 0.5 * x * x, np.abs(x) - 0.5)


def _check_huber(function) -> None:
    shaped(function(jnp.float32(0.3)), (), "the result for one number")
    try:
        jax.jit(function)(jnp.float32(0.3))
        found = jax.jit(function)(POINTS)
    except jax.errors.TracerBoolConversionError:
        raise Mistake("a Python `if` (or `and`, `max`) asks for a value that a tracer has not: use jnp.where") from None
    except jax.errors.TracerArrayConversionError:
        raise Mistake("NumPy cannot compute with a tracer: use jnp inside a jitted function") from None
    except jax.errors.ConcretizationTypeError:
        raise Mistake("float() or int() asks for a value that a tracer has not: keep it an array") from None
    for slip, message in HUBER_SLIPS.items():
        if np.shape(found) in ((), POINTS.shape) and close(found, _huber(POINTS, slip)):
            raise Mistake(message)
    found, right = shaped(found, POINTS.shape, "the result"), _huber(POINTS)
    if not close(found, right):
        place = tuple(map(int, np.argwhere(~np.isclose(found, right, atol=1e-5))[0]))
        raise Mistake(f"huber({POINTS[place]:g}) is {found[place]:g}, expected {right[place]:g}")
    slope = shaped(jax.grad(lambda x: function(x).sum())(POINTS), POINTS.shape, "the derivative")
    if not close(slope, jnp.clip(POINTS, -1.0, 1.0)):
        raise Mistake("the values are right but the derivative is not: is a rounded or stopped value in the way?")


CHECKS = {"distances": _check_distances, "global_norm": _check_norm, "draw": _check_draw, "huber": _check_huber}

HINTS = {
    "distances": (
        "x[:, None, :] has the shape [n, 1, d], y[None, :, :] has [1, m, d]; their difference has [n, m, d].",
        "Square, sum over axis -1, jnp.sqrt.",
    ),
    "global_norm": (
        "jax.tree.leaves(tree) is the list of all leaves, however deep they lie.",
        "sum(jnp.square(leaf).sum() for leaf in ...) and one jnp.sqrt at the end.",
    ),
    "draw": (
        "jax.random.fold_in(key, number) makes a new key; the number must depend on the name alone.",
        'int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") is such a number.',
    ),
    "huber": (
        "jnp.where(condition, a, b) computes both and picks entry by entry: there is nothing to decide while tracing.",
        "jnp.where(jnp.abs(x) <= 1, ..., ...).",
    ),
}

MISTAKES = {
    "distances": [(functools.partial(_distances, slip=slip), message) for slip, message in DISTANCE_SLIPS.items()],
    "global_norm": [(functools.partial(_norm, slip=slip), message) for slip, message in NORM_SLIPS.items()],
    "draw": [(functools.partial(_draw, slip=slip), message) for slip, message in DRAW_SLIPS.items()],
    "huber": [
        *((functools.partial(_huber, slip=slip), message) for slip, message in HUBER_SLIPS.items()),
        (_branches, "a Python `if`"),
        (_in_numpy, "NumPy cannot compute with a tracer"),
    ],
}
