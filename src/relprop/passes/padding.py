"""Zeros around an image that a convolution then reads are that convolution's padding, however they were written.

Rules of input layers (z^B, w², flat) and the redistribution of biases treat padding as no input. ``ZeroPad2d``,
``F.pad`` and ``padding="same"`` mean the same as ``padding=1``, so they get the same relevance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from ..graph.graph import Graph, calls, describe
from ..graph.ops import CONVOLUTIONS, padded_convolution
from .batch_norm import layer_arguments
from .clean import remove_dead_code

aten = torch.ops.aten


def join_even_padding(graph: Graph) -> None:
    """Padding that is the same on both sides becomes the convolution's own, so that a norm in front of it is folded."""
    for node, pad, sides in _padded_convolutions(graph):
        if all(isinstance(n, int) for n in sides) and sides[::2] == sides[1::2]:
            given: list[Any] = [*node.args[1:]]
            weight, bias, stride, padding, *rest = given + [None, None, [1], [0]][len(given) :]
            dims = node.meta["val"].ndim - 2
            own = list(padding) * (dims // len(padding))
            before = own[: dims - len(sides) // 2]
            wider = [*before, *(n + m for n, m in zip(own[len(before) :], sides[::2][::-1], strict=True))]
            _replace(graph, node, pad, node.target, (weight, bias, stride, wider, *rest))
    remove_dead_code(graph)


def join_padding(graph: Graph) -> None:
    """Replace zero padding and the convolution behind it by one operation."""
    for node, pad, sides in _padded_convolutions(graph):
        weight, bias, *rest = layer_arguments(node)
        _replace(graph, node, pad, padded_convolution, (weight, bias, node.target, sides, *rest))
    remove_dead_code(graph)


def _padded_convolutions(graph: Graph) -> Iterator[tuple[Node, Node, list[Any]]]:
    for node in list(graph.nodes):
        if calls(node) and node.target in CONVOLUTIONS and not node.kwargs and _pads_with_zeros(node.args[0]):
            pad: Any = node.args[0]
            sides = list(pad.args[1])
            if len(sides) <= 2 * (node.meta["val"].ndim - 2):  # else channels or samples are padded too
                yield node, pad, sides


def _replace(graph: Graph, node: Node, pad: Node, target: Any, args: tuple[Any, ...]) -> None:
    with graph.fx.inserting_before(node):
        new = graph.fx.call_function(target, (pad.args[0], *args))
    new.meta = dict(node.meta)
    graph.replace(node, new)
    graph.vanish(pad, f"it pads for {describe(node)}, whose own padding it has become, and padding has no relevance")


def _pads_with_zeros(node: Any) -> bool:
    if not isinstance(node, Node) or node.target not in (aten.pad.default, aten.constant_pad_nd.default):
        return False
    options = [*node.args[2:], *node.kwargs.values()]
    cropped = any(isinstance(n, int) and n < 0 for n in node.args[1])  # type: ignore[union-attr]
    return not cropped and all(o in ("constant", None, 0) for o in options)
