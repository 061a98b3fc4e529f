"""A composite: which rule for which operation. The first selector that matches decides; the rest keeps its default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import SelectionError
from .rules import Rule
from .scope import Scope, Selector


@dataclass(frozen=True)
class Composite:
    """Pairs of selector and rule, the first match wins.

    Args:
        pairs: ``(selector, rule)`` in order of precedence.
        name: what plans and ledgers call it.
        strict: a selector that matches nothing is an error. The named composites are not strict, since they serve
            every architecture.

    Raises:
        TypeError: if a pair is no selector and rule.
    """

    pairs: tuple[tuple[Selector, Rule], ...]
    name: str = "custom"
    strict: bool = True
    note: str = ""

    def __init__(
        self, pairs: Iterable[tuple[Selector, Rule]], name: str = "custom", strict: bool = True, note: str = ""
    ):
        pairs = tuple(tuple(pair) for pair in pairs)  # type: ignore[misc]
        for pair in pairs:
            if len(pair) != 2 or not isinstance(pair[0], Selector) or not isinstance(pair[1], Rule):
                raise TypeError(f"a composite is made of (selector, rule) pairs, got {pair!r}")
        for key, value in (("pairs", pairs), ("name", name), ("strict", strict), ("note", note)):
            object.__setattr__(self, key, value)

    def choose(self, scope: Scope) -> dict[Any, tuple[Rule, str]]:
        """Operation -> rule and the selector that chose it.

        Raises:
            SelectionError: if the composite is strict and a selector matches no operation.
        """
        chosen: dict[Any, tuple[Rule, str]] = {}
        for selector, rule in self.pairs:
            matched = scope.matches(selector)
            if not matched and self.strict:
                kinds = sorted(set(scope.kinds.values()))
                raise SelectionError(
                    f"selector {selector} of composite {self.name!r} matches no operation of this model. The model has "
                    f"operations of kind {', '.join(kinds)}; print(lrp.plan(x)) shows their modules."
                )
            for node in matched:
                chosen.setdefault(node, (rule, str(selector)))
        return chosen
