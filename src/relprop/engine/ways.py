"""Which operation lets owners pass in which way (owners.py)."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import facts
from ..graph.ops import spread
from ..rules.base import nodes_in
from .owners import (
    CONDITIONALS,
    INDEX,
    PLACES,
    Conditional,
    Found,
    Moves,
    OneHot,
    Picked,
    Pointwise,
    Product,
    Reduced,
    Rows,
    Way,
    Written,
)

aten = torch.ops.aten

PRODUCTS = {aten.matmul.default, aten.mm.default, aten.linear.default}

FINDS = {
    *(aten.argmax.default, aten.argmin.default, aten.max.dim, aten.min.dim, aten.cummax.default, aten.cummin.default),
    *(aten.sort.default, aten.sort.stable, aten.argsort.default, aten.argsort.stable, aten.topk.default),
    *(aten.kthvalue.default, aten.median.dim, aten.nanmedian.dim, aten.mode.default),
}

REDUCES = {
    *(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.prod.default, aten.prod.dim_int),
    *(aten.amax.default, aten.amin.default, aten.max.default, aten.min.default),
    *(aten.any.default, aten.any.dim, aten.any.dims, aten.all.default, aten.all.dim, aten.all.dims),
}

POINTWISE = {
    *(aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default),
    *(aten.detach.default, aten.alias.default, aten.contiguous.default, aten.lift_fresh_copy.default),
    *(aten.rsub.Tensor, aten.floor_divide.default, aten.floor_divide.Scalar, aten.isclose.default),
    *(aten.__and__.Tensor, aten.__or__.Tensor, aten.__xor__.Tensor),
    *(aten.__and__.Scalar, aten.__or__.Scalar, aten.__xor__.Scalar),
}
"""Operations that compute place by place though torch's tag does not say so."""

SEARCHES = {aten.bucketize.Tensor: "self", aten.searchsorted.Tensor: "self", aten.isin.Tensor_Tensor: "elements"}
"""Operation that looks for values in a list -> the argument that holds the values."""

MOVED = {
    *(spread, aten.embedding.default, aten.index_fill.int_Scalar, aten.index_copy.default, aten.take.default),
    *(aten.expand_as.default, aten.view_as.default, aten.reshape_as.default, aten.broadcast_to.default),
    *(aten.swapaxes.default, aten.swapdims.default, aten.moveaxis.int, aten.moveaxis.intlist, aten.movedim.intlist),
    *(aten.ravel.default, aten.fliplr.default, aten.flipud.default, aten.diag.default, aten.diag_embed.default),
    *(aten.hstack.default, aten.vstack.default, aten.dstack.default, aten.column_stack.default),
    *(aten.concat.default, aten.concatenate.default, aten.tensor_split.sections, aten.tensor_split.indices),
    *(aten.hsplit.int, aten.vsplit.int, aten.meshgrid.default, aten.meshgrid.indexing),
}
"""Operations that only put values elsewhere, though they have no rule that says so."""


def way_of(node: Node, constants: set[Node], condition_counts: bool = False, counted: bool = False) -> Way | None:
    """How owners pass an operation; None if they get lost in it.

    Args:
        node: the operation.
        constants: nodes that depend on parameters alone.
        condition_counts: whether a condition is an owner of what it chooses.
        counted: whether the values are one-hot vectors, of which a sum counts those that are not zero.
    """
    op: Any = node.target
    if op is operator.getitem:
        return Picked()
    if op in INDEX and argument(node, 0) in constants:
        return None if any(map(_is_mask, nodes_in(argument(node, INDEX[op])))) else Rows()
    if op in PLACES and all(n in constants for n in Moves().follows(node)):
        return None if _adds_up(node) else Written()
    if op in CONDITIONALS:
        return Conditional(condition_counts)
    if op in FINDS:
        return Found()
    if op in REDUCES:
        return Reduced(counted)
    if op is aten.one_hot.default:
        return OneHot()
    if op in SEARCHES:
        return Pointwise(SEARCHES[op])
    if op in POINTWISE or torch.Tag.pointwise in getattr(op, "tags", ()):
        return Pointwise()
    if op in MOVED or _only_moves(node):
        return None if _adds_up(node) else Moves()
    return None


def product_with(node: Node, constants: set[Node]) -> Product | None:
    """The way through a product with a constant matrix, if an operation is one, without a bias."""
    if node.target not in PRODUCTS or (len(arguments(node)) > 2 and arguments(node)["bias"] is not None):
        return None
    table = argument(node, 1)
    return Product() if table in constants and table.meta["val"].ndim == 2 else None


def _is_mask(index: Node) -> bool:
    """Whether an index says where by truths: it leaves rows out, and chooses none."""
    return bool(index.meta["val"].dtype == torch.bool)


def _only_moves(node: Node) -> bool:
    known = facts(node)
    return known.kind == "structural" and getattr(known.rule, "moves", False)


def _adds_up(node: Node) -> bool:
    return bool(arguments(node).get("accumulate", False))
