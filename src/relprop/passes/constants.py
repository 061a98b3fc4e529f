"""Fill in which nodes no input reaches."""

from __future__ import annotations

from ..graph.constants import from_parameters
from ..graph.graph import Graph


def find_constants(graph: Graph) -> None:
    """Fill ``graph.constants``: parameters, sizes, and what is computed from nothing else."""
    graph.parameters = {n: name for n, name in graph.parameters.items() if n.users or n in graph.outputs}
    graph.constants = from_parameters(graph, sizes=True)
