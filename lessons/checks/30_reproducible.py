"""Checks of lesson 30: they name the mistake, not only the failure."""

import copy
import math
from collections.abc import Callable

import numpy as np

from minillm.course.contract import Mistake

SEED, BATCH, EXAMPLES = 7, 3, 10  # three whole batches an epoch, and one example is left over
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def _indices(function: Callable, seed: int, step: int) -> np.ndarray:
    """One answer as integers [batch], or a Mistake."""
    call = f"batch_indices({seed}, {step}, {BATCH}, {EXAMPLES})"
    result = function(seed, step, BATCH, EXAMPLES)
    try:
        array = np.asarray(result)
        whole = array.dtype.kind in "iu"
    except Exception:
        whole = False
    if not whole:
        raise Mistake(f"{call} returned {type(result).__name__}, expected whole numbers: does it end with `return`?")
    if array.shape != (BATCH,):
        raise Mistake(
            f"{call} has shape {list(array.shape)}, expected {[BATCH]}: is the last batch of an epoch cut short?"
        )
    if array.min() < 0 or array.max() >= EXAMPLES:
        raise Mistake(f"{call} returned {array.tolist()}: the examples are numbered from 0 to {EXAMPLES - 1}")
    return array


def check_batch_indices(function: Callable) -> None:
    """Purity first, then what an epoch must hold, then what seeds and epochs may share."""
    state = np.random.get_state()
    try:
        _check_purity(function)
    finally:
        np.random.set_state(state)
    batches = np.stack([_indices(function, SEED, step) for step in range(9)]).reshape(3, 9)  # [epoch, examples seen]
    if any(len(set(row.tolist())) < BATCH for row in batches.reshape(9, BATCH)):
        raise Mistake("a batch holds one example twice: draw without replacement, by a permutation of all examples")
    if any(len(set(row.tolist())) < 9 for row in batches):
        raise Mistake("an example comes twice within one epoch: cut all batches of an epoch from one permutation")
    if np.array_equal(batches[0], np.arange(9)):
        raise Mistake("the examples come in their own order: shuffle them, by an order that seed and epoch decide")
    if np.array_equal(batches[0], batches[1]) and np.array_equal(batches[1], batches[2]):
        raise Mistake("every epoch has the same order: the epoch must take part in the seed of the permutation")
    others = [np.concatenate([_indices(function, seed, step) for step in range(9)]) for seed in (8, 9)]
    if any(np.array_equal(other, batches.reshape(-1)) for other in others):
        raise Mistake("two seeds give the same batches: is the argument `seed` used?")
    if np.array_equal(others[0][:18], batches.reshape(-1)[9:]):
        raise Mistake(
            "seed 8 begins with the second epoch of seed 7: seed + epoch mixes them, pass both as [seed, epoch]"
        )


def _check_purity(function: Callable) -> None:
    np.random.seed(1)
    first = {step: _indices(function, SEED, step) for step in (4, 0, 4, 2)}
    untouched = np.random.random()
    np.random.seed(1)
    if np.random.random() != untouched:
        raise Mistake(
            "the call changes NumPy's global random state (np.random.seed or np.random.permutation), so that it moves "
            "everybody's numbers: make a generator of your own with np.random.default_rng"
        )
    np.random.seed(2)
    for step in (2, 4, 0):
        if not np.array_equal(_indices(function, SEED, step), first[step]):
            raise Mistake(
                f"step {step} gives other examples when it is asked again: the answer depends on earlier calls or on "
                "chance, so a resumed run would not see the same data. Use (seed, epoch) alone"
            )


def check_mean_and_interval(function: Callable) -> None:
    """Samples of 3, 2, 5 and 10 values."""
    for values in ([1.0, 2.0, 3.0], [0.5, 0.7], [3.1, 2.9, 3.3, 3.0, 2.2], [float(k * k) for k in range(10)]):
        call, argument = f"mean_and_interval({values})", list(values)
        result = function(argument)
        try:
            found = np.asarray(result, np.float64)
        except Exception:
            found = np.array(np.nan)
        if found.shape != (3,) or not np.isfinite(found).all():
            raise Mistake(f"{call} returned {result!r}, expected three numbers: mean, lower end, upper end")
        if argument != values:
            raise Mistake("mean_and_interval changed its argument: leave the values as they are")
        mean, half = float(np.mean(values)), (found[2] - found[1]) / 2
        if abs(found[0] - mean) > 1e-6:
            raise Mistake(
                f"{call} has the mean {found[0]:.4g}, expected {mean:.4g}: median, or a wrong number of values?"
            )
        if half < 0 or abs(found[1] + found[2] - 2 * mean) > 1e-6:
            raise Mistake(
                f"{call} returned {found.round(4).tolist()}: expected mean, lower, upper, with equal distances"
            )
        _check_width(call, half, np.array(values))


def _check_width(call: str, half: float, values: np.ndarray) -> None:
    n, s = len(values), float(values.std(ddof=1))
    right, t = T95[n - 2] * s / math.sqrt(n), T95[n - 2]
    reasons = [
        (t * values.std() / math.sqrt(n), "s divides by n (NumPy's default): a sample needs n - 1, ddof=1"),
        (1.96 * s / math.sqrt(n), "1.96 belongs to the normal distribution: so few values need Student's t"),
        (t * s, "that is the spread of single values: the mean's is smaller by sqrt(n)"),
        (t * s / n, "divided by n, not by sqrt(n)"),
        (t * s * s / math.sqrt(n), "that is the variance: take its square root"),
        (
            T95[min(n - 1, 8)] * s / math.sqrt(n),
            "t of the next row: n values have n - 1 degrees of freedom, T95[n - 2]",
        ),
        (s / math.sqrt(n), "that is the standard error: multiply it by t"),
    ]
    if abs(half - right) < 1e-3 * right:
        return
    reason = next(
        (text for width, text in reasons if abs(half - width) < 1e-3 * width), "check s, t and sqrt(n) in turn"
    )
    raise Mistake(f"{call} has the half width {half:.4g}, expected {right:.4g}: {reason}")


WINNERS = [  # in the first, each wrong way to choose finds another setting
    ([[0.9, 0.2, 0.7], [0.5, 0.4, 0.45], [0.3, 0.3, 0.9], [0.8, 0.8, 0.8], [1.0, 1.0, 1.0]],
     [[0.4, 0.3], [0.6, 0.5], [0.4, 0.2], [0.1, 0.1], [0.9, 0.8]]),
    ([[0.5, 0.7], [0.4, 0.6], [0.3, 0.9]], [[0.6, 0.6], [0.7, 0.5], [0.5, 0.5]]),
    ([[0.2, 0.1], [0.3, 0.2]], [[0.9, 0.7], [0.1, 0.2]]),
]  # fmt: skip


def check_judge_winner(function: Callable) -> None:
    """The choice first, then the two means."""
    for chosen_on, judged_on in WINNERS:
        call, copies = f"judge_winner({chosen_on}, {judged_on})", copy.deepcopy((chosen_on, judged_on))
        result = function(*copies)
        if copies != (chosen_on, judged_on):
            raise Mistake("judge_winner changed its arguments: leave the losses as they are")
        try:
            found = np.asarray(result, np.float64)
        except Exception:
            found = np.array(np.nan)
        if found.shape != (3,) or not np.isfinite(found).all():
            raise Mistake(
                f"{call} returned {result!r}, expected three numbers: index, its mean, its mean on other seeds"
            )
        means, others = (np.array([np.mean(row) for row in part]) for part in (chosen_on, judged_on))
        right = int(means.argmin())
        if found[0] != right:
            reasons = [
                (others.argmin(), "that is the best on the seeds that should only judge: choose by chosen_on alone"),
                ((means + others).argmin(), "both parts were used to choose: choose by chosen_on alone"),
                (np.min(chosen_on, 1).argmin(), "it has the luckiest single seed: compare means"),
                (means.argmax(), "it has the highest loss: lower is better"),
            ]
            reason = next((text for index, text in reasons if index == found[0]), "compare the means of its rows")
            raise Mistake(f"{call} chose setting {found[0]:g}, expected {right}: {reason}")
        if abs(found[1] - means[right]) > 1e-6:
            wanted = f"expected the mean over its seeds, {means[right]:.4g}"
            raise Mistake(f"{call} gives setting {right} the loss {found[1]:.4g}, {wanted}")
        _check_judged(call, right, float(found[2]), means, others)


def _check_judged(call: str, right: int, honest: float, means: np.ndarray, others: np.ndarray) -> None:
    reasons = [
        (means[right], "that is the mean it was chosen by, luck included: take judged_on"),
        (others.min(), "that is the best of judged_on: the winner is chosen already, nothing is chosen again"),
        (others.mean(), "that is the mean of all settings: take the winner's row"),
    ]
    if abs(honest - others[right]) > 1e-6:
        reason = next(
            (text for value, text in reasons if abs(honest - value) < 1e-6), "take the mean of judged_on's row"
        )
        raise Mistake(f"{call} judges setting {right} by {honest:.4g}, expected {others[right]:.4g}: {reason}")


CHECKS = {
    "batch_indices": check_batch_indices,
    "mean_and_interval": check_mean_and_interval,
    "judge_winner": check_judge_winner,
}

HINTS = {
    "batch_indices": (
        "epoch, place = divmod(step, examples // batch_size) says which epoch it is and which batch of it.",
        "np.random.default_rng([seed, epoch]).permutation(examples) is the epoch's order; cut batch `place` out of it.",
    ),
    "mean_and_interval": (
        "np.std divides by n; np.std(values, ddof=1) divides by n - 1.",
        "The half width is T95[n - 2] * s / sqrt(n); return mean, mean - half, mean + half.",
    ),
    "judge_winner": (
        "np.mean(chosen_on, axis=1) has one mean per setting; np.argmin says which is the lowest.",
        "judged_on must not help to choose: take the mean of its row of the winner, whatever the others have.",
    ),
}


def _global_state(seed, step, batch_size, examples):
    np.random.seed(seed)
    epoch, place = divmod(step, examples // batch_size)
    order = [np.random.permutation(examples) for _ in range(epoch + 1)][-1]
    return order[place * batch_size : (place + 1) * batch_size]


def _carried(seed, step, batch_size, examples, generators={}):  # noqa: B006
    return generators.setdefault(seed, np.random.default_rng(seed)).permutation(examples)[:batch_size]


def _with_replacement(seed, step, batch_size, examples):
    return np.random.default_rng([seed, step]).integers(examples, size=batch_size)


def _every_step_anew(seed, step, batch_size, examples):
    return np.random.default_rng([seed, step]).permutation(examples)[:batch_size]


def _one_order(seed, step, batch_size, examples):
    place = step % (examples // batch_size)
    return np.random.default_rng(seed).permutation(examples)[place * batch_size : (place + 1) * batch_size]


def _seed_plus_epoch(seed, step, batch_size, examples):
    epoch, place = divmod(step, examples // batch_size)
    return np.random.default_rng(seed + epoch).permutation(examples)[place * batch_size : (place + 1) * batch_size]


def _short_last_batch(seed, step, batch_size, examples):
    epoch, place = divmod(step, -(-examples // batch_size))
    return np.random.default_rng([seed, epoch]).permutation(examples)[place * batch_size : (place + 1) * batch_size]


def _fixed_seed(seed, step, batch_size, examples):
    epoch, place = divmod(step, examples // batch_size)
    return np.random.default_rng([42, epoch]).permutation(examples)[place * batch_size : (place + 1) * batch_size]


def _interval(half_width: Callable) -> Callable:
    def wrong(values):
        values = np.asarray(values)
        half = half_width(values, len(values))
        return values.mean(), values.mean() - half, values.mean() + half

    return wrong


def _around_the_median(values):
    half = T95[len(values) - 2] * np.std(values, ddof=1) / np.sqrt(len(values))
    return np.median(values), np.median(values) - half, np.median(values) + half


def _choose(
    choose: Callable, judge: Callable = lambda chosen_on, judged_on, winner: judged_on[winner].mean()
) -> Callable:
    def wrong(chosen_on, judged_on):
        chosen_on, judged_on = np.array(chosen_on), np.array(judged_on)
        winner = int(choose(chosen_on, judged_on))
        return winner, chosen_on[winner].mean(), judge(chosen_on, judged_on, winner)

    return wrong


_LOWEST = lambda chosen_on, judged_on: chosen_on.mean(1).argmin()

MISTAKES = {
    "batch_indices": [
        (_global_state, "global random state"),
        (_carried, "depends on earlier calls"),
        (_with_replacement, "one example twice"),
        (_every_step_anew, "twice within one epoch"),
        (_one_order, "the same order"),
        (_seed_plus_epoch, "seed + epoch mixes"),
        (_short_last_batch, "cut short"),
        (_fixed_seed, "is the argument `seed` used"),
    ],
    "mean_and_interval": [
        (_interval(lambda values, n: T95[n - 2] * values.std() / np.sqrt(n)), "ddof=1"),
        (_interval(lambda values, n: 1.96 * values.std(ddof=1) / np.sqrt(n)), "normal distribution"),
        (_interval(lambda values, n: T95[n - 2] * values.std(ddof=1)), "smaller by sqrt(n)"),
        (_interval(lambda values, n: T95[min(n - 1, 8)] * values.std(ddof=1) / np.sqrt(n)), "t of the next row"),
        (_around_the_median, "median, or a wrong number"),
        (lambda values: (np.mean(values), np.std(values, ddof=1)), "three numbers"),
    ],
    "judge_winner": [
        (_choose(lambda chosen_on, judged_on: judged_on.mean(1).argmin()), "should only judge"),
        (_choose(lambda chosen_on, judged_on: (chosen_on.mean(1) + judged_on.mean(1)).argmin()), "both parts"),
        (_choose(lambda chosen_on, judged_on: chosen_on.min(1).argmin()), "luckiest single seed"),
        (_choose(lambda chosen_on, judged_on: chosen_on.mean(1).argmax()), "lower is better"),
        (_choose(_LOWEST, lambda chosen_on, judged_on, winner: chosen_on[winner].mean()), "chosen by, luck included"),
        (_choose(_LOWEST, lambda chosen_on, judged_on, winner: judged_on.mean(1).min()), "nothing is chosen again"),
    ],
}
