"""Norms and deviations that are a feature, or the answer, are explained.

Where a statistic scales what it was computed from, as in a normalisation, it is held constant. The length of a capsule,
the distance of a pair, the deviation beside the mean of a speaker's features scale nothing: they are what is meant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import facts
from ..graph.graph import Graph, calls
from ..graph.ops import statistic

aten = torch.ops.aten

STATISTICS = {
    aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim,
    aten.std.correction,
    aten.std.dim,
    aten.var.correction,
    aten.var.dim,
}
PASSING = ("structural", "activation", "stopped", "add")
"""Kinds of operations that a scale may go through: it is shaped, kept from zero, inverted."""
FACTORS = {aten.mul.Tensor, aten.div.Tensor}


def explain_statistics(graph: Graph) -> None:
    """Let every statistic that scales nothing it was computed from be an operation that is explained."""
    for node in list(graph.nodes):
        if calls(node) and node.target in STATISTICS and not _scales_its_own(node):
            given = arguments(node)
            x = given.pop("self")
            with graph.fx.inserting_before(node):
                new = graph.fx.call_function(statistic, (x, node.target, [], given))
            new.meta = dict(node.meta)
            graph.replace(node, new)
            graph.fx.erase_node(node)


def _scales_its_own(node: Node) -> bool:
    """Whether a statistic, by way of other such numbers, ends as the factor or divisor of what it was computed from."""
    source: Any = argument(node, "self")
    while facts(source).kind == "structural" and len(source.all_input_nodes) == 1:
        source = source.all_input_nodes[0]
    seen, stack = {node}, [node]
    while stack:
        for user in stack.pop().users:
            if user in seen:
                continue
            others = [n for n in user.all_input_nodes if n not in seen]
            if user.target in FACTORS and any(_depends_on(n, source) for n in others):
                return True
            if user.target in FACTORS or facts(user).pointwise or facts(user).kind in PASSING:
                seen.add(user)
                stack.append(user)
    return False


def _depends_on(node: Node, source: Node) -> bool:
    seen, stack = {node}, [node]
    while stack:
        n = stack.pop()
        if n is source:
            return True
        new = [m for m in n.all_input_nodes if m not in seen]
        seen.update(new)
        stack += new
    return False
