"""Which of a lab's runs begin with which others: bases on bases, and members on members of the same seed."""

from collections.abc import Mapping
from typing import Any

from minillm.errors import UserError
from minillm.sections.experiment import OWN

Sections = Mapping[str, Mapping[str, Any]]


def begins_with(sections: Mapping[str, Any]) -> str | None:
    """ "@NAME" or "@NAME-{seed}" of the sections' base -> NAME or NAME-{seed}; None where it is no run of the lab."""
    base = sections.get("base")
    run = base.get("run", "") if isinstance(base, Mapping) else ""
    return run[1:] if isinstance(run, str) and run.startswith("@") else None


def member_before(sections: Mapping[str, Any], members: Sections) -> str | None:
    """The member whose run of the same seed comes first: "@MEMBER-{seed}". None where it is a base, or another run."""
    name = begins_with(sections)
    found = name.removesuffix("-{seed}") if name and name.endswith("-{seed}") else None
    return found if found in members else None


def stages(before: Mapping[str, str | None], where: str) -> list[list[str]]:
    """name -> the one that must come first -> names by how many come before them. Raises: UserError for a circle."""
    depths: dict[str, int] = {}
    for name in before:
        path = [name]
        while (first := before.get(path[-1])) is not None:
            if first in path:
                message = f"{' begins with '.join([*path, first])}: a circle"
                raise UserError(message, f"{where}.{name}: base.run", "let one of them begin elsewhere")
            path.append(first)
        depths[name] = len(path) - 1
    return [[name for name in before if depths[name] == depth] for depth in range(max(depths.values(), default=-1) + 1)]


def standing_alone(sections: dict[str, Any], members: Sections, base_sections: Sections, seed: int) -> dict[str, Any]:
    """Sections that can be checked before anything has run: model and tokenizer of the lab's run that they begin with.

    What needs that run's folder, [continual], is left out.
    """
    name = begins_with(sections)
    if name is None:
        return sections
    first = member_before(sections, members)
    below = members[first] if first else base_sections[name.replace("{seed}", str(seed))]
    below = standing_alone(dict(below), members, base_sections, seed)
    known = {key: below[key] for key in ("model", "tokenizer", "base") if key in below}
    if "model" in known:
        known["model"] = {key: value for key, value in known["model"].items() if key not in OWN}
    own = {key: value for key, value in sections.items() if key not in ("base", "continual")}
    model = known.get("model", {}) | own.get("model", {})
    return known | own | ({"model": model} if model else {})
