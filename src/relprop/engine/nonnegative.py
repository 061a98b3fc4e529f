"""Which values cannot be negative: a rule for signed inputs then needs only half of its products."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import arguments, signature
from ..graph.facts import KEEPS, NONNEGATIVE, facts
from ..graph.graph import Graph, calls

PLACES = {"index", "indices", "repeats", "lengths", "offsets", "batch_sizes", "bag"}
"""Arguments that say where values go, or how many there are, whatever their signs."""


def nonnegative(graph: Graph) -> set[Node]:
    """Nodes whose values are certainly not negative."""
    known: set[Node] = set()
    for node in graph.nodes:
        if is_nonnegative(node, known):
            known.add(node)
    return known


def is_nonnegative(node: Node, known: set[Node]) -> bool:
    """Whether the values of a node are certainly not negative, given the nodes before it of which that is known."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        if value.dtype in UNSIGNED:
            return True
        if not value.dtype.is_floating_point:  # integers wrap around
            return False
    if not calls(node):
        return False
    sign = facts(node).sign
    sign = sign(node) if callable(sign) else sign
    return sign is NONNEGATIVE or (sign is KEEPS and all(_is_nonnegative(v, known) for v in _entering(node)))


UNSIGNED = {torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64}


def _entering(node: Node) -> list[Any]:
    """The tensors and numbers that values are made of: no dimensions, sizes or places."""
    given = arguments(node)
    names = _numbers_of(node.target)
    return [given[name] for name in (names[1:] if facts(node).shape_only else names)]


@cache
def _numbers_of(operation: Any) -> list[str]:
    """The arguments of an operation that are tensors or numbers; of torch's own, integers say where, and how many."""
    if not isinstance(operation, torch._ops.OpOverload):
        return [name for name in signature(operation) if name not in PLACES]
    return [a.name for a in operation._schema.arguments if _is_number(a.type) and a.name not in PLACES]


def _is_number(kind: Any) -> bool:
    while isinstance(kind, (torch.OptionalType, torch.ListType)):
        kind = kind.getElementType()
    return isinstance(kind, (torch.TensorType, torch.NumberType, torch.FloatType))


def _is_nonnegative(value: Any, known: set[Node]) -> bool:
    if isinstance(value, Node):
        return value in known
    if isinstance(value, (list, tuple)):
        return all(_is_nonnegative(v, known) for v in value)
    if isinstance(value, (int, float)):
        return math.copysign(1, value) > 0  # division by -0.0 is negative
    return value is None or isinstance(value, str)
