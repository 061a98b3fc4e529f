"""Take operations apart that do two things at once, so that each half has its own rule."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import REWRITTEN
from ..graph.graph import Graph, calls
from ..graph.ops import CONVOLUTIONS, TRANSPOSED, as_real, bag_of, bagged, distance, grouped_product, spread
from .clean import remove_dead_code

aten = torch.ops.aten

PADDED: dict[Any, Any] = {
    aten.conv1d.padding: aten.conv1d.default,
    aten.conv2d.padding: aten.conv2d.default,
    aten.conv3d.padding: aten.conv3d.default,
}


def decompose(graph: Graph) -> None:
    """addcmul, baddbmm and their like into a product and a sum; ``padding="same"`` into numbers; bags of embeddings."""
    for node in list(graph.nodes):
        if not calls(node):
            continue
        maker = maker_of(node)
        if maker is None:
            continue
        with graph.fx.inserting_before(node):
            new = maker(graph, node)
        if new is not node:
            graph.replace(node, new)
    remove_dead_code(graph)


def maker_of(node: Node) -> Any:
    """How an operation is taken apart, None if it is not. Those of other libraries are known by their full names."""
    if node.target in MAKERS:
        return MAKERS[node.target]
    return MAKERS.get(node.target._schema.name) if isinstance(node.target, torch._ops.OpOverload) else None


def _call(graph: Graph, node: Node, target: Any, args: tuple[Any, ...], value: Any = None) -> Node:
    new = graph.fx.call_function(target, args)
    new.meta = {**node.meta, "val": node.meta.get("val") if value is None else value}
    return new


def _called(graph: Graph, node: Node, target: Any, *args: Any) -> Node:
    """A call whose value is yet to be told."""
    values = torch.fx.node.map_arg(args, lambda n: n.meta["val"])
    return _call(graph, node, target, args, target(*values))


def _scaled(graph: Graph, node: Node, x: Any, factor: Any) -> Any:
    return x if factor == 1 else _call(graph, node, aten.mul.Tensor, (x, factor), x.meta.get("val"))


def _product_plus(product: Any) -> Any:
    """beta * x + alpha * product(y, z)"""

    def make(graph: Graph, node: Node) -> Node:
        x, y, z, beta, alpha = arguments(node).values()
        bias = x.meta["val"].ndim == 1 and alpha == 1 and beta == 1
        if product is aten.mm.default and bias:  # a dense layer: its bias belongs to it
            transposed = _call(graph, node, aten.t.default, (z,), z.meta["val"].t())
            return _call(graph, node, aten.linear.default, (y, transposed, x))
        p = _scaled(graph, node, _call(graph, node, product, (y, z)), alpha)
        return _call(graph, node, aten.add.Tensor, (p, _scaled(graph, node, x, beta)))

    return make


def _addcmul(graph: Graph, node: Node) -> Node:
    x, y, z, value = arguments(node).values()
    p = _scaled(graph, node, _call(graph, node, aten.mul.Tensor, (y, z)), value)
    return _call(graph, node, aten.add.Tensor, (x, p))


def _bilinear(graph: Graph, node: Node) -> Node:
    *factors, bias = arguments(node).values()
    if bias is None:
        return node
    product = _call(graph, node, aten.bilinear.default, (*factors, None))
    return _call(graph, node, aten.add.Tensor, (product, bias))


def _lerp(graph: Graph, node: Node) -> Node:
    x, y, weight = arguments(node).values()
    difference = _call(graph, node, aten.sub.Tensor, (y, x))
    return _call(graph, node, aten.add.Tensor, (x, _call(graph, node, aten.mul.Tensor, (weight, difference))))


def _glu(graph: Graph, node: Node) -> Node:
    """GLU is a product of one half with the sigmoid of the other."""
    x, dim = arguments(node).values()
    size, half = x.meta["val"].shape[dim], node.meta["val"].shape[dim]
    a, b = (_call(graph, node, aten.slice.Tensor, (x, dim, *ends)) for ends in ((0, half), (half, size)))
    return _call(graph, node, aten.mul.Tensor, (a, _call(graph, node, aten.sigmoid.default, (b,))))


def _clamp(graph: Graph, node: Node) -> Node:
    """Bounds that are tensors may depend on the input as well."""
    x, low, high = arguments(node).values()
    for bound, op in ((low, aten.maximum.default), (high, aten.minimum.default)):
        x = x if bound is None else _call(graph, node, op, (x, bound))
    return x


def _pairwise_distance(graph: Graph, node: Node) -> Node:
    x, y, p, epsilon, keepdim = arguments(node).values()
    difference = _call(graph, node, aten.sub.Tensor, (x, y), x.meta["val"] - y.meta["val"])
    shifted = _call(graph, node, aten.add.Tensor, (difference, epsilon), difference.meta["val"])
    return _call(graph, node, distance, (shifted, p, keepdim))


def _dist(graph: Graph, node: Node) -> Node:
    x, y, p = arguments(node).values()
    difference = _call(graph, node, aten.sub.Tensor, (x, y), x.meta["val"] - y.meta["val"])
    flat = _call(graph, node, aten.reshape.default, (difference, [-1]), difference.meta["val"].reshape(-1))
    return _call(graph, node, distance, (flat, p, False))


def _scatter(graph: Graph, node: Node) -> Node:
    """Of a source that is larger than its index, only a part is used."""
    given = arguments(node)
    x, dim, index, source, *_ = given.values()
    part = source
    for d, (used, size) in enumerate(zip(index.meta["val"].shape, source.meta["val"].shape, strict=True)):
        if isinstance(used, int) and isinstance(size, int) and used < size:
            value = part.meta["val"].narrow(d, 0, used)
            part = _call(graph, node, aten.slice.Tensor, (part, d, 0, used), value)
    if part is source:
        return node
    new = _call(graph, node, node.target, (x, dim, index, part))
    new.kwargs = dict([*given.items()][4:])
    return new


def _embedding(graph: Graph, node: Node) -> Node:
    """In a table that is explained the row of the padding is a row like any other: only training leaves it out."""
    weight, ids, *_ = arguments(node).values()
    if weight in graph.parameters:  # what is trained on relevance is trained as the model itself is
        return node
    return _call(graph, node, aten.embedding.default, (weight, ids)) if len(node.args) + len(node.kwargs) > 2 else node


def _embedding_bag(graph: Graph, node: Node) -> Node:
    """Embeddings, weighted if there are weights, and what is made of each bag of them."""
    weight, ids, offsets, _, mode, _, weights, last, *rest = arguments(node).values()
    padding = rest[0] if rest else None
    x = _called(graph, node, aten.embedding.default, weight, ids)
    if weights is not None:
        x = _called(graph, node, aten.mul.Tensor, x, _called(graph, node, aten.unsqueeze.default, weights, 1))
    bag = _called(graph, node, bag_of, ids, offsets, last, padding)
    new = _called(graph, node, bagged, x, bag, offsets, last, mode)
    for user in [u for u in node.users if argument(u, 1) == 0]:
        graph.replace(user, new)
    return node  # its other results are for its own gradient


def _as_real(graph: Graph, node: Node) -> Node:
    return _call(graph, node, as_real, tuple(arguments(node).values()))


def _copy(graph: Graph, node: Node) -> Node:
    x, source, _ = arguments(node).values()
    return _call(graph, node, spread, (source, x))


def _in_the_shape_of(target: Any) -> Any:
    """The shape of another tensor, whose values have no say."""

    def make(graph: Graph, node: Node) -> Node:
        x, like = arguments(node).values()
        shape = [
            n if isinstance(n, int) else _call(graph, node, aten.sym_size.int, (like, d), n)
            for d, n in enumerate(like.meta["val"].shape)
        ]
        return _call(graph, node, target, (x, shape))

    return make


def _grouped(graph: Graph, node: Node) -> Node:
    x, weight, ends, *rest = arguments(node).values()
    if any(r is not None for r in rest) or weight.meta["val"].ndim != 3 or x.meta["val"].ndim != 2:
        return node
    return _call(graph, node, grouped_product, (x, weight, ends))


def _instance_norm(graph: Graph, node: Node) -> Node:
    """A group norm with one channel in each group; with stored statistics, a batch norm."""
    x, weight, bias, mean, variance, own_statistics, momentum, epsilon, _ = arguments(node).values()
    if own_statistics:
        channels = x.meta["val"].shape[1]
        return _call(graph, node, aten.group_norm.default, (x, channels, weight, bias, epsilon))
    given = (x, weight, bias, mean, variance, False, momentum, epsilon, False)
    return _call(graph, node, aten.batch_norm.default, given)


def _padding_in_words(graph: Graph, node: Node) -> Node:
    """``padding="same"`` pads so that the output is as long as the input, ``"valid"`` not at all."""
    x, weight, bias, stride, mode, dilation, groups = arguments(node).values()
    kernel = weight.meta["val"].shape[2:]
    dilations = list(dilation) * (len(kernel) // len(dilation))
    totals: list[int] = [d * (k - 1) if mode == "same" else 0 for d, k in zip(dilations, kernel, strict=True)]
    plain = PADDED[node.target]
    rest = (stride, [t // 2 for t in totals], dilations, groups)
    if not any(t % 2 for t in totals):
        return _call(graph, node, plain, (x, weight, bias, *rest))
    sides = [side for t in reversed(totals) for side in (0, t % 2)]  # torch pads more at the end
    value = torch.nn.functional.pad(x.meta["val"], sides)
    padded = _call(graph, node, aten.constant_pad_nd.default, (x, sides), value)
    return _call(graph, node, plain, (padded, weight, bias, *rest))


def _one_number_put(graph: Graph, node: Node) -> Node:
    """``x[mask] = number``: it stands where the mask says, so that every sample has its own."""
    x, indices, values, accumulate = arguments(node).values()
    if accumulate or len(indices) != 1 or not isinstance(mask := indices[0], Node):
        return node
    by_place = mask.meta["val"].dtype == torch.bool and mask.meta["val"].ndim == x.meta["val"].ndim
    if not by_place or values.meta["val"].ndim != 0:
        return node
    return _call(graph, node, aten.where.self, (mask, values, x))


def _convolution(graph: Graph, node: Node) -> Node:
    """What all convolutions come down to, as traced TorchScript and decomposed programs have it."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *_ = arguments(node).values()
    dims = weight.meta["val"].ndim - 2
    if x.meta["val"].ndim != dims + 2:
        return node
    rest = (stride, padding, output_padding, groups, dilation) if transposed else (stride, padding, dilation, groups)
    kinds = TRANSPOSED if transposed else CONVOLUTIONS
    return _call(graph, node, next(o for o, n in kinds.items() if n == dims), (x, weight, bias, *rest))


MAKERS: dict[Any, Any] = {
    aten.convolution.default: _convolution,
    aten._convolution.default: _convolution,
    aten.index_put.default: _one_number_put,
    aten.addmm.default: _product_plus(aten.mm.default),
    aten.baddbmm.default: _product_plus(aten.bmm.default),
    aten.addmv.default: _product_plus(aten.mv.default),
    aten.addr.default: _product_plus(aten.outer.default),
    aten.addcmul.default: _addcmul,
    aten.bilinear.default: _bilinear,
    aten.clamp.Tensor: _clamp,
    aten.pairwise_distance.default: _pairwise_distance,
    aten.dist.default: _dist,
    **dict.fromkeys((aten.scatter.src, aten.scatter_add.default, aten.scatter_reduce.two), _scatter),
    aten.embedding.default: _embedding,
    aten.embedding_bag.padding_idx: _embedding_bag,
    aten.embedding_bag.default: _embedding_bag,
    aten.lerp.Tensor: _lerp,
    aten.glu.default: _glu,
    aten.copy.default: _copy,
    aten.expand_as.default: _in_the_shape_of(aten.expand.default),
    aten.view_as.default: _in_the_shape_of(aten.reshape.default),
    aten.reshape_as.default: _in_the_shape_of(aten.reshape.default),
    aten.view_as_real.default: _as_real,
    aten.instance_norm.default: _instance_norm,
    aten._grouped_mm.default: _grouped,
    "transformers::grouped_mm_fallback": _grouped,
    **dict.fromkeys(PADDED, _padding_in_words),
}
REWRITTEN.update(MAKERS)
