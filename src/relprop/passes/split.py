"""Layers whose weight or bias is no constant (a hypernetwork, a style) are taken apart: each half has its own rule.

A bias is a summand of its own, the input and the weight of a layer share the rest. The weight of a norm is a factor of
what was normalised, which is a constant where it is that of parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import arguments
from ..graph.graph import Graph, calls
from ..graph.ops import CONVOLUTIONS, PER_CHANNEL, TRANSPOSED, standardise
from .clean import remove_dead_code
from .constants import find_constants

aten = torch.ops.aten

LAYERS = {aten.linear.default, *CONVOLUTIONS, *TRANSPOSED}
NORMS = {aten.layer_norm.default, aten.rms_norm.default, aten.group_norm.default, standardise}


def split_layers(graph: Graph) -> None:
    """Take the bias of layers, weight and bias of norms out where they are no constants."""
    find_constants(graph)
    for node in list(graph.nodes):
        if not calls(node) or node in graph.constants or node.target not in LAYERS | NORMS:
            continue
        given = arguments(node)
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


def _beside(graph: Graph, node: Node, vector: Node) -> Node:
    """A weight or bias as it is broadcast against the output."""
    value, behind = vector.meta["val"], node.meta["val"].ndim - 2
    if node.target not in PER_CHANNEL or behind < 1:
        return vector
    shape = [-1, *[1] * behind]
    return _call(graph, node, aten.reshape.default, (vector, shape), value.reshape(shape))


def _call(graph: Graph, node: Node, target: Any, args: tuple[Any, ...], value: Any = None) -> Node:
    new = graph.fx.call_function(target, args)
    new.meta = {**node.meta, "val": node.meta["val"] if value is None else value}
    return new
