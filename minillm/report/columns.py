"""Which numbers stand beside each other in a table of a model and its baselines: those that both have."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {  # key -> (title, format); a table is sorted by the first one that it has, the best row on top
    "bleu": ("BLEU", ".1f"),
    "chrf": ("chrF", ".1f"),
    "rougeL": ("ROUGE-L", ".3f"),
    "rouge1": ("ROUGE-1", ".3f"),
    "rouge2": ("ROUGE-2", ".3f"),
    "answer_f1": ("answer F1", ".3f"),
    "exact_match": ("exact match", ".1%"),
    "placeholders_kept": ("placeholders kept", ".1%"),
    "placeholders_kept_where_any": ("where there are any", ".1%"),
    "entity_f1": ("entity F1", ".3f"),
    "macro_f1": ("macro F1", ".3f"),
    "r2": ("R²", ".3f"),
    "bits_per_character": ("bits per character", ".3f"),
    "perplexity": ("perplexity", ",.2f"),
    "nll": ("nats per token", ".3f"),
    "removed_nll": ("nats per removed token", ".3f"),
    "squared_error": ("squared error", ".4f"),
    "nearest": ("nearest of its class", ".1%"),
    "accuracy": ("accuracy", ".1%"),
    "accuracy_worst": ("accuracy, worst domain", ".1%"),
    "recovered": ("recovered", ".1%"),
    "accuracy_fgm": ("accuracy, FGM", ".1%"),
    "accuracy_pgd": ("accuracy, PGD", ".1%"),
    "accuracy_swap": ("accuracy, swapped", ".1%"),
    "accuracy_delete": ("accuracy, deleted", ".1%"),
    "accuracy_synonyms": ("accuracy, synonyms", ".1%"),
    "log_loss": ("log loss", ".3f"),
    "calibration_error": ("calibration error", ".3f"),
}
ATTACKS = tuple(f"accuracy_{method}" for method in ("fgm", "pgd", "swap", "delete", "synonyms"))  # what is left
WRITTEN = ("bleu", "chrf", "rougeL", "rouge1", "rouge2", "placeholders_kept", "placeholders_kept_where_any")
CORRECT = ("answer_f1", "exact_match", "entity_f1", "macro_f1", "r2", "nearest", "accuracy", "recovered")
HIGHER = (*WRITTEN, *CORRECT)  # is better


def choose(
    summary: Mapping[str, Any],
) -> tuple[list[tuple[str, Mapping[str, float]]], dict[str, tuple[str, str]]]:
    """A run's summary -> (name, values) of the model and its baselines, best first, and the columns that compare them."""
    rows = {"this model": summary.get(summary.get("judged", "validation")) or {}, **(summary.get("baselines") or {})}
    baselines = [row for name, row in rows.items() if name != "this model"] or list(rows.values())
    columns = {key: column for key, column in COLUMNS.items() if any(key in row for row in baselines)}
    if not columns:
        return [], {}
    first = next(iter(columns))
    sign = -1.0 if first in HIGHER else 1.0
    ordered = sorted(rows.items(), key=lambda item: sign * item[1].get(first, 0.0))
    return [(name, row) for name, row in ordered if columns.keys() & row.keys()], columns


def main_metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first column that all rows have."""
    return next(key for key in COLUMNS if all(key in row for row in rows))


def size_text(count: float) -> str:
    """Bytes: 1234567 -> 1.2 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:,.1f} {unit}"
    return f"{count:,.0f} B"


def time_text(seconds: float) -> str:
    """0.0123 -> 12.3 ms."""
    for limit, unit in ((86400.0, "days"), (3600.0, "h"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= limit:
            count = seconds / limit
            return f"{count:,.0f} {unit}" if count >= 100 else f"{count:.3g} {unit}"
    return "0"
