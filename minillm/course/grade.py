"""The grader of exercises: loads a student's file, runs every check, and says what happened to each.

It runs the student's code in this process, with limits on nothing: a grader for one's own work, not a sandbox.
"""

import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from minillm.course.contract import Mistake
from minillm.errors import UserError

Status = Literal["passed", "not started", "mistake", "error"]
LONGEST = 300  # characters of an exception's text


class Outcome(NamedTuple):
    """What a check found in one exercise."""

    exercise: str
    status: Status
    message: str = ""
    line: int | None = None  # of the student's file, where an exception arose


def load(path: Path) -> ModuleType:
    """Runs a Python file as a module of its own. Raises: UserError for what is not a Python file that runs."""
    if path.suffix != ".py":
        raise UserError("not a Python file", str(path), "give the .py file with your functions")
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", str(path), "give the path of your exercises") from None
    except OSError as error:
        raise UserError(error.strerror or str(error), str(path), "give a file that you may read") from None
    module = ModuleType(f"minillm_{path.parent.name}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        where = f"{error.filename or path} line {error.lineno}"
        raise UserError(f"{type(error).__name__}: {error.msg}", where, "mend this line, then check again") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit included
        raise _broken(error, path) from None
    return module


def grade(module: ModuleType, path: Path, checks: Mapping[str, Callable[[Any], None]]) -> list[Outcome]:
    """One outcome per check, in their order. Raises: UserError where the file lacks a function."""
    lacking = [name for name in checks if not callable(getattr(module, name, None))]
    if lacking:
        raise UserError(f"no function {', '.join(lacking)}", str(path), "keep the names that the exercise gives")
    return [grade_one(name, getattr(module, name), check, path) for name, check in checks.items()]


def grade_one(name: str, function: Callable, check: Callable[[Any], None], path: Path) -> Outcome:
    """Runs one check on one function; whatever the function does ends in an outcome."""
    try:
        check(function)
    except Mistake as mistake:
        return Outcome(name, "mistake", str(mistake))
    except NotImplementedError as error:
        return Outcome(name, "not started", _text(error), _line(error, path))
    except KeyboardInterrupt as error:
        return Outcome(name, "error", "stopped by you: does a loop never end?", _line(error, path))
    except BaseException as error:  # a student's exit() is a SystemExit
        return _failed(name, error, path)
    return Outcome(name, "passed")


def _failed(name: str, error: BaseException, path: Path) -> Outcome:
    line = _line(error, path)
    if isinstance(error, SystemExit):
        return Outcome(name, "error", "your function ends the program (exit): return a value instead", line)
    if line is None:  # the function returned, and the check could not use what it got
        return Outcome(name, "mistake", f"the check cannot use this function or its result: {_text(error)}")
    return Outcome(name, "error", _text(error), line)


def _broken(error: BaseException, path: Path) -> UserError:
    line = _line(error, path)
    where = f"{path} line {line}" if line else str(path)
    if isinstance(error, SystemExit):
        return UserError("the file ends the program (exit)", where, "remove that call, then check again")
    return UserError(_text(error), where, "the file must run from top to bottom before it can be checked")


def _line(error: BaseException, path: Path) -> int | None:
    """The deepest line of the student's file on the way to the exception."""
    lines = [
        number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
    ]
    return lines[-1] if lines else None


def _text(error: BaseException) -> str:
    """ "TypeError: ..." in one line, whatever the exception's own __str__ does."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
