"""Layers whose weight or bias is no constant (a hypernetwork, a style) are taken apart: each half has its own rule.

A bias is a summand of its own, the input and the weight of a layer share the rest. The weight of a norm is a factor of
what was normalised, which is a constant where it is that of parameters. A batch norm is written out:
any of its four vectors may be explained.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.graph import Graph, calls
from ..graph.ops import CONVOLUTIONS, PER_CHANNEL, TRANSPOSED, standardise
from .batch_norm import BATCH_NORMS
from .clean import remove_dead_code
from .constants import find_constants

aten = torch.ops.aten

DIMS: dict[Any, int] = {**CONVOLUTIONS, **TRANSPOSED}
LAYERS = {aten.linear.default, *CONVOLUTIONS, *TRANSPOSED}
NORMS = {aten.layer_norm.default, aten.rms_norm.default, aten.group_norm.default, standardise}


def split_layers(graph: Graph) -> None:
    """Take the bias of layers, weight and bias of norms out where they are no constants."""
    find_constants(graph)
    for node in list(graph.nodes):
        if not calls(node) or node in graph.constants or node.target not in LAYERS | NORMS | set(BATCH_NORMS):
            continue
        given = arguments(node)
        if node.target in BATCH_NORMS:
            _, *vectors = [v for v in list(given.values())[:5] if isinstance(v, Node)]
            if given["running_mean"] is not None and not graph.constants.issuperset(vectors):
                _write_out(graph, node, given)
            continue
        names = ["bias"] if node.target in LAYERS else ["weight", "bias"]
        if any(isinstance(given.get(name), Node) and given[name] not in graph.constants for name in names):
            _split(graph, node, given, names)
    remove_dead_code(graph)


def _split(graph: Graph, node: Node, given: dict[str, Any], names: list[str]) -> None:
    with graph.fx.inserting_before(node):
        plain = {name: None if name in names else value for name, value in given.items()}
        new = _call(graph, node, node.target, tuple(plain.values()))
        for name, operation in (("weight", aten.mul.Tensor), ("bias", aten.add.Tensor)):
            if name in names and isinstance(given.get(name), Node):
                new = _call(graph, node, operation, (new, _beside(graph, node, given[name])))
    graph.replace(node, new)


def _write_out(graph: Graph, node: Node, given: dict[str, Any]) -> None:
    """Batch norm as (x - mean) / sqrt(variance + ε) * weight + bias."""
    target: Any = node.target
    x, weight, bias, mean, variance, *_ = given.values()
    result = next((u for u in node.users if u.target is operator.getitem and argument(u, 1) == 0), node)
    like, vector = x.meta["val"], variance.meta["val"]
    with graph.fx.inserting_before(node):
        shifted = _call(graph, node, aten.add.Tensor, (variance, given[BATCH_NORMS[target]]), vector)
        scale = _call(graph, node, aten.rsqrt.default, (shifted,), vector)
        new = x
        for operation, v in zip((aten.sub, aten.mul, aten.mul, aten.add), (mean, scale, weight, bias), strict=True):
            if v is not None:
                new = _call(graph, node, operation.Tensor, (new, _per_channel(graph, node, v, like.ndim - 2)), like)
    graph.replace(result, new)


def _beside(graph: Graph, node: Node, vector: Node) -> Node:
    """A weight or bias as it is broadcast against the output."""
    behind = DIMS.get(node.target, node.meta["val"].ndim - 2)  # a convolution also takes a sample without a batch
    return _per_channel(graph, node, vector, behind) if node.target in PER_CHANNEL else vector


def _per_channel(graph: Graph, node: Node, vector: Node, behind: int) -> Node:
    if behind < 1:
        return vector
    shape = [-1, *[1] * behind]
    return _call(graph, node, aten.reshape.default, (vector, shape), vector.meta["val"].reshape(shape))


def _call(graph: Graph, node: Node, target: Any, args: tuple[Any, ...], value: Any = None) -> Node:
    new = graph.fx.call_function(target, args)
    new.meta = {**node.meta, "val": node.meta["val"] if value is None else value}
    return new
