"""Which nodes depend on parameters, and sizes, alone."""

from __future__ import annotations

from ..graph.arguments import argument
from ..graph.facts import facts
from ..graph.graph import Graph, calls


def find_constants(graph: Graph) -> None:
    """Fill ``graph.constants``: parameters, sizes, and what is computed from nothing else."""
    graph.parameters = {n: name for n, name in graph.parameters.items() if n.users or n in graph.outputs}
    graph.constants = set(graph.parameters)
    for node in graph.nodes:
        if not calls(node):
            continue
        used = node.all_input_nodes
        if facts(node).shape_only:
            used = [n for n in used if n is not argument(node, 0)]
        if all(n in graph.constants for n in used):
            graph.constants.add(node)
