"""Which values cannot be negative: a rule for signed inputs then needs only half of its products."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.facts import TABLE
from ..graph.graph import Graph, calls

aten = torch.ops.aten

ALWAYS: set[Any] = {
    aten.relu.default,
    aten.relu6.default,
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.softmax.int,
    aten._softmax.default,
    aten.softplus.default,
    aten.exp.default,
    aten.abs.default,
    aten.square.default,
}
KEEPING = ("structural", "pool", "add", "product")


def nonnegative(graph: Graph) -> set[Node]:
    """Nodes whose values are certainly not negative."""
    known: set[Node] = set()
    for node in graph.nodes:
        if calls(node) and (node.target in ALWAYS or _is_clamped(node) or _keeps_sign(node, known)):
            known.add(node)
    return known


def _is_clamped(node: Node) -> bool:
    if node.target in (aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default):
        low: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("min", node.kwargs.get("min_val", -1.0))
        return isinstance(low, (int, float)) and low >= 0
    return False


def _keeps_sign(node: Node, known: set[Node]) -> bool:
    """Sums, products and rearrangements of such values, if nothing else enters."""
    entry = TABLE.get(node.target)
    if "getitem" in str(node.target):
        return node.args[0] in known
    tensors = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor | tuple | list)]
    floats = [n for n in tensors if not _is_integer(n)]
    if entry is None or entry.kind not in KEEPING or not floats or not all(n in known for n in floats):
        return False
    numbers = [a for a in node.args[1:] if isinstance(a, float)] if entry.kind in ("add", "product") else []
    name = str(node.target)
    subtracts = any(word in name for word in ("sub", "neg", "diff", "fft", "pad", "fill", "where", "scatter.value"))
    return not subtracts and not numbers and not node.kwargs.get("alpha")


def _is_integer(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.dtype.is_floating_point
