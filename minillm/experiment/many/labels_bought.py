"""What the table of a lab says of members with few labels: their baselines, price, and how far they are from each other."""

from collections.abc import Sequence
from typing import Any

from minillm.evaluation.intervals import over_seeds, paired_seeds
from minillm.report.columns import COLUMNS

VALIDATION = ("validation_labels", "validation_price")  # older runs have not counted them
FINDING = ("precision", "recall")


def bought(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{"labels", "price", "hours", "own_baselines": name -> metric -> mean and interval over seeds}, and of a teacher's
    answers "pseudo_accuracy", of confident learning "finding": {"precision", "recall"}; nothing for members without
    [annotation].

    Each seed has labels of its own, so that a baseline too has a value per seed, where each seed has fitted it.
    """
    if "annotation" not in summaries[0]:
        return {}
    reports = [summary["annotation"] for summary in summaries]
    found = {key: reports[0][key] for key in ("labels", "hours", "price", "wrong", *VALIDATION) if key in reports[0]}
    names = [name for name in summaries[0]["baselines"] if all(name in summary["baselines"] for summary in summaries)]
    per_seed = {name: [summary["baselines"][name] for summary in summaries] for name in names}
    own = {name: {metric: over_seeds([row[metric] for row in rows]) for metric in rows[0] if metric in COLUMNS}
           for name, rows in per_seed.items()}  # fmt: skip
    found |= {"own_baselines": own} if own else {}
    if "pseudo" in summaries[0]:
        found["pseudo_accuracy"] = over_seeds([summary["pseudo"]["accuracy_kept"] for summary in summaries])
    if "finding" in reports[0]:
        found["finding"] = {key: over_seeds([report["finding"][key] for report in reports]) for key in FINDING}
    return found


def from_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far the other members are from the first of their task, with as many labels and the same held-out domains, seed
    by seed; of labs with [annotation] or held-out domains alone.

    {"left", "right", "metric", "value", "low", "high", "p"}: the mean of right - left, by Student's t.
    """
    found, firsts = [], {}
    for row in (row for row in rows if {"labels", "held_out"} & set(row) and len(row["seeds"]) > 1):
        key = (row.get("task"), row.get("labels"), tuple(row.get("held_out", ())))
        metric = next((name for name in COLUMNS if name in row), None)
        first = firsts.setdefault(key, row)
        if first is row or metric is None or metric not in first or first["seeds"] != row["seeds"]:
            continue
        test = paired_seeds(first[metric]["values"], row[metric]["values"])
        found.append({"left": first["member"], "right": row["member"], "metric": metric} | test)
    return found
