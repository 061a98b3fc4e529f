"""How operations cut, turn round and join the samples of a batch, so that the ledger can follow them.

An axis is a pair (dimension, rows), as in samples.py. Here ``rows`` is the sample of every row along the dimension; a
piece that belongs to one sample alone has no dimension for samples: (None, its number).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments

aten = torch.ops.aten

Axis = tuple[int | None, Any]
Values = dict[Node, Any]


def cut(node: Node, x: Node, dim: int, rows: Tensor, ndim: int, values: Values) -> Axis | None:
    """The axis behind an operation that cuts a tensor, or turns its rows round; None if it is no such operation.

    Args:
        node: the operation; for a part of several, the one that picks it.
        x: the tensor that is cut.
        dim: where its samples are.
        rows: the sample of every row along it.
        ndim: number of dimensions of ``x``.
        values: of sizes that are known in a run only.
    """
    made = argument(node, 0) if node.target is operator.getitem else node
    way = CUTS.get(made.target)
    if way is None:
        return None
    given: list[Any] = [values.get(a) if isinstance(a, Node) else a for a in list(arguments(made).values())[1:]]
    if made is not node:
        given = [argument(node, 1), *given]
    return way(dim, rows, ndim, *given)


def joined(node: Node, axes: dict[Node, Any], shapes: dict[Node, Any], rows_of: Callable[[Node], Tensor]) -> Any:
    """The axis behind ``cat`` and ``stack`` of pieces; None if it is another operation, or a part holds no samples."""
    if node.target not in (aten.cat.default, aten.stack.default):
        return None
    parts = argument(node, "tensors")
    if any(part not in axes for part in parts):
        return None
    dims = {axes[part][0] for part in parts}
    if len(dims) != 1:
        return None
    (dim,) = dims
    along = argument(node, "dim") % len(shapes[node])
    rows = [rows_of(part) for part in parts]
    if node.target is aten.stack.default:
        if dim is None:
            return along, torch.stack([r.reshape(()) for r in rows])
        return (dim + (along <= dim), rows[0]) if _all_alike(rows) else None
    if dim is None:
        if len(shapes[node]) and all(len(shapes[part]) == len(shapes[node]) for part in parts):
            sizes = [shapes[part][along] for part in parts]
            return along, torch.cat([r.reshape(1).expand(n) for r, n in zip(rows, sizes, strict=True)])
        return None
    if along == dim:
        return dim, torch.cat(rows)
    return (dim, rows[0]) if _all_alike(rows) else None


def _all_alike(rows: list[Tensor]) -> bool:
    return all(torch.equal(r, rows[0]) for r in rows[1:])


# ---------------------------------------------------------------------------------------------------------------------
# One operation each: where the samples were, the sample of every row, the tensor's dimensions; then its arguments.
# ---------------------------------------------------------------------------------------------------------------------


def _select(dim: int, rows: Tensor, ndim: int, along: int, index: int) -> Axis:
    along %= ndim
    return (None, rows[index]) if along == dim else (dim - (along < dim), rows)


def _unbound(dim: int, rows: Tensor, ndim: int, index: int, along: int) -> Axis:
    return _select(dim, rows, ndim, along, index)


def _slice(dim: int, rows: Tensor, ndim: int, along: int, start: Any, end: Any, step: int) -> Axis:
    return dim, rows[start:end:step] if along % ndim == dim else rows


def _narrow(dim: int, rows: Tensor, ndim: int, along: int, start: int, length: int) -> Axis:
    start %= max(1, len(rows))
    return _slice(dim, rows, ndim, along, start, start + length, 1)


def _split(dim: int, rows: Tensor, ndim: int, index: int, size: Any, along: int) -> Axis:
    if along % ndim != dim:
        return dim, rows
    if isinstance(size, int):
        return dim, rows[index * size : (index + 1) * size]
    start = sum(size[:index])
    return dim, rows[start : start + size[index]]


def _chunk(dim: int, rows: Tensor, ndim: int, index: int, number: int, along: int) -> Axis:
    return _split(dim, rows, ndim, index, -(-len(rows) // number) if along % ndim == dim else 1, along)


def _flip(dim: int, rows: Tensor, ndim: int, dims: list[int]) -> Axis:
    return dim, rows.flip(0) if dim in [d % ndim for d in dims] else rows


def _roll(dim: int, rows: Tensor, ndim: int, shifts: list[int], dims: list[int]) -> Axis | None:
    if not dims:
        return None
    for shift, d in zip(shifts, dims, strict=True):
        rows = rows.roll(shift) if d % ndim == dim else rows
    return dim, rows


def _unsqueeze(dim: int, rows: Tensor, ndim: int, along: int) -> Axis:
    return dim + (along % (ndim + 1) <= dim), rows


CUTS: dict[Any, Callable[..., Axis | None]] = {
    aten.select.int: _select,
    aten.unbind.int: _unbound,
    aten.slice.Tensor: _slice,
    aten.narrow.default: _narrow,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.unsafe_split.Tensor: _split,
    aten.chunk.default: _chunk,
    aten.flip.default: _flip,
    aten.roll.default: _roll,
    aten.unsqueeze.default: _unsqueeze,
}
"""Operation -> where its samples are behind it. For a part of several, the first argument is which part."""
