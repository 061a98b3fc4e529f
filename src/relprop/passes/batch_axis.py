"""Where the samples are in every tensor, so that the ledger can keep one account for each.

A dimension may hold more than the samples: ``[T * B, D]`` after a view. The axis is given as (dimension, inner): the
dimension's size is outer * B * inner, with the samples in the middle.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph import Graph, calls

aten = torch.ops.aten

VIEWS = {aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int}


def batch_axes(graph: Graph, shapes: dict[Node, Any], batch: int) -> dict[Node, tuple[int, int]]:
    """Node -> (dimension, inner) for every tensor that holds samples."""
    symbol = next((s for s in (_batch_symbol(n) for n in graph.inputs if n is not None) if s is not None), None)
    axes: dict[Node, tuple[int, int]] = {n: (0, 1) for n in graph.inputs if n is not None and shapes[n][:1] == (batch,)}
    for node in graph.nodes:
        if not calls(node) or node not in shapes:
            continue
        before = next(((n, axes[n]) for n in node.all_input_nodes if n in axes), None)
        if before is None:
            continue
        shape = tuple(shapes[node])
        source, (dim, inner) = before
        if node.target in VIEWS:
            found = _through_view(tuple(shapes[source]), dim, inner, shape, batch)
        else:
            found = _through(node, shape, inner, batch, symbol, dim)
        if found is not None:
            axes[node] = found
    return axes


def _batch_symbol(node: Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, Tensor) and value.ndim and not isinstance(value.shape[0], int):
        return value.shape[0].node.expr
    return None


def _through_view(before: tuple[int, ...], dim: int, inner: int, after: tuple[int, ...], batch: int) -> Any:
    """Views keep the order of elements, and with it how many of them belong to one step of the sample index."""
    elements = inner * _product(before[dim + 1 :])
    behind = 1
    for d in reversed(range(len(after))):
        if elements % behind == 0 and (behind * after[d]) % (elements * batch) == 0:
            return (d, elements // behind)
        behind *= after[d]
    return None


def _through(node: Node, shape: tuple[int, ...], inner: int, batch: int, symbol: Any, dim: int) -> Any:
    """Other operations: the dimension whose captured size names the batch, or that still fits."""
    value = node.meta.get("val")
    if symbol is not None and isinstance(value, Tensor):
        for d, size in enumerate(value.shape):
            if not isinstance(size, int) and symbol in size.node.expr.free_symbols:
                return (d, inner if shape[d] % (batch * inner) == 0 else 1)
        return None
    fitting = [d for d, size in enumerate(shape) if size == batch]
    if dim in fitting or not fitting:
        return (dim, inner) if dim < len(shape) and shape[dim] % (batch * inner) == 0 else None
    return (fitting[0], 1)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
