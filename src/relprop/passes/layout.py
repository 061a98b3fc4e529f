"""Where the dimensions of a tensor went: values that were moved are the same values."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.facts import facts
from ..graph.graph import Graph, calls

aten = torch.ops.aten

MOVES = {aten.permute.default, aten.transpose.int}


def is_move(node: Any) -> bool:
    return isinstance(node, Node) and calls(node) and node.target in MOVES


def order_of(move: Node) -> list[int]:
    """For every dimension of what comes out, the dimension that it was."""
    ndim = move.meta["val"].ndim
    if move.target is aten.permute.default:
        return [int(d) % ndim for d in move.args[1]]  # type: ignore[union-attr, arg-type]
    order = list(range(ndim))
    a, b = (int(d) % ndim for d in move.args[1:3])  # type: ignore[arg-type]
    order[a], order[b] = b, a
    return order


def only_used_by(graph: Graph, x: Node, node: Node) -> bool:
    """Whether nothing else takes values of ``x``; its sizes may be asked for."""
    return {u for u in x.users if not facts(u).shape_only} == {node} and x not in graph.outputs


def unmoved(graph: Graph, node: Node) -> tuple[Node, list[Node]]:
    """Where a value comes from, and how it was moved since, if nobody else looks at what is in between."""
    moves: list[Node] = []
    while is_move(node):
        source: Any = node.args[0]
        if not only_used_by(graph, source, node):
            break
        moves.insert(0, node)
        node = source
    return node, moves


def moved(graph: Graph, x: Node, order: list[int], meta: dict[str, Any]) -> Node:
    """``x`` with its dimensions in another order."""
    new = graph.fx.call_function(aten.permute.default, (x, order))
    new.meta = {**meta, "val": x.meta["val"].permute(order)}
    return new
