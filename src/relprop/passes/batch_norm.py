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
from torch import Tensor
from torch.fx import Node

from ..graph import Graph, calls
from ..kernels import channels_last
from .clean import remove_dead_code

aten = torch.ops.aten

BATCH_NORMS = {
    aten._native_batch_norm_legit_no_training.default: 6,
    aten._native_batch_norm_legit.default: 7,
    aten.batch_norm.default: 7,
    aten.cudnn_batch_norm.default: 7,
}
"""Operation -> position of its epsilon."""

CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default}
TRANSPOSED = {
    aten.conv_transpose1d.default: 6,
    aten.conv_transpose2d.input: 6,
    aten.conv_transpose3d.input: 6,
}
"""Transposed convolution -> position of its groups."""


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Batch norm that found no neighbour: ``x * scale + shift``, one weight per channel."""
    return x * channelwise(scale, x.ndim) + channelwise(shift, x.ndim)


def channelwise(v: Tensor, ndim: int) -> Tensor:
    """A vector over channels (dimension 1) as it broadcasts against a tensor of ``ndim`` dimensions."""
    return v.reshape(-1, *[1] * (ndim - 2))


def norm_scale(weight: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    scale = torch.rsqrt(variance + epsilon)
    return scale if weight is None else scale * weight


def norm_shift(bias: Tensor | None, mean: Tensor, scale: Tensor) -> Tensor:
    shift = -mean * scale
    return shift if bias is None else shift + bias


def scale_outputs(weight: Tensor, scale: Tensor, transposed_groups: int) -> Tensor:
    """The weight of ``scale * linear(x)``; a transposed convolution keeps its outputs in dimension 1, by groups."""
    if not transposed_groups:
        return channels_last(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    grouped = weight.unflatten(0, (transposed_groups, -1))
    return channels_last((grouped * scale.reshape(transposed_groups, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1))


def scale_bias(bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    return shift if bias is None else bias * scale + shift


def scale_inputs(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """The weight of ``linear(scale * x)``: inputs are in dimension 1, by groups."""
    per_group = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return channels_last((weight.unflatten(0, (groups, -1)) * per_group).flatten(0, 1))


def shift_map(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, op: Any, *arguments: Any) -> Tensor:
    """What the shift of a batch norm becomes behind a linear operation: a bias, with borders where it pads."""
    image = channelwise(shift, x.ndim).expand(1, *x.shape[1:])
    return op(image, weight, bias, *arguments)


def mapped_bias(x: Tensor, weight: Tensor, bias: Tensor, op: Any, *arguments: Any) -> Tensor:
    """A linear operation whose bias differs from place to place: ``op(x, weight) + bias``."""
    return op(x, weight, None, *arguments) + bias


def fold_batch_norm(graph: Graph) -> None:
    """Replace every batch norm in evaluation mode."""
    for node in list(graph.nodes):
        if calls(node) and node.target in BATCH_NORMS:
            _fold(graph, node)
    remove_dead_code(graph)


def _fold(graph: Graph, node: Node) -> None:
    target: Any = node.target
    x, weight, bias, mean, variance = (*node.args[:5],)
    if target is aten.batch_norm.default:
        result, users = node, [node]
    else:
        result = next((u for u in node.users if u.args[1] == 0), node)
        users = [node, result]
    value = result.meta.get("val", node.meta.get("val"))
    epsilon = node.args[BATCH_NORMS[target]]
    if mean is None or variance is None or not isinstance(x, Node):
        return  # normalises by the statistics of the input: not an affine map
    norms = node.meta
    with graph.fx.inserting_before(node):
        scale = _insert(graph, norm_scale, (weight, variance, epsilon), norms, variance)
        shift = _insert(graph, norm_shift, (bias, mean, scale), norms, variance)
        if _folds_into_producer(x):
            folded = _fold_into_producer(graph, x, scale, shift, norms, value)
        elif _folds_into_users(result):
            _fold_into_users(graph, x, result, scale, shift)
            return
        else:
            folded = _insert(graph, affine, (x, scale, shift), norms, value)
    result.replace_all_uses_with(folded)
    graph.outputs[:] = [folded if o in users else o for o in graph.outputs]


def _fold_into_producer(graph: Graph, x: Node, scale: Node, shift: Node, norms: Any, value: Any) -> Node:
    source: Any = x.target
    weight, bias, *rest = layer_arguments(x)
    groups = (rest[TRANSPOSED[source] - 3] if len(rest) > TRANSPOSED[source] - 3 else 1) if source in TRANSPOSED else 0
    folded_weight = _insert(graph, scale_outputs, (weight, scale, groups), x.meta, weight)
    folded_bias = _insert(graph, scale_bias, (bias, scale, shift), norms, scale)
    folded = _insert(graph, source, (x.args[0], folded_weight, folded_bias, *rest), x.meta, value)
    # both names lead to the folded operation: neither value exists on its own any more
    folded.meta["also_module"] = norms.get("nn_module_stack")
    return folded


def _folds_into_producer(x: Node) -> bool:
    target: Any = x.target
    if not calls(x) or len(x.users) != 1 or not (target in CONVOLUTIONS or target in TRANSPOSED or _is_dense(x)):
        return False
    # features of a linear layer are its last dimension, channels of a batch norm the second
    return not _is_dense(x) or _ndim(x) == 2


def _folds_into_users(result: Node) -> bool:
    users = list(result.users)
    return bool(users) and all(
        u.args[0] is result
        and result not in u.args[1:]
        and (u.target in CONVOLUTIONS or (_is_dense(u) and _ndim(result) == 2))
        for u in users
    )


def _fold_into_users(graph: Graph, x: Node, result: Node, scale: Node, shift: Node) -> None:
    for user in list(result.users):
        target: Any = user.target
        weight, bias, *rest = layer_arguments(user)
        groups = rest[3] if len(rest) > 3 else 1
        with graph.fx.inserting_before(user):
            folded = _insert(graph, scale_inputs, (weight, scale, groups), user.meta, weight)
            new_bias = _insert(graph, shift_map, (x, shift, weight, bias, target, *rest), user.meta, user)
            replacement = _insert(graph, mapped_bias, (x, folded, new_bias, target, *rest), user.meta, user)
        graph.replace(user, replacement)
        graph.fx.erase_node(user)


def _is_dense(node: Node) -> bool:
    return node.target is aten.linear.default


def layer_arguments(node: Node) -> list[Any]:
    """weight, bias and the rest of a linear operation's arguments; a missing bias is None."""
    rest = [*node.args[1:]]
    return rest if len(rest) > 1 else [*rest, None]


def _ndim(node: Node) -> int:
    return int(node.meta["val"].ndim)


def _insert(graph: Graph, target: Any, args: tuple[Any, ...], meta: Any, like: Any) -> Node:
    """A new node that keeps the names and source lines of the one it replaces."""
    node = graph.fx.call_function(target, args)
    node.meta = {key: meta[key] for key in ("nn_module_stack", "stack_trace") if key in meta}
    node.meta["val"] = like.meta.get("val") if isinstance(like, Node) else like
    return node
