"""What is known of an operation, whatever rule it gets. The rules register it (rules/table.py), passes look it up here.

A fact holds for every call of an exact operation, such as ``aten.relu.default``; tests/test_table.py checks each one on
random tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

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
    sign: Sign | Callable[[Node], Sign] = ANY
    """Whether its values can be negative; a function where that depends on the arguments of the call."""
    fresh: bool = False
    """Its result lies in memory of its own."""
    pointwise: bool = False
    """Every value of the result depends on the values in the same place alone, of tensors broadcast to one shape."""
    identity: bool = False
    """It hands on its first argument as it is."""
    cast: bool = False
    """It only changes the type or the device of values."""
    shape_only: bool = False
    """It uses its first argument for its shape, and not for its values."""

    @property
    def stopped(self) -> bool:
        """Whether the result counts as a constant, like the statistics of a normalisation."""
        return self.kind == "stopped"


FACTS: dict[Any, Facts] = {}
UNKNOWN = Facts(kind="unknown")


def facts(node: Node) -> Facts:
    """What is known of the operation that a node calls."""
    return FACTS.get(node.target, UNKNOWN)
