"""Zeros around an image that a convolution then reads are that convolution's padding, however they were written.

Rules of input layers (z^B, w², flat) and the redistribution of biases treat padding as no input. ``ZeroPad2d``,
``F.pad`` and ``padding="same"`` mean the same as ``padding=1``, so they get the same relevance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.graph import Graph, calls, describe
from ..graph.ops import CONVOLUTIONS, padded_convolution
from .clean import remove_dead_code

aten = torch.ops.aten


def join_even_padding(graph: Graph) -> None:
    """Padding that is the same on both sides becomes the convolution's own, so that a norm in front of it is folded."""
    for node, pad, sides in _padded_convolutions(graph):
        if all(isinstance(n, int) for n in sides) and sides[::2] == sides[1::2]:
            _, weight, bias, stride, padding, *rest = arguments(node).values()
            dims = node.meta["val"].ndim - 2
            own = list(padding) * (dims // len(padding))
            before = own[: dims - len(sides) // 2]
            wider = [*before, *(n + m for n, m in zip(own[len(before) :], sides[::2][::-1], strict=True))]
            _replace(graph, node, pad, node.target, (weight, bias, stride, wider, *rest))
    remove_dead_code(graph)


def join_padding(graph: Graph) -> None:
    """Replace zero padding and the convolution behind it by one operation."""
    for node, pad, sides in _padded_convolutions(graph):
        _, weight, bias, *options = arguments(node).values()
        _replace(graph, node, pad, padded_convolution, (weight, bias, node.target, options, sides))
    remove_dead_code(graph)


def _padded_convolutions(graph: Graph) -> Iterator[tuple[Node, Node, list[Any]]]:
    for node in list(graph.nodes):
        if calls(node) and node.target in CONVOLUTIONS and _pads_with_zeros(pad := argument(node, "input")):
            sides = list(argument(pad, "pad"))
            if len(sides) <= 2 * (node.meta["val"].ndim - 2):  # else channels or samples are padded too
                yield node, pad, sides


def _replace(graph: Graph, node: Node, pad: Node, target: Any, args: tuple[Any, ...]) -> None:
    with graph.fx.inserting_before(node):
        new = graph.fx.call_function(target, (argument(pad, "self"), *args))
    new.meta = dict(node.meta)
    graph.replace(node, new)
    graph.vanish(pad, f"it pads for {describe(node)}, whose own padding it has become, and padding has no relevance")


def _pads_with_zeros(node: Any) -> bool:
    if not isinstance(node, Node) or node.target not in (aten.pad.default, aten.constant_pad_nd.default):
        return False
    cropped = any(isinstance(n, int) and n < 0 for n in argument(node, "pad"))
    constant = node.target is aten.constant_pad_nd.default or argument(node, "mode") == "constant"
    return constant and not cropped and argument(node, "value") in (None, 0)
