"""A normalised exponential that is written out, ``exp(z) / Σ exp(z)``, is a softmax, whatever was subtracted from z."""

from __future__ import annotations

import torch
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.facts import facts
from ..graph.graph import Graph, calls
from ..graph.ops import Formula, written_softmax
from .clean import remove_dead_code

aten = torch.ops.aten

SUMS = {aten.sum.dim_IntList, aten.sum.default}


def name_softmax(graph: Graph) -> None:
    """Replace quotients of an exponential and its own sum by one operation."""
    for node in list(graph.nodes):
        found = _nodes(node) if calls(node) and node.target is aten.div.Tensor else None
        if found is None:
            continue
        with graph.fx.inserting_before(node):
            z = argument(found[0], "self")
            new = graph.fx.call_function(written_softmax, (z, Formula(z, found)))  # type: ignore[arg-type]
        new.meta = dict(node.meta)
        graph.replace(node, new)
    remove_dead_code(graph)


def _nodes(quotient: Node) -> list[Node] | None:
    """The exponential, its sum, what keeps that from zero, and the quotient; None if it is something else."""
    exponential, divisor = argument(quotient, "self"), argument(quotient, "other")
    between: list[Node] = []
    while isinstance(divisor, Node) and divisor.target not in SUMS:
        if len(divisor.all_input_nodes) != 1 or not (facts(divisor).pointwise or facts(divisor).kind in KINDS):
            return None
        between.insert(0, divisor)
        divisor = divisor.all_input_nodes[0]
    if not isinstance(divisor, Node) or not isinstance(exponential, Node) or exponential.target is not aten.exp.default:
        return None
    other = argument(divisor, "self")  # the same exponential, or the same once more
    if not isinstance(other, Node) or (other.target, other.args) != (exponential.target, exponential.args):
        return None
    return [*dict.fromkeys((exponential, other)), divisor, *between, quotient]


KINDS = ("add", "structural")
