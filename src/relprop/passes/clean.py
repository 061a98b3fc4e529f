"""Take operations out that do nothing to values: copies, assertions, dropout that is switched off."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.graph import Graph, calls

aten = torch.ops.aten

IDENTITIES = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
}
VIEWS = {aten.view.default, aten._unsafe_view.default}
EVERYTHING = 2**63 - 1
"""The end of a slice without an end."""
CASTS = {aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default}


def clean(graph: Graph) -> None:
    """Remove identities and dead code, and let views be copies where taking a copy out made that necessary."""
    for node in list(graph.nodes):
        if node.target in VIEWS:
            node.target = aten.reshape.default
        if calls(node) and _is_identity(node):
            graph.vanish(node, "it hands on its input as it is")
            graph.replace(node, node.args[0])  # type: ignore[arg-type]
            graph.fx.erase_node(node)
        elif calls(node) and not node.users and "assert" in str(node.target):
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
    if target in IDENTITIES:
        return True
    if target is aten.slice.Tensor:  # x[:]
        _, _, start, end, step = (*node.args, None, None, None, None)[:5]
        return start in (None, 0) and end in (None, EVERYTHING) and step in (None, 1)
    if target in CASTS and isinstance(node.args[0], Node):
        before: Any = node.args[0].meta.get("val")
        after: Any = node.meta.get("val")
        return isinstance(before, torch.Tensor) and (before.dtype, before.device) == (after.dtype, after.device)
    return False
