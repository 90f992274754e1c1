"""Tuning methods, by the name that a config gives them."""

from minillm.tuning.freeze import freeze, full

METHODS = {"full": full, "freeze": freeze}
