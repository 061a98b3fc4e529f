"""Which nodes depend on parameters alone."""

from __future__ import annotations

from ..graph import Graph, calls


def find_constants(graph: Graph) -> None:
    """Fill ``graph.constants``: parameters, and what is computed from nothing else."""
    graph.constants = set(graph.parameters)
    for node in graph.nodes:
        if calls(node) and all(n in graph.constants for n in node.all_input_nodes):
            graph.constants.add(node)
