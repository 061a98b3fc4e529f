"""Instance norm reaches the graph as a batch norm without stored statistics: give it a name of its own."""

from __future__ import annotations

import torch

from ..graph.arguments import argument, arguments
from ..graph.graph import Graph, calls
from ..graph.ops import standardise
from .clean import remove_dead_code

aten = torch.ops.aten


def name_instance_norm(graph: Graph) -> None:
    """Replace ``_native_batch_norm_legit.no_stats`` and its getitem by one node."""
    for node in list(graph.nodes):
        if calls(node) and node.target is aten._native_batch_norm_legit.no_stats:
            x, weight, bias, _, _, epsilon = arguments(node).values()
            for result in [u for u in node.users if argument(u, 1) == 0]:
                with graph.fx.inserting_before(result):
                    new = graph.fx.call_function(standardise, (x, weight, bias, epsilon))
                new.meta = {**node.meta, "val": result.meta["val"]}
                graph.replace(result, new)
    remove_dead_code(graph)
