"""Take operations apart that do two things at once, so that each half has its own rule."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.graph import Graph, calls
from ..graph.ops import bag_of, bagged, distance, grouped_product, spread
from .clean import remove_dead_code

aten = torch.ops.aten

PADDED = {
    aten.conv1d.padding: aten.conv1d.default,
    aten.conv2d.padding: aten.conv2d.default,
    aten.conv3d.padding: aten.conv3d.default,
}


def decompose(graph: Graph) -> None:
    """addcmul, baddbmm and their like into a product and a sum; ``padding="same"`` into numbers; bags of embeddings."""
    for node in list(graph.nodes):
        if not calls(node):
            continue
        maker = MAKERS.get(node.target) or MAKERS.get(str(node.target).removesuffix(".default"))
        if maker is None:
            continue
        with graph.fx.inserting_before(node):
            new = maker(graph, node)
        if new is node:
            continue
        graph.replace(node, new)
    remove_dead_code(graph)


def _call(graph: Graph, node: Node, target: Any, args: tuple[Any, ...], value: Any = None) -> Node:
    new = graph.fx.call_function(target, args)
    new.meta = {**node.meta, "val": node.meta.get("val") if value is None else value}
    return new


def _called(graph: Graph, node: Node, target: Any, *args: Any) -> Node:
    """A call whose value is yet to be told."""
    values = torch.fx.node.map_arg(args, lambda n: n.meta["val"])
    return _call(graph, node, target, args, target(*values))


def _arguments(node: Node, *names: str, **defaults: Any) -> list[Any]:
    """Arguments in their order, however they were passed."""
    wanted = {**dict.fromkeys(names), **defaults}
    return [node.args[i] if i < len(node.args) else node.kwargs.get(n, d) for i, (n, d) in enumerate(wanted.items())]


def _scaled(graph: Graph, node: Node, x: Any, factor: Any) -> Any:
    return x if factor == 1 else _call(graph, node, aten.mul.Tensor, (x, factor), x.meta.get("val"))


def _product_plus(product: Any) -> Any:
    """beta * x + alpha * product(y, z)"""

    def make(graph: Graph, node: Node) -> Node:
        x, y, z = node.args[:3]
        alpha, beta = node.kwargs.get("alpha", 1), node.kwargs.get("beta", 1)
        bias = x.meta["val"].ndim == 1 and alpha == 1 and beta == 1  # type: ignore[union-attr]
        if product is aten.mm.default and bias:  # a dense layer: its bias belongs to it
            transposed = _call(graph, node, aten.t.default, (z,), z.meta["val"].t())  # type: ignore[union-attr]
            return _call(graph, node, aten.linear.default, (y, transposed, x))
        p = _scaled(graph, node, _call(graph, node, product, (y, z)), alpha)
        return _call(graph, node, aten.add.Tensor, (p, _scaled(graph, node, x, beta)))

    return make


def _addcmul(graph: Graph, node: Node) -> Node:
    x, y, z = node.args[:3]
    p = _scaled(graph, node, _call(graph, node, aten.mul.Tensor, (y, z)), node.kwargs.get("value", 1))
    return _call(graph, node, aten.add.Tensor, (x, p))


def _bilinear(graph: Graph, node: Node) -> Node:
    *factors, bias = (*node.args, None)[:4]
    if bias is None:
        return node
    product = _call(graph, node, aten.bilinear.default, (*factors, None))
    return _call(graph, node, aten.add.Tensor, (product, bias))


def _lerp(graph: Graph, node: Node) -> Node:
    x, y, weight = node.args[:3]
    difference = _call(graph, node, aten.sub.Tensor, (y, x))
    return _call(graph, node, aten.add.Tensor, (x, _call(graph, node, aten.mul.Tensor, (weight, difference))))


def _glu(graph: Graph, node: Node) -> Node:
    """GLU is a product of one half with the sigmoid of the other."""
    value, dim = node.meta["val"], node.args[1] if len(node.args) > 1 else -1
    size, half = node.args[0].meta["val"].shape[dim], value.shape[dim]  # type: ignore[union-attr]
    a, b = (_call(graph, node, aten.slice.Tensor, (node.args[0], dim, *ends)) for ends in ((0, half), (half, size)))
    return _call(graph, node, aten.mul.Tensor, (a, _call(graph, node, aten.sigmoid.default, (b,))))


def _clamp(graph: Graph, node: Node) -> Node:
    """Bounds that are tensors may depend on the input as well."""
    x, low, high = _arguments(node, "self", "min", "max")
    for bound, op in ((low, aten.maximum.default), (high, aten.minimum.default)):
        x = x if bound is None else _call(graph, node, op, (x, bound))
    return x


def _pairwise_distance(graph: Graph, node: Node) -> Node:
    x, y, p, epsilon, keepdim = _arguments(node, "x1", "x2", p=2, eps=1e-6, keepdim=False)
    difference = _call(graph, node, aten.sub.Tensor, (x, y), x.meta["val"] - y.meta["val"])
    shifted = _call(graph, node, aten.add.Tensor, (difference, epsilon), difference.meta["val"])
    return _call(graph, node, distance, (shifted, p, keepdim))


def _dist(graph: Graph, node: Node) -> Node:
    x, y, p = _arguments(node, "self", "other", p=2)
    difference = _call(graph, node, aten.sub.Tensor, (x, y), x.meta["val"] - y.meta["val"])
    flat = _call(graph, node, aten.reshape.default, (difference, [-1]), difference.meta["val"].reshape(-1))
    return _call(graph, node, distance, (flat, p, False))


def _scatter(graph: Graph, node: Node) -> Node:
    """Of a source that is larger than its index, only a part is used."""
    x, dim, index, source, *rest = node.args
    for d, (used, given) in enumerate(zip(index.meta["val"].shape, source.meta["val"].shape, strict=True)):  # type: ignore[union-attr]
        if isinstance(used, int) and isinstance(given, int) and used < given:
            part = source.meta["val"].narrow(d, 0, used)  # type: ignore[union-attr]
            source = _call(graph, node, aten.slice.Tensor, (source, d, 0, used), part)
    if source is node.args[3]:
        return node
    new = _call(graph, node, node.target, (x, dim, index, source, *rest))
    new.kwargs = node.kwargs
    return new


def _embedding_bag(graph: Graph, node: Node) -> Node:
    """Embeddings, weighted if there are weights, and what is made of each bag of them."""
    weight, ids, offsets, _, mode, _, weights, last, padding = (*node.args, *[None] * 9)[:9]
    x = _called(graph, node, aten.embedding.default, weight, ids)
    if weights is not None:
        x = _called(graph, node, aten.mul.Tensor, x, _called(graph, node, aten.unsqueeze.default, weights, 1))
    bag = _called(graph, node, bag_of, ids, offsets, bool(last), padding)
    new = _called(graph, node, bagged, x, bag, offsets, bool(last), mode or 0)
    for user in [u for u in node.users if u.args[1] == 0]:
        graph.replace(user, new)
    return node  # its other results are for its own gradient


def _copy(graph: Graph, node: Node) -> Node:
    return _call(graph, node, spread, (node.args[1], node.args[0]))


def _in_the_shape_of(target: Any) -> Any:
    """The shape of another tensor, whose values have no say."""

    def make(graph: Graph, node: Node) -> Node:
        x, like = node.args
        shape = [
            n if isinstance(n, int) else _call(graph, node, aten.sym_size.int, (like, d), n)
            for d, n in enumerate(like.meta["val"].shape)  # type: ignore[union-attr]
        ]
        return _call(graph, node, target, (x, shape))

    return make


def _grouped(graph: Graph, node: Node) -> Node:
    arguments: list[Any] = [*node.args, *node.kwargs.values()]
    x, weight, ends, *rest = arguments
    if any(r is not None for r in rest) or weight.meta["val"].ndim != 3 or x.meta["val"].ndim != 2:
        return node
    return _call(graph, node, grouped_product, (x, weight, ends))


def _instance_norm(graph: Graph, node: Node) -> Node:
    """A group norm with one channel in each group; with stored statistics, a batch norm."""
    x, weight, bias, mean, variance, own_statistics, momentum, epsilon = node.args[:8]
    if own_statistics:
        channels = x.meta["val"].shape[1]  # type: ignore[union-attr]
        return _call(graph, node, aten.group_norm.default, (x, channels, weight, bias, epsilon))
    arguments = (x, weight, bias, mean, variance, False, momentum, epsilon, False)
    return _call(graph, node, aten.batch_norm.default, arguments)


def _same_padding(graph: Graph, node: Node) -> Node:
    x, weight, bias, stride, mode, dilation, groups = [*node.args, *[None] * 7][:7]
    dims = weight.meta["val"].ndim - 2  # type: ignore[union-attr]
    stride, dilation, groups = stride or [1], dilation or [1], groups or 1
    dilations: Any = [dilation] * dims if isinstance(dilation, int) else list(dilation) * (dims // len(dilation))  # type: ignore[arg-type]
    totals: list[int] = [d * (k - 1) for d, k in zip(dilations, weight.meta["val"].shape[2:], strict=True)]  # type: ignore[union-attr]
    if mode == "valid":
        totals = [0] * dims
    plain = PADDED[node.target]  # type: ignore[index]
    rest = (stride, [t // 2 for t in totals], dilations, groups)
    if not any(t % 2 for t in totals):
        return _call(graph, node, plain, (x, weight, bias, *rest))
    sides = [side for t in reversed(totals) for side in (0, t % 2)]  # torch pads more at the end
    value = torch.nn.functional.pad(x.meta["val"], sides)  # type: ignore[union-attr]
    padded = _call(graph, node, aten.constant_pad_nd.default, (x, sides), value)
    return _call(graph, node, plain, (padded, weight, bias, *rest))


MAKERS: dict[Any, Any] = {
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
    aten.embedding_bag.padding_idx: _embedding_bag,
    aten.embedding_bag.default: _embedding_bag,
    aten.lerp.Tensor: _lerp,
    aten.glu.default: _glu,
    aten.copy.default: _copy,
    aten.expand_as.default: _in_the_shape_of(aten.expand.default),
    aten.view_as.default: _in_the_shape_of(aten.reshape.default),
    aten.reshape_as.default: _in_the_shape_of(aten.reshape.default),
    aten.instance_norm.default: _instance_norm,
    aten._grouped_mm.default: _grouped,
    "transformers.grouped_mm_fallback": _grouped,
    **dict.fromkeys(PADDED, _same_padding),
}
