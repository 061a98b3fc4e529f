"""Which nodes depend on parameters, and sizes, alone."""

from __future__ import annotations

import torch

from ..graph.graph import Graph, calls
from ..graph.ops import shift_map

aten = torch.ops.aten

SHAPE_ONLY = {
    shift_map,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
}
"""Operations that use their first argument for its shape only."""


def find_constants(graph: Graph) -> None:
    """Fill ``graph.constants``: parameters, sizes, and what is computed from nothing else."""
    graph.parameters = {n: name for n, name in graph.parameters.items() if n.users or n in graph.outputs}
    graph.constants = set(graph.parameters)
    for node in graph.nodes:
        if not calls(node):
            continue
        used = node.all_input_nodes
        if node.target in SHAPE_ONLY:
            used = [n for n in used if n is not node.args[0]]
        is_size = not isinstance(node.meta.get("val"), torch.Tensor | tuple | list)
        if is_size or all(n in graph.constants for n in used):
            graph.constants.add(node)
