"""The table of operations: what is known of each, stated once.

A fact holds for every call of an exact operation, such as ``aten.relu.default``; tests/test_table.py checks each one on
random tensors. An operation is described beside the rule that serves it by default (``register`` in rules/table.py), or
beside the pass that replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor
from torch.fx import Node


class Sign(Enum):
    """When the values of an operation are certainly not negative."""

    ANY = "never for certain"
    NONNEGATIVE = "always"
    KEEPS = "if no tensor and no number that enters is negative"


ANY, NONNEGATIVE, KEEPS = Sign


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one operation."""

    kind: str
    """What selectors ask for."""
    rule: Any = None
    """Its default rule; None if a pass replaces it."""
    own: bool = False
    """Whether the rule is a user's, given by ``relprop.rule_for``."""
    sign: Sign | Callable[[Node], Sign] = ANY
    """Whether its values can be negative; a function where that depends on the arguments of the call."""
    fresh: bool = False
    """Its result lies in memory of its own."""
    pointwise: bool = False
    """Every value of the result depends on the values in the same place alone, of tensors broadcast to one shape."""
    identity: bool = False
    """It hands on its first argument as it is, unless it is random."""
    cast: bool = False
    """It only changes the type or the device of values."""
    shape_only: bool = False
    """It uses its first argument for its shape, and not for its values."""
    gate: int = 1
    """How much an activation looks like a gate where it meets another factor: a sigmoid 2, a tanh 0, others 1."""
    random: tuple[str, ...] | None = None
    """The arguments that make it random, or let it use the statistics of the batch, when all of them are set."""
    back: Callable[..., Tensor] | None = None
    """The way back of a view: what arrives, the shape of the input, the other arguments -> what is sent."""
    in_order: bool = False
    """A view that keeps the order of all values."""
    ratio: Callable[..., Tensor] | None = None
    """f(x)/x of an activation in closed form: x, the other arguments -> finite values, also at
    zero, in memory of their own."""
    by_output: Callable[[Tensor, Tensor], Tensor] | None = None
    """c f(x)/x where the output tells it, so that x need not be kept: c, f(x) -> what is sent."""
    in_place: Callable[[Tensor], Tensor] | None = None
    """The same function in the memory of its argument."""

    @property
    def stopped(self) -> bool:
        """Whether the result counts as a constant, like the statistics of a normalisation."""
        return self.kind == "stopped"


TABLE: dict[Any, Facts] = {}
"""Operation -> what is known of it."""
UNKNOWN = Facts(kind="unknown")
REWRITTEN: set[Any] = set()
"""Operations that a pass always writes as others, so that no rule ever meets them."""


def facts(node: Node) -> Facts:
    """What is known of the operation that a node calls."""
    return TABLE.get(node.target, UNKNOWN)


def describe(kind: str, *operations: Any, **known: Any) -> None:
    """Put operations into the table.

    Args:
        kind: what selectors ask for.
        operations: overloads such as ``torch.ops.aten.relu.default``, or functions.
        known: the other fields of :class:`Facts`.

    Raises:
        ValueError: if an operation is in the table already, since it is described in one place.
    """
    for operation in operations:
        if operation in TABLE:
            raise ValueError(f"{operation} is in the table of operations already")
        TABLE[operation] = Facts(kind=kind, **known)
