"""Take operations out that do nothing to values: copies, assertions, dropout that is switched off."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import facts
from ..graph.graph import Graph, calls

aten = torch.ops.aten

EVERYTHING = 2**63 - 1
"""The end of a slice without an end."""


def clean(graph: Graph) -> None:
    """Remove identities and dead code, and let views be copies where taking a copy out made that necessary."""
    for node in list(graph.nodes):
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.args, node.kwargs = tuple(arguments(node).values()), {}
            node.target = aten.reshape.default
        if calls(node) and _is_identity(node):
            graph.vanish(node, "it hands on its input as it is")
            graph.replace(node, argument(node, 0))
            graph.fx.erase_node(node)
    remove_dead_code(graph)


def remove_dead_code(graph: Graph) -> None:
    """Drop operations whose result nobody uses."""
    kept = {o for o in graph.outputs if isinstance(o, Node)}
    for node in reversed(list(graph.nodes)):
        if calls(node) and not node.users and node not in kept:
            graph.fx.erase_node(node)


def _is_identity(node: Node) -> bool:
    target: Any = node.target
    if facts(node).identity:
        return True
    if target is aten.slice.Tensor:  # x[:]
        _, _, start, end, step = arguments(node).values()
        return start in (None, 0) and end in (None, EVERYTHING) and step == 1
    if facts(node).cast and isinstance(x := argument(node, 0), Node):
        before: Any = x.meta.get("val")
        after: Any = node.meta.get("val")
        return isinstance(before, torch.Tensor) and (before.dtype, before.device) == (after.dtype, after.device)
    return False
