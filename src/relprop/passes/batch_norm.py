"""Fold batch normalisation into the neighbouring linear operation, virtually.

In evaluation mode batch norm is the affine map ``y = x * scale + shift`` per channel. The folded weight is a node of
the graph, computed from the live parameters at every run: the model is never touched.

- linear operation -> BN: always folded.
- BN -> linear operations (all of its users): folded; where the convolution pads with zeros the shift becomes a bias
  that depends on the position, since the padding is added after the normalisation.
- else: the affine map stands alone, as a linear operation with one weight per channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import REWRITTEN, describe
from ..graph.graph import Graph, calls
from ..graph.ops import (
    CONVOLUTIONS,
    TRANSPOSED,
    affine,
    mapped_bias,
    norm_scale,
    norm_shift,
    scale_bias,
    scale_inputs,
    scale_outputs,
    shift_map,
)
from .clean import remove_dead_code

aten = torch.ops.aten

BATCH_NORMS = {
    aten._native_batch_norm_legit_no_training.default: "eps",
    aten._native_batch_norm_legit.default: "eps",
    aten._native_batch_norm_legit_functional.default: "eps",
    aten.batch_norm.default: "eps",
    aten.cudnn_batch_norm.default: "epsilon",
}
"""Operation -> the name of its epsilon."""
describe("batch norm", aten._native_batch_norm_legit_no_training.default, fresh=True)
describe(
    "batch norm",
    aten.batch_norm.default,
    aten.cudnn_batch_norm.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit_functional.default,
    fresh=True,
    random=("training",),
)
REWRITTEN.update(BATCH_NORMS)


def fold_batch_norm(graph: Graph) -> None:
    """Replace every batch norm in evaluation mode."""
    for node in list(graph.nodes):
        if calls(node) and node.target in BATCH_NORMS:
            _fold(graph, node)
    remove_dead_code(graph)


def _fold(graph: Graph, node: Node) -> None:
    target: Any = node.target
    x, weight, bias, mean, variance, *_ = arguments(node).values()
    if target is aten.batch_norm.default:
        result, users = node, [node]
    else:
        result = next((u for u in node.users if argument(u, 1) == 0), node)
        users = [node, result]
    value = result.meta.get("val", node.meta.get("val"))
    epsilon = argument(node, BATCH_NORMS[target])
    if mean is None or variance is None or not isinstance(x, Node):
        return  # normalises by the statistics of the input: not an affine map
    norms = node.meta
    with graph.fx.inserting_before(node):
        scale = insert(graph, norm_scale, (weight, variance, epsilon), norms, variance)
        shift = insert(graph, norm_shift, (bias, mean, scale), norms, variance)
        if _folds_into_producer(x):
            folded = _fold_into_producer(graph, x, scale, shift, norms, value)
        elif folds_into_users(result):
            fold_into_users(graph, x, result, scale, shift)
            return
        else:
            folded = insert(graph, affine, (x, scale, shift), norms, value)
    result.replace_all_uses_with(folded)
    graph.outputs[:] = [folded if o in users else o for o in graph.outputs]


def _fold_into_producer(graph: Graph, x: Node, scale: Node, shift: Node, norms: Any, value: Any) -> Node:
    source: Any = x.target
    start, weight, bias, *options = arguments(x).values()
    groups = argument(x, "groups") if source in TRANSPOSED else 0
    folded_weight = insert(graph, scale_outputs, (weight, scale, groups), x.meta, weight)
    folded_bias = insert(graph, scale_bias, (bias, scale, shift), norms, scale)
    folded = insert(graph, source, (start, folded_weight, folded_bias, *options), x.meta, value)
    # both names lead to the folded operation: neither value exists on its own any more
    folded.meta["also_module"] = norms.get("nn_module_stack")
    return folded


def _folds_into_producer(x: Node) -> bool:
    target: Any = x.target
    if not calls(x) or len(x.users) != 1 or not (target in CONVOLUTIONS or target in TRANSPOSED or _is_dense(x)):
        return False
    # features of a linear layer are its last dimension, channels of a batch norm the second
    return not _is_dense(x) or _ndim(x) == 2


def folds_into_users(result: Node) -> bool:
    users = list(result.users)
    return bool(users) and all(
        (u.target in CONVOLUTIONS or (_is_dense(u) and _ndim(result) == 2))
        and [name for name, value in arguments(u).items() if value is result] == ["input"]
        for u in users
    )


def fold_into_users(graph: Graph, x: Node, result: Node, scale: Node, shift: Node) -> None:
    for user in list(result.users):
        target: Any = user.target
        _, weight, bias, *options = arguments(user).values()
        groups = argument(user, "groups") if target in CONVOLUTIONS else 1
        with graph.fx.inserting_before(user):
            folded = insert(graph, scale_inputs, (weight, scale, groups), user.meta, weight)
            new_bias = insert(graph, shift_map, (x, shift, weight, bias, target, options), user.meta, user)
            replacement = insert(graph, mapped_bias, (x, folded, new_bias, target, options), user.meta, user)
        graph.replace(user, replacement)
        graph.fx.erase_node(user)


def _is_dense(node: Node) -> bool:
    return node.target is aten.linear.default


def _ndim(node: Node) -> int:
    return int(node.meta["val"].ndim)


def insert(graph: Graph, target: Any, args: tuple[Any, ...], meta: Any, like: Any) -> Node:
    """A new node that keeps the names and source lines of the one it replaces."""
    node = graph.fx.call_function(target, args)
    node.meta = {key: meta[key] for key in ("nn_module_stack", "stack_trace") if key in meta}
    node.meta["val"] = like.meta.get("val") if isinstance(like, Node) else like
    return node
