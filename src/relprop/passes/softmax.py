"""A normalised exponential that is written out, ``exp(z) / Σ exp(z)``, is a softmax, whatever was subtracted from z.

The sum may be that of a row, or of a group of values: of the edges that enter a node of a graph, say.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import facts
from ..graph.graph import Graph, calls, holds_numbers
from ..graph.ops import Formula, written_softmax
from .clean import remove_dead_code
from .groups import handed_back, same, summed

aten = torch.ops.aten

SUMS = {aten.sum.dim_IntList, aten.sum.default}
KINDS = ("add", "structural")


def name_softmax(graph: Graph) -> None:
    """Replace quotients of an exponential and its own sum by one operation."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        found = _nodes(graph, node) if calls(node) and node.target is aten.div.Tensor else None
        if found is None:
            continue
        nodes = sorted(found, key=position.__getitem__)
        z = argument(next(n for n in nodes if n.target is aten.exp.default), 0)
        others = list(dict.fromkeys(n for m in nodes for n in m.all_input_nodes if n not in found and n is not z))
        with graph.fx.inserting_before(node):
            formula: Any = Formula([z, *others], nodes)
            new = graph.fx.call_function(written_softmax, (z, formula, others))
        new.meta, position[new] = dict(node.meta), position[node]
        graph.replace(node, new)
    remove_dead_code(graph)


def _nodes(graph: Graph, quotient: Node) -> set[Node] | None:
    """The exponential, its sum, what keeps that from zero, and the quotient; None if it is something else."""
    dividend, divisor = argument(quotient, "self"), argument(quotient, "other")
    found, wanted = {quotient}, None  # what tells the groups that the sums are handed back to
    while isinstance(divisor, Node) and divisor.target not in SUMS and summed(divisor) is None:
        found.add(divisor)
        back = handed_back(divisor)
        if back is not None and wanted is None:
            divisor, wanted = back
        elif len(divisor.all_input_nodes) == 1 and (facts(divisor).pointwise or facts(divisor).kind in KINDS):
            divisor = divisor.all_input_nodes[0]
        else:
            return None
    if not isinstance(divisor, Node) or not isinstance(dividend, Node):
        return None
    values, groups = summed(divisor) or (argument(divisor, "self"), None)
    if not same(groups, wanted) or not same(values, dividend):
        return None
    exponentials = _exponential(graph, dividend), _exponential(graph, values)
    return None if None in exponentials else found.union([divisor], *exponentials)  # type: ignore[arg-type]


def _exponential(graph: Graph, node: Any) -> list[Node] | None:
    """An exponential, and masks that are laid over it; None if it is something else."""
    found = []
    while isinstance(node, Node) and node.target is not aten.exp.default:
        found.append(node)
        node = _without_mask(graph, node)
    return [*found, node] if isinstance(node, Node) else None


def _without_mask(graph: Graph, node: Node) -> Any:
    """What a mask is laid over: some of its values become zero."""
    given = list(arguments(node).values()) if node.target in MASKS else []
    if node.target is aten.mul.Tensor:
        return next((x for x, mask in (given, given[::-1]) if _is_mask(graph, mask)), None)
    if node.target is aten.masked_fill.Scalar:
        return given[0] if given[2] == 0 else None
    if node.target is aten.where.ScalarOther:
        return given[1] if given[2] == 0 else None
    return None


MASKS = {aten.mul.Tensor, aten.masked_fill.Scalar, aten.where.ScalarOther}


def _is_mask(graph: Graph, node: Any) -> bool:
    """Whether a tensor is made of truths or whole numbers, whatever it is written as, or is one of the model's own."""
    while isinstance(node, Node) and (facts(node).cast or facts(node).kind == "structural") and holds_numbers(node):
        node = argument(node, 0)
    if not isinstance(node, Node) or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    return node in graph.parameters or not holds_numbers(node)
