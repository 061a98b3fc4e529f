"""A model in double precision stays in it: casts that would round to single precision on the way are left out.

Some models compute norms and softmax in single precision whatever their own is. That guards half precision; in double
precision it would only make relevance, and the ledger, as inexact as single precision is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.facts import facts
from ..graph.graph import Graph

aten = torch.ops.aten


def keep_double(graph: Graph) -> None:
    """Remove casts from double to a lower floating-point precision; values cast back later are then double already."""
    double: set[Node] = set()
    for node in list(graph.nodes):
        dtype, enters = _dtype(node), any(n in double for n in node.all_input_nodes)
        several = isinstance(node.meta.get("val"), (tuple, list))
        if dtype == torch.float64 or (enters and (several or _is_float(dtype))):
            double.add(node)
        if not enters or not (several or _is_float(dtype)):
            continue
        if dtype == torch.float64:  # the model itself gives double precision of these inputs
            continue
        graph.exact = False
        if facts(node).cast:
            graph.replace(node, argument(node, 0))
            graph.fx.erase_node(node)
            double.discard(node)
            continue
        node.args = tuple(None if isinstance(a, torch.dtype) else a for a in node.args)
        node.kwargs = {k: v for k, v in node.kwargs.items() if not isinstance(v, torch.dtype)}
        _raise(graph, node, [n for n in node.all_input_nodes if n not in double and _is_float(_dtype(n))])


def _raise(graph: Graph, node: Node, singles: list[Node]) -> None:
    """Bring what else enters an operation to double precision: most take inputs of one precision only."""
    for single in singles:
        with graph.fx.inserting_before(node):
            cast = graph.fx.call_function(aten._to_copy.default, (single,), {"dtype": torch.float64})
        cast.meta = {**single.meta, "val": single.meta["val"].double()}
        node.replace_input_with(single, cast)


def _dtype(node: Node) -> Any:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_float(dtype: Any) -> bool:
    return dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
