"""A model in double precision stays in it: casts that would round to single precision on the way are left out.

Some models compute norms and softmax in single precision whatever their own is. That guards half precision; in double
precision it would only make relevance, and the ledger, as inexact as single precision is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph import Graph, calls

aten = torch.ops.aten

CASTS = {aten._to_copy.default, aten.to.dtype, aten.type_as.default}
SOFTMAX = {aten.softmax.int, aten.log_softmax.int, aten._softmax.default}


def keep_double(graph: Graph) -> None:
    """Remove casts from double to a lower floating-point precision; values cast back later are then double already."""
    double = {n for n in graph.nodes if not calls(n) and _dtype(n) == torch.float64}
    for node in list(graph.nodes):
        if not calls(node):
            continue
        enters = any(n in double for n in node.all_input_nodes)
        if not enters or not _is_float(_dtype(node)):
            continue
        double.add(node)
        if _dtype(node) == torch.float64:
            continue
        if node.target in CASTS:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            graph.outputs[:] = [node.args[0] if o is node else o for o in graph.outputs]
            double.add(node.args[0])  # type: ignore[arg-type]
            graph.fx.erase_node(node)
            double.discard(node)
        elif node.target in SOFTMAX:
            node.args = tuple(a for a in node.args if not isinstance(a, torch.dtype))
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != "dtype"}


def _dtype(node: Node) -> Any:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_float(dtype: Any) -> bool:
    return dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
