"""Sparse matrices are matrices: rules see the same numbers in a dense one.

torch has few operations for sparse tensors, and rules need many. One that would be too large stays as it is, which
products with it can do with.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.graph import Graph, calls
from ..graph.ops import dense

aten = torch.ops.aten

LIMIT = 2**28
"""Matrices of more entries stay sparse."""
SAME = {
    *(aten.to_sparse.default, aten.to_sparse.sparse_dim, aten._to_sparse.default, aten._to_sparse.sparse_dim),
    *(aten.to_dense.default, aten._to_dense.default, aten._coalesce.default, aten.coalesce.default),
    *(aten._to_sparse_csr.default, aten.to_sparse_csr.default),
}
"""Operations that change how a matrix is stored."""
AS_DENSE = {
    aten._sparse_mm.default: aten.mm.default,
    aten._sparse_addmm.default: aten.addmm.default,
    aten._sparse_sum.dim: aten.sum.dim_IntList,
    aten._sparse_sum.default: aten.sum.default,
}
"""Operations on sparse matrices, and the same ones on dense matrices."""
PARTS = {
    *(aten._indices.default, aten._values.default, aten.indices.default, aten.values.default, aten._nnz.default),
    *(aten.crow_indices.default, aten.col_indices.default, aten.ccol_indices.default, aten.row_indices.default),
}
"""Operations that ask how a matrix is stored."""


def make_dense(graph: Graph) -> None:
    """Let sparse inputs, parameters and results be dense."""
    first = next((node for node in graph.nodes if node.op != "placeholder"), None)
    for node in list(graph.nodes):
        if node.op == "placeholder" and _is_sparse(node) and first is not None:
            _placeholder(graph, node, first)
        elif calls(node):
            _operation(graph, node)


def _placeholder(graph: Graph, node: Node, first: Node) -> None:
    if any(user.target in PARTS for user in node.users) or not _fits(node):
        return
    if node in graph.inputs:  # it is made dense as it comes in
        node.meta["val"] = _value(node)
        return
    with graph.fx.inserting_before(first):
        new = graph.fx.call_function(dense, (node,))
    new.meta = {**node.meta, "val": _value(node)}
    node.replace_all_uses_with(new, lambda user: user is not new)


def _operation(graph: Graph, node: Node) -> None:
    if node.target is aten.sparse_coo_tensor.indices_size and _fits(node):
        graph.replace(node, _placed(graph, node))
    elif node.target in SAME and not _is_sparse(argument(node, 0)):
        graph.replace(node, argument(node, 0))
    elif node.target in AS_DENSE:
        node.target = AS_DENSE[node.target]
        if _is_sparse(node):
            node.meta["val"] = _value(node)
    elif _is_sparse(node) and not any(map(_is_sparse, node.all_input_nodes)):
        node.meta["val"] = _value(node)


def _placed(graph: Graph, node: Node) -> Node:
    """Values in their places among zeros; those in one place add up."""
    indices, values, size, *_ = arguments(node).values()

    def call(target: Any, *args: Any) -> Node:
        new = graph.fx.call_function(target, args)
        new.meta = {**node.meta, "val": target(*torch.fx.node.map_arg(args, lambda n: n.meta["val"]))}
        return new

    with graph.fx.inserting_before(node):
        zeros = call(aten.new_zeros.default, values, list(size))
        places = [call(aten.select.int, indices, 0, d) for d in range(indices.meta["val"].shape[0])]
        return call(aten.index_put.default, zeros, places, values, True)


def _is_sparse(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.layout != torch.strided


def _fits(node: Node) -> bool:
    return prod(n for n in node.meta["val"].shape if isinstance(n, int)) <= LIMIT


def _value(node: Node) -> Tensor:
    """What stands for the dense tensor."""
    value = node.meta["val"]
    with value.fake_mode:
        return torch.empty(value.shape, dtype=value.dtype, device=value.device)
