"""What in a graph depends on parameters alone, and what on the sizes of inputs besides."""

from __future__ import annotations

from torch.fx import Node

from .arguments import argument
from .facts import facts
from .graph import Graph, calls


def from_parameters(graph: Graph, *, sizes: bool = False) -> set[Node]:
    """Parameters, and what is computed from them alone.

    With ``sizes``, also what takes only the size of an input, as ``zeros_like(x)`` does: constant for a rule, but no
    weight, since it changes with the batch.
    """
    found = set(graph.parameters)
    for node in graph.nodes:
        if not calls(node):
            continue
        used = node.all_input_nodes
        if sizes and facts(node).shape_only:
            used = [n for n in used if n is not argument(node, 0)]
        if found.issuperset(used):
            found.add(node)
    return found
