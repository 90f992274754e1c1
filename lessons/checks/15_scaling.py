"""Checks of lesson 15: each wrong answer is compared with those that others have given before, and named."""

import functools

import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake

finite = functools.partial(as_array, infinite="is something divided by 0, or a logarithm of 0 taken?")


# best_split

SPLITS = [(6e9, 10.0), (3.3e21, 20.0), (5e12, 0.7)]

SPLIT_SLIPS = {
    "no root": "the root is missing: with D = r N, C = 6 r N^2 has the square of N",
    "no six": "the 6 is missing: each parameter costs 6 FLOPs per token, forwards and backwards",
    "forward": "2 N D is the forward pass alone: training costs 6 N D",
    "upside down": "the ratio is on the wrong side in N: more tokens for each parameter leave fewer parameters",
    "swapped": "N and D are swapped: return the parameters first",
    "tokens": "N is right, D is not: it should be tokens_per_parameter * N, and 6 N D should give C back",
}


def _split(compute, tokens_per_parameter, slip=None):
    ratio = 1 / tokens_per_parameter if slip == "upside down" else tokens_per_parameter
    n = compute / ({"no six": 1, "forward": 2}.get(slip, 6) * ratio)
    n = n if slip == "no root" else n**0.5
    d = compute / n if slip == "tokens" else tokens_per_parameter * n
    return (d, n) if slip == "swapped" else (n, d)


def _check_split(function) -> None:
    for case in SPLITS:
        call = f"best_split({case[0]:g}, {case[1]:g})"
        found = finite(function(*case), shape=(2,), what=f"{call}, a pair,")
        if np.allclose(found, right := _split(*case), rtol=1e-6):
            continue
        for slip, message in SPLIT_SLIPS.items():
            if np.allclose(found, _split(*case, slip=slip), rtol=1e-6):
                raise Mistake(message)
        raise Mistake(f"{call} returned {found[0]:.4g}, {found[1]:.4g}, expected {right[0]:.4g}, {right[1]:.4g}")


# fit_power_law

RANDOM = np.random.default_rng(15)
POINTS = []  # noisy, in no order: two points, or none off the line, would hide what is wrong
for a, b, size in ((2.5, -0.3, 5), (0.4, 0.7, 4), (30.0, -1.2, 7)):
    x = 10.0 ** RANDOM.uniform(0.5, 4.0, size)
    POINTS.append((x, a * x**b * np.exp(RANDOM.normal(0.0, 0.3, size))))

LAW_SLIPS = {
    "plain": "a straight line through the numbers themselves: take the logarithm of x and of y first",
    "only y": "only y has a logarithm: that fits an exponential, for a power law x needs one, too",
    "height": "the first number is log a: undo the logarithm",
    "base": "the logarithms have the base 10, but the height was undone with exp: use 10 ** height",
    "swapped": "a and b are swapped: return the factor first, then the exponent",
    "inverse": "x was fitted to y: divide the covariance by the variance of log x, not of log y",
    "sign": "the exponent has the wrong sign: where y falls, b is negative",
    "ends": "only the first and the last point count: use all of them",
    "origin": "the line is forced through log x = 0, log y = 0: subtract the means first",
}


def _law(x, y, slip=None):
    x, y = np.asarray(x, float), np.asarray(y, float)
    u, v = (x if slip in ("plain", "only y") else np.log(x)), (y if slip == "plain" else np.log(y))
    if slip == "ends":
        u, v = u[[0, -1]], v[[0, -1]]
    du, dv = u - u.mean(), v - v.mean()
    b = (dv @ dv) / (du @ dv) if slip == "inverse" else (du @ dv) / (du @ du)
    b = (u @ v) / (u @ u) if slip == "origin" else b
    height = 0.0 if slip == "origin" else v.mean() - b * u.mean()
    a = height if slip in ("plain", "height") else np.exp(height / np.log(10.0) if slip == "base" else height)
    return (b, a) if slip == "swapped" else (a, -b if slip == "sign" else b)


def _check_law(function) -> None:
    for x, y in POINTS:
        given = x.copy(), y.copy()
        found = finite(function(*given), shape=(2,), what="the result, (a, b),")
        if not (np.array_equal(given[0], x) and np.array_equal(given[1], y)):
            raise Mistake("fit_power_law changed one of its arguments: build a new array instead")
        if np.allclose(found, right := _law(x, y), rtol=1e-4):
            continue
        for slip, message in LAW_SLIPS.items():
            if np.allclose(found, _law(x, y, slip), rtol=1e-4):
                raise Mistake(message)
        what = f"a = {found[0]:.4g}, b = {found[1]:.4g} for {len(x)} points, expected {right[0]:.4g}, {right[1]:.4g}"
        raise Mistake(f"{what}: the line through (log x, log y) has the slope b and the height log a")


# training_cost

RUNS = [(3.6e18, 10, 1e13, 0.5, 2.0, 500.0), (3e23, 1000, 3e14, 0.4, 1.7, 650.0), (5e15, 1, 1e11, 0.3, 0.1, 60.0)]

COST_SLIPS = {
    "times": "utilisation makes the run longer: divide by it, do not multiply",
    "ideal": "utilisation is left out: no program reaches a device's peak",
    "alone": "the run takes as long as on one device: they share the work, divide by their number",
    "one rent": "money for one device only: every one of them is rented",
    "one meter": "energy of one device only: every one of them draws its watts",
    "busy": "an idle device costs as much as a busy one: utilisation has no place in money and energy",
    "seconds": "these are seconds: an hour has 3600",
    "watt hours": "these are watt hours: a kilowatt hour has 1000",
}


def _cost(flops, devices, peak, utilisation, price, watts, slip=None):
    speed = peak * {"times": 1 / utilisation, "ideal": 1.0}.get(slip, utilisation)
    hours = flops / (speed * (1 if slip == "alone" else devices)) / (1 if slip == "seconds" else 3600)
    paid = hours * devices * (utilisation if slip == "busy" else 1)
    rent, meter = (paid / devices if slip == name else paid for name in ("one rent", "one meter"))
    return hours, rent * price, meter * watts / (1 if slip == "watt hours" else 1000)


def _check_cost(function) -> None:
    for case in (RUNS[1], *RUNS):  # all slips differ in the second
        call = f"training_cost{case}"
        found = finite(function(*case), shape=(3,), what=f"{call}, three numbers,")
        if np.allclose(found, right := _cost(*case), rtol=1e-6):
            continue
        for slip, message in COST_SLIPS.items():
            if np.allclose(found, _cost(*case, slip=slip), rtol=1e-6):
                raise Mistake(message)
        values = (", ".join(f"{value:.4g}" for value in numbers) for numbers in (found, right))
        raise Mistake("{} returned {}, expected {}: hours, money, kilowatt hours".format(call, *values))


CHECKS = {"best_split": _check_split, "fit_power_law": _check_law, "training_cost": _check_cost}

HINTS = {
    "best_split": (
        "C = 6 * N * (tokens_per_parameter * N): only N is unknown.",
        "N = (compute / (6 * tokens_per_parameter)) ** 0.5, and D is tokens_per_parameter times that.",
    ),
    "fit_power_law": (
        "With u = log x and v = log y, each less its mean: b = sum(u v) / sum(u u).",
        "The line goes through the means: log a = mean(log y) - b * mean(log x). np.polyfit(u, v, 1) gives b and log a.",
    ),
    "training_cost": (
        "All devices together do devices * peak * utilisation FLOPs in a second.",
        "hours = flops / that / 3600; money and energy count hours * devices.",
    ),
}

MISTAKES = {
    "best_split": [(functools.partial(_split, slip=slip), message) for slip, message in SPLIT_SLIPS.items()],
    "fit_power_law": [(functools.partial(_law, slip=slip), message) for slip, message in LAW_SLIPS.items()],
    "training_cost": [(functools.partial(_cost, slip=slip), message) for slip, message in COST_SLIPS.items()],
}
