"""Activations that a model writes out (``0.5 * x * (1 + tanh(...))``, ``x * sigmoid(1.702 * x)``) are one operation.

Such a product has two factors that are both functions of one tensor, element by element. Taken apart, part of the
relevance would leave through the constants of the inner function; the rule of an activation is meant for the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.facts import facts
from ..graph.graph import Graph, calls
from ..graph.ops import Formula, written_activation
from .clean import remove_dead_code

aten = torch.ops.aten

PRODUCTS = {aten.mul.Tensor, aten.div.Tensor}


def name_activations(graph: Graph) -> None:
    """Replace products of two functions of the same tensor by one activation."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not calls(node) or node.target not in PRODUCTS:
            continue
        found = _expression(node, position)
        if found is None:
            continue
        x, nodes = found
        with graph.fx.inserting_before(node):
            new = graph.fx.call_function(written_activation, (x, Formula([x], nodes)))  # type: ignore[arg-type]
        new.meta, position[new] = node.meta, position[node]
        graph.replace(node, new)
    remove_dead_code(graph)


def _expression(product: Node, position: dict[Node, int]) -> tuple[Node, list[Node]] | None:
    """The tensor that both factors are functions of, and the operations between; None if there is no such tensor."""
    if len(product.all_input_nodes) != 2:
        return None
    nodes, frontier = [product], set(product.all_input_nodes)
    while len(frontier) > 1:
        latest = max(frontier, key=position.__getitem__)  # whatever all others come from is not behind it
        shape = getattr(latest.meta.get("val"), "shape", None)
        if not facts(latest).pointwise or shape != product.meta["val"].shape or len(nodes) > 12:
            return None
        nodes.append(latest)
        frontier = (frontier - {latest}) | set(latest.all_input_nodes)
    x = frontier.pop()
    same = isinstance(x.meta.get("val"), Tensor) and x.meta["val"].shape == product.meta["val"].shape
    return (x, sorted(nodes, key=position.__getitem__)) if same else None
