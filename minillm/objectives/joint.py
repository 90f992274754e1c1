"""Joint training: several objectives for one model, each on a batch of its own.

    L = sum over parts k and their terms i of  coefficient[k/i] * sum_(k, i) / weight_(k, i)

A task with language modelling beside it is equation 5 of Radford et al. 2018 (their coefficient is 0.5); several tasks
are Caruana 1997, "Multitask Learning".
"""

from collections.abc import Mapping

import jax

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Objective, Sums, interacts, like
from minillm.objectives.next_sentence import join


def joint(parts: Mapping[str, Objective]) -> Objective:
    """{name: objective} -> an objective whose batch is {name: batch}; terms and metrics are named "name/term".

    Each part draws dropout of its own. Raises: ValueError where the batch has other parts, or rows go on from a carry,
    which parts cannot share.
    """

    def objective(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
        if set(batch) != set(parts):
            raise ValueError(f"joint training of {sorted(parts)} needs a batch of each, got {sorted(batch)}")
        if extra and "carry" in extra:
            raise ValueError("joint training has no carry: its parts read different rows")
        keys = [None if key is None else jax.random.fold_in(key, number) for number in range(len(parts))]
        found = {
            name: part(model, params, batch[name], own, extra)
            for own, (name, part) in zip(keys, parts.items(), strict=True)
        }
        return join(*(_named(name, sums) for name, sums in found.items()))._replace(extra=extra)

    objective.interacts = any(map(interacts, parts.values()))
    return objective


def with_own_rows(model: Model, name: str) -> Model:
    """The model as one task of several sees it: rows of the table under tasks/NAME stand in for those of the same path.

    So each task has a classifier of its own, on the body that all share.
    """
    own = lambda params: {**params, **params.get("tasks", {}).get(name, {})}
    redirect = lambda head: lambda params, hidden, **others: head(own(params), hidden, **others)
    heads = {kind: redirect(head) for kind, head in model.heads.items()}
    logits = model.logits and (lambda params, hidden: model.logits(own(params), hidden))
    return model._replace(heads=heads, logits=logits)


def own_part(name: str, objective: Objective) -> Objective:
    """The objective for a model whose rows under tasks/NAME are this task's."""

    def part(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
        return objective(with_own_rows(model, name), params, batch, key, extra)

    return like(objective, part)


def _named(name: str, sums: Sums) -> Sums:
    return Sums(*({f"{name}/{term}": value for term, value in table.items()} for table in sums[:3]))
