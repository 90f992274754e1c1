"""Which of a lab's runs wait for which others: they begin with them (base.run), or learn their answers (pseudo.run)."""

from collections.abc import Collection, Mapping
from typing import Any

from minillm.errors import UserError
from minillm.sections.experiment import OWN

Sections = Mapping[str, Mapping[str, Any]]


def begins_with(sections: Mapping[str, Any]) -> str | None:
    """ "@NAME" or "@NAME-{seed}" of the sections' base -> NAME or NAME-{seed}; None where it is no run of the lab."""
    return _run_of(sections, "base")


def teacher_of(sections: Mapping[str, Any]) -> str | None:
    """The member whose answers, with the same seed, another one learns: "@MEMBER"; None where it is no run of the lab."""
    return _run_of(sections, "pseudo")


def member_before(sections: Mapping[str, Any], members: Sections) -> str | None:
    """The member whose run of the same seed is begun with: "@MEMBER-{seed}". None where it is a base, or another run."""
    name = begins_with(sections)
    found = name.removesuffix("-{seed}") if name and name.endswith("-{seed}") else None
    return found if found in members else None


def members_before(members: Sections) -> dict[str, list[str]]:
    """Member -> those whose runs of the same seed come first, as what it begins with or as its teacher.

    Raises: UserError where a teacher is no member.
    """
    before = {}
    for name, sections in members.items():
        teacher = teacher_of(sections)
        if teacher is not None and teacher not in members:
            mend = f"the lab's members are {', '.join(members)}"
            raise UserError(f"no member is called {teacher!r}", f"members.{name}: pseudo.run", mend)
        before[name] = [first for first in (member_before(sections, members), teacher) if first is not None]
    return before


def stages(before: Mapping[str, Collection[str]], where: str) -> list[list[str]]:
    """name -> those that must come first -> names by how many come before them. Raises: UserError for a circle."""
    depths: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            message = f"{' waits for '.join([*path[path.index(name) :], name])}: a circle"
            raise UserError(message, f"{where}.{path[0]}: base.run, pseudo.run", "let one of them begin elsewhere")
        if name not in depths:
            depths[name] = max((1 + depth(first, (*path, name)) for first in before[name]), default=0)
        return depths[name]

    last = max((depth(name, ()) for name in before), default=-1)
    return [[name for name in before if depths[name] == place] for place in range(last + 1)]


def own_test(sections: Mapping[str, Any]) -> str | None:
    """The section of [tests] that a resolved config's own [data] is."""
    return next((name for name, data in sections.get("tests", {}).items() if data == sections["data"]), None)


def below(sections: Mapping[str, Any], members: Sections, bases: Sections, seed: int) -> dict[str, Any] | None:
    """The sections of the lab's run that these ones begin with; None where it is no run of the lab."""
    name = begins_with(sections)
    if name is None:
        return None
    first = member_before(sections, members)
    return dict(members[first] if first else bases[name.replace("{seed}", str(seed))])


def standing_alone(sections: dict[str, Any], members: Sections, bases: Sections, seed: int) -> dict[str, Any]:
    """Sections that can be checked before anything has run: model and tokenizer are those of the lab's run that they begin with."""
    found = below(sections, members, bases, seed)
    if found is None:
        return sections
    found = standing_alone(found, members, bases, seed)
    known = {key: found[key] for key in ("model", "tokenizer", "base") if key in found}
    if "model" in known:
        known["model"] = {key: value for key, value in known["model"].items() if key not in OWN}
    own = {key: value for key, value in sections.items() if key != "base"}
    model = known.get("model", {}) | own.get("model", {})
    return known | own | ({"model": model} if model else {})


def _run_of(sections: Mapping[str, Any], section: str) -> str | None:
    found = sections.get(section)
    run = found.get("run", "") if isinstance(found, Mapping) else ""
    return run[1:] if isinstance(run, str) and run.startswith("@") else None
