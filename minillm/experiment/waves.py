"""Which runs of a lab must wait for others: students for their teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

from minillm.errors import UserError
from minillm.experiment.workers import Job

Members = Mapping[str, Mapping[str, Any]]  # name -> the sections of its config


def teacher_of(sections: Mapping[str, Any]) -> str | None:
    """The member whose answers another one learns."""
    run = sections.get("pseudo", {}).get("run", "")
    return run[1:] if run.startswith("@") else None


def waves(jobs: Sequence[Job], members: Members) -> list[list[Job]]:
    """Jobs in the order in which they can run: students after their teachers."""
    found, rest = [], list(jobs)
    while rest:
        waiting = {job.member for job in rest}
        ready = [job for job in rest if teacher_of(members[job.member]) not in waiting]
        found.append(ready)
        rest = [job for job in rest if job not in ready]
    return found


def refuse_teachers(members: Members, member: str) -> None:
    """Raises: UserError where a chain of teachers leads nowhere, or in a circle."""
    seen = [member]
    while (name := teacher_of(members[seen[-1]])) is not None:
        where = f"members.{member}: pseudo.run"
        if name not in members:
            raise UserError(f"no member is called {name!r}", where, f"the lab's members are {', '.join(members)}")
        if name in seen:
            raise UserError("a member cannot be its own teacher", where, "name another one")
        seen.append(name)
