"""Scale and shift by constants, joined with the layer that they follow.

A bias that is added by itself, a batch norm that is frozen or written out: ``(W x + b) * scale + shift`` with one
number per channel is one layer. What stands in the denominator of a rule, and which contributions speak for a neuron,
must not depend on how the layer is written.

- layer -> shift, or scale and shift: folded, also where dimensions were moved in between.
- layer -> scale alone: only its sign is folded. Its size changes no share, and a tiny one would drown in stabilisers.
- else, scale and shift: a batch norm that follows no layer.
- shift -> layers: folded, as the mean that an image is normalised by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.constants import from_parameters
from ..graph.graph import Graph, calls
from ..graph.ops import CONVOLUTIONS, TRANSPOSED, affine, along, scale_outputs
from .batch_norm import fold_into_users, folds_into_users, insert
from .clean import remove_dead_code
from .constants import find_constants
from .layout import is_move, moved, only_used_by, order_of, unmoved

aten = torch.ops.aten

SCALES = {aten.mul.Tensor, aten.div.Tensor, aten.neg.default}
SHIFTS = {aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar}
NORMS = {aten.layer_norm.default, aten.group_norm.default, aten.rms_norm.default}
MATRICES = {aten.matmul.default, aten.mm.default}


@dataclass
class Chain:
    """Operations in a row that scale and shift ``x`` by one constant per channel, or by one for all."""

    x: Node
    dim: int | None = None
    """The dimension of the channels; None if there is one constant for all."""
    nodes: list[Node] = field(default_factory=list)


def join_affine(graph: Graph) -> None:
    """Fold scales and shifts by constants into layers; name those that are batch norms of their own."""
    find_constants(graph)
    for chain in [chain for chain in _chains(graph) if not _folded_into_layer(graph, chain)]:
        if _is_batch_norm(graph, chain) or _is_centring(graph, chain):
            _name_batch_norm(graph, chain)
    remove_dead_code(graph)


# ---------------------------------------------------------------------------------------------------------------------
# Finding them
# ---------------------------------------------------------------------------------------------------------------------


def _chains(graph: Graph) -> list[Chain]:
    found: dict[Node, Chain] = {}  # by the last operation
    fixed = from_parameters(graph)  # not the sizes of inputs: the number of samples is no channel
    for node in graph.nodes:
        step = _step(graph, node, fixed)
        if step is None:
            continue
        x, dim = step
        goes_on = x in found and only_used_by(graph, x, node) and (dim is None or found[x].dim in (None, dim))
        chain = found.pop(x) if goes_on else Chain(x)
        chain.nodes.append(node)
        chain.dim = chain.dim if dim is None else dim
        found[node] = chain
    return list(found.values())


def _step(graph: Graph, node: Node, fixed: set[Node]) -> tuple[Node, int | None] | None:
    """What a node scales or shifts by a constant, and along which dimension; None if it does something else."""
    if not calls(node) or node in graph.constants or node.target not in SCALES | SHIFTS:
        return None
    active = [a for a in node.args[:2] if isinstance(a, Node) and a not in graph.constants]
    if len(active) != 1 or (node.target is aten.div.Tensor and (active[0] is not node.args[0] or node.kwargs)):
        return None
    x = active[0]
    before, after = x.meta.get("val"), node.meta.get("val")
    if not isinstance(before, Tensor) or not isinstance(after, Tensor) or not before.dtype.is_floating_point:
        return None
    if before.dtype != after.dtype or list(map(str, before.shape)) != list(map(str, after.shape)):
        return None
    constant = _constant(node, x)
    if not isinstance(constant, Node):
        return x, None
    if constant not in fixed:
        return None
    shape = constant.meta["val"].shape
    wide = [d - len(shape) for d, n in enumerate(shape) if n != 1]
    if not wide:
        return x, None
    size = before.shape[wide[0]]
    return (x, wide[0] % before.ndim) if len(wide) == 1 and isinstance(size, int) else None


def _constant(node: Node, x: Node) -> Any:
    """The other operand, before it was repeated for every place."""
    constant: Any = next((c for c in node.args[:2] if c is not x), None)
    while isinstance(constant, Node) and constant.target is aten.expand.default:
        constant = constant.args[0]
    return constant


def _is_batch_norm(graph: Graph, chain: Chain) -> bool:
    """Whether every channel is scaled and shifted, and not as the end of a normalisation by statistics of the input."""
    if chain.dim in (None, 0) or not any(_scales_channels(graph, n) for n in chain.nodes):
        return False
    return _shifts(chain) and not _ends_a_normalisation(graph, chain)


def _is_centring(graph: Graph, chain: Chain) -> bool:
    """Whether values are shifted for the layers behind, as images are that a model normalises."""
    last, value = chain.nodes[-1], chain.x.meta["val"]
    if chain.dim not in (None, 1) or value.ndim < 2 or not isinstance(value.shape[1], int) or last in graph.outputs:
        return False
    return folds_into_users(last) and _shifts(chain) and not _ends_a_normalisation(graph, chain)


def _shifts(chain: Chain) -> bool:
    return any(n.target in SHIFTS for n in chain.nodes)


def _ends_a_normalisation(graph: Graph, chain: Chain) -> bool:
    operands = {a for a in chain.x.args[:2] if isinstance(a, Node)} - graph.constants
    is_product = chain.x.target in SCALES and len(operands) == 2
    return chain.x.target in NORMS or is_product


def _scales_channels(graph: Graph, node: Node) -> bool:
    constants = [c for c in node.args[:2] if isinstance(c, Node) and c in graph.constants]
    return node.target in SCALES and any(max(c.meta["val"].shape, default=1) > 1 for c in constants)


# ---------------------------------------------------------------------------------------------------------------------
# Their scale and shift
# ---------------------------------------------------------------------------------------------------------------------


def _scale_and_shift(graph: Graph, chain: Chain, size: int) -> tuple[Any, Any]:
    """What a chain amounts to: a vector over channels, or a number."""
    scale: Any = 1.0
    shift: Any = 0.0
    x, dtype = chain.x, chain.x.meta["val"].dtype
    for node in chain.nodes:
        c: Any = _constant(node, x)
        if isinstance(c, Node):
            c = insert(graph, along, (c, size, dtype), node.meta, c.meta["val"].new_empty(size, dtype=dtype))
        alpha: Any = argument(node, "alpha") if node.target in SHIFTS else 1
        if node.target in SCALES:
            if node.target is aten.neg.default:
                c = -1.0
            elif node.target is aten.div.Tensor:
                c = _computed(graph, aten.reciprocal.default, c) if isinstance(c, Node) else 1 / c
            scale, shift = _times(graph, scale, c), _times(graph, shift, c)
        elif node.target is aten.rsub.Scalar or node.args[0] is not x:  # c ± alpha x
            sign = alpha if node.target is aten.add.Tensor else -alpha
            scale, shift = _times(graph, scale, sign), _plus(graph, _times(graph, shift, sign), c)
        else:
            shift = _plus(graph, shift, _times(graph, c, alpha if node.target is aten.add.Tensor else -alpha))
        x = node
    return scale, shift


def _computed(graph: Graph, target: Any, *args: Any) -> Node:
    values = torch.fx.node.map_arg(args, lambda n: n.meta["val"])
    meta = next(a for a in args if isinstance(a, Node)).meta
    return insert(graph, target, args, meta, target(*values))


def _times(graph: Graph, a: Any, b: Any) -> Any:
    if isinstance(b, Node):
        a, b = b, a
    if not isinstance(a, Node):
        return a * b
    if isinstance(b, Node):
        return _computed(graph, aten.mul.Tensor, a, b)
    return b * 0.0 if b == 0 else a if b == 1 else _computed(graph, aten.mul.Tensor, a, b)


def _plus(graph: Graph, a: Any, b: Any) -> Any:
    if isinstance(b, Node):
        a, b = b, a
    if not isinstance(a, Node):
        return a + b
    return a if not isinstance(b, Node) and b == 0 else _computed(graph, aten.add.Tensor, a, b)


def _vector(graph: Graph, value: Any, size: int, like: Node) -> Node:
    return value if isinstance(value, Node) else _computed(graph, aten.new_full.default, like, [size], value)


# ---------------------------------------------------------------------------------------------------------------------
# Joining them
# ---------------------------------------------------------------------------------------------------------------------


def _folded_into_layer(graph: Graph, chain: Chain) -> bool:
    """Fold a chain into the layer before it, if there is one."""
    layer, moves = unmoved(graph, chain.x)
    features = _features(graph, layer)
    if features is None or not only_used_by(graph, chain.x, chain.nodes[0]):
        return False
    dim = chain.dim
    for move in reversed(moves):
        dim = None if dim is None else order_of(move)[dim]
    size = layer.meta["val"].shape[features]
    if dim not in (None, features) or not isinstance(size, int):
        return False
    last = chain.nodes[-1]
    with graph.fx.inserting_before(last):
        scale, shift = _scale_and_shift(graph, chain, size)
        shifts = isinstance(shift, Node) or shift != 0
        if not shifts and not isinstance(scale, Node) and scale > 0:
            return True  # it changes nothing
        folded = _scaled_layer(graph, layer, scale if shifts else _sign(graph, scale), shift, last)
        if not shifts:
            width = _channels(graph, _times(graph, _sign(graph, scale), scale), folded, features)
            folded = insert(graph, aten.mul.Tensor, (folded, width), last.meta, layer)
        for move in moves:
            folded = moved(graph, folded, order_of(move), move.meta)
        folded.meta["also_module"] = last.meta.get("nn_module_stack")
    graph.replace(last, folded)
    return True


def _features(graph: Graph, layer: Node) -> int | None:
    """The dimension of the output features, if a node is a linear operation with constant weights."""
    target: Any = layer.target
    if not calls(layer) or layer in graph.constants:
        return None
    if target in MATRICES:
        weight: Any = layer.args[1]
        return layer.meta["val"].ndim - 1 if weight in graph.constants and weight.meta["val"].ndim == 2 else None
    if target is not aten.linear.default and target not in CONVOLUTIONS and target not in TRANSPOSED:
        return None
    _, weight, bias, *_ = arguments(layer).values()
    if weight not in graph.constants or (bias is not None and bias not in graph.constants):
        return None
    ndim = layer.meta["val"].ndim
    return ndim - 1 if target is aten.linear.default else (1 if ndim == weight.meta["val"].ndim else None)


def _scaled_layer(graph: Graph, layer: Node, scale: Any, shift: Any, last: Node) -> Node:
    target: Any = layer.target
    if target in MATRICES:
        x, right = arguments(layer).values()
        target, options, bias = aten.linear.default, [], None
        weight: Any = _computed(graph, aten.transpose.int, right, 0, 1)
    else:
        x, weight, bias, *options = arguments(layer).values()
    size = layer.meta["val"].shape[-1] if target is aten.linear.default else layer.meta["val"].shape[1]
    if isinstance(scale, Node) or scale != 1:
        factor = _vector(graph, scale, size, weight)
        groups = argument(layer, "groups") if target in TRANSPOSED else 0
        bias = None if bias is None else _computed(graph, aten.mul.Tensor, bias, factor)
        weight = insert(graph, scale_outputs, (weight, factor, groups), layer.meta, weight)
    if isinstance(shift, Node) or shift != 0:
        bias = _vector(graph, shift, size, weight) if bias is None else _plus(graph, bias, shift)
    return insert(graph, target, (x, weight, bias, *options), layer.meta, layer)


def _sign(graph: Graph, scale: Any) -> Any:
    return _computed(graph, aten.sign.default, scale) if isinstance(scale, Node) else (1.0 if scale > 0 else -1.0)


def _channels(graph: Graph, value: Any, like: Node, dim: int) -> Any:
    """A vector over channels as it broadcasts against a tensor."""
    return (
        _computed(graph, aten.reshape.default, value, [-1, *[1] * (like.meta["val"].ndim - 1 - dim)])
        if isinstance(value, Node)
        else value
    )


def _name_batch_norm(graph: Graph, chain: Chain) -> None:
    """One operation for a chain: the batch norm that it is, whose channels are in dimension 1."""
    x, last, ndim, dim = chain.x, chain.nodes[-1], chain.x.meta["val"].ndim, chain.dim or 1
    order = [0, dim, *(d for d in range(1, ndim) if d != dim)]
    users = list(last.users)
    moves = users if last not in graph.outputs and all(is_move(u) and order_of(u) == order for u in users) else []
    with graph.fx.inserting_before(last):
        size = x.meta["val"].shape[dim]
        scale, shift = (_vector(graph, v, size, x) for v in _scale_and_shift(graph, chain, size))
        x = x if dim == 1 else moved(graph, x, order, last.meta)
        new = insert(graph, affine, (x, scale, shift), last.meta, x)
        if dim == 1 or moves:
            for node in moves or [last]:
                graph.replace(node, new)
        else:
            back = sorted(range(ndim), key=order.__getitem__)
            graph.replace(last, moved(graph, new, back, last.meta))
    if folds_into_users(new) and new not in graph.outputs:
        fold_into_users(graph, x, new, scale, shift)
