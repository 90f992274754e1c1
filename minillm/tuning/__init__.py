"""Tuning methods, by the name that a config gives them; each is made from its [tuning] section."""

from minillm.errors import UserError
from minillm.tuning.contract import Tuning
from minillm.tuning.freeze import freeze, full


def _full(section) -> Tuning:
    if section.freeze:
        raise UserError("patterns are given but the method is 'full'", "tuning.freeze", "set tuning.method = 'freeze'")
    return full()


def _freeze(section) -> Tuning:
    if not section.freeze:
        raise UserError("no pattern is given", "tuning.freeze", 'name parameters, for example ["embedding/*"]')
    return freeze(section.freeze)


METHODS = {"full": _full, "freeze": _freeze}
