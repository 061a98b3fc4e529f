"""relprop's own methods, and all methods of a case."""

from __future__ import annotations

from relprop import LRP

from . import peers
from .measure import Method, Run
from .models import Case

COMPILED = ("epsilon", "epsilon_plus", "attnlrp", "signal_takes_all")
"""Composites that are also compiled, which takes a minute or more for each."""


def all_for(case: Case, lrp: LRP, *, compiled: bool = True, others: bool = True) -> list[Method]:
    """The methods to compare on a case, those of relprop first, which share one capture."""

    def eager(case: Case, name: str) -> Run:
        mine = lrp.using(name)
        mine.plan(case.inputs)  # the capture is not part of what is measured
        return lambda: mine.attribute(case.inputs, 0)

    def program(case: Case, name: str) -> Run:
        mine = lrp.using(name).compile(case.inputs, 0)
        return lambda: mine.attribute(case.inputs, 0)

    found = [Method("relprop", name, eager) for name in case.composites]
    if compiled:
        chosen = [name for name in case.composites if name in COMPILED]
        found += [Method("relprop compiled", name, program, visible=False) for name in chosen]
    return found + (peers.all_for(case) if others else [])
