"""The linear operations of a network, seen as LRP's four steps see them: ``z = W a + b`` forward, ``W^T s`` back.

One adapter per family, so that a rule is written once and serves dense layers, convolutions and transposed
convolutions of every stride, padding, group and dilation. Only the product with the input's gradient is ever
computed, never that of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph import kernels
from ..graph.arguments import argument, arguments, signature
from ..graph.ops import (
    CONVOLUTIONS,
    TRANSPOSED,
    affine,
    channelwise,
    grouped_product,
    mapped_bias,
    padded_convolution,
)
from .base import Call, Step

aten = torch.ops.aten

MATMULS = {aten.matmul.default, aten.mm.default, aten.bmm.default}


LAYER_KINDS = ("dense", "convolution", "affine")
"""Kinds of linear operations with a constant weight."""


class Layer:
    """The parts of one linear operation: which argument is the input, the weight, the bias, and its two maps."""

    kind = "dense"
    needs: tuple[Node, ...] = ()
    """Further inputs whose values the maps depend on."""

    def __init__(self, x: Any, weight: Any, bias: Any):
        self.x, self.weight, self.bias = x, weight, bias

    def bind(self, call: Call) -> Layer:
        """The layer with the values of ``needs`` in this run."""
        return self

    def run(self, a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        """W a + b, the operation itself."""
        return self.forward(a, w) if b is None else self.forward_from(b, a, w)

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        """W a, without bias."""
        raise NotImplementedError

    def forward_from(self, offset: Tensor, a: Tensor, w: Tensor) -> Tensor:
        """W a + offset, in one operation if possible; the offset has the shape of :meth:`spread_bias`."""
        return self.forward(a, w) + offset

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        """W^T s, in the shape of the input."""
        raise NotImplementedError

    def spread_bias(self, b: Tensor) -> Tensor:
        """The bias as it is added to the output."""
        return b


class Dense(Layer):
    """``a @ w.T``"""

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        return kernels.linear(a, w)

    def forward_from(self, offset: Tensor, a: Tensor, w: Tensor) -> Tensor:
        if offset.ndim > 1:
            return super().forward_from(offset, a, w)
        return kernels.linear(a, w, offset.expand(w.shape[0]))

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        return kernels.linear(s, w.mT)


class MatrixRight(Layer):
    """``a @ w`` with a constant matrix."""

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        return kernels.linear(a, w.mT)

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        return kernels.linear(s, w)


class MatrixLeft(Layer):
    """``w @ a`` with a constant matrix."""

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        return w @ a

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        return w.mT @ s


class Grouped(Layer):
    """Rows in groups, each times a matrix of its own: the experts of a mixture."""

    def __init__(self, x: Any, weight: Any, ends: Any):
        super().__init__(x, weight, None)
        self.needs, self.ends = (ends,), ends

    def bind(self, call: Call) -> Layer:
        return Grouped(self.x, self.weight, call.value(self.ends))

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        return grouped_product(a, w, self.ends)

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        return grouped_product(s, w.mT, self.ends)


class Convolution(Layer):
    """A convolution of any dimension, plain or transposed."""

    kind = "convolution"

    def __init__(self, x: Any, weight: Any, bias: Any, dims: int, transposed: bool, options: dict[str, Any]):
        super().__init__(x, weight, bias)
        self.dims, self.transposed, self.options = dims, transposed, options

    def bind(self, call: Call) -> Layer:
        if not self.needs:
            return self
        options = {**self.options, "sides": [call.value(n) for n in self.options["sides"]]}
        return Convolution(self.x, self.weight, self.bias, self.dims, self.transposed, options)

    @cached_property
    def _arguments(self) -> tuple[Any, ...]:
        def every(name: str, default: int) -> list[int]:
            value = self.options.get(name, default)
            values = [value] if isinstance(value, int) else list(value)
            return values * self.dims if len(values) == 1 else values

        return (
            every("stride", 1),
            every("padding", 0),
            every("dilation", 1),
            self.transposed,
            every("output_padding", 0),
            self.options.get("groups", 1),
        )

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        return self._convolve(a, w, None)

    def forward_from(self, offset: Tensor, a: Tensor, w: Tensor) -> Tensor:
        channels = w.shape[1] * self.options.get("groups", 1) if self.transposed else w.shape[0]
        if offset.numel() not in (1, channels):
            return super().forward_from(offset, a, w)
        b = offset.reshape(-1)
        return self._convolve(a, w, b if len(b) == channels else b.expand(channels).contiguous())

    def _convolve(self, a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        if a.ndim == self.dims + 1:  # a single sample without a batch dimension
            return self._convolve(a[None], w, b)[0]
        if sides := self.options.get("sides"):
            a = torch.nn.functional.pad(a, sides)
        return kernels.convolution(a, w, b, *self._arguments)

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        if len(shape) == self.dims + 1:
            return self.transpose(s[None], w, (1, *shape))[0]
        sides = self.options.get("sides")
        if sides:
            extra = [sum(pair) for pair in zip(sides[::2], sides[1::2], strict=True)][::-1]
            shape = [*shape[:2], *(n + e for n, e in zip(shape[2:], extra, strict=True))]
        stride, padding, dilation, transposed, _, groups = self._arguments
        c = input_gradient(s, w, shape, stride, padding, dilation, transposed, groups)
        return torch.nn.functional.pad(c, [-n for n in sides]) if sides else c

    def spread_bias(self, b: Tensor) -> Tensor:
        return b if b.ndim > 1 else b.reshape(-1, *[1] * self.dims)


def input_gradient(
    s: Tensor,
    w: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    groups: int,
) -> Tensor:
    """W^T s of a convolution: a transposed convolution, and the other way round, in the shape of the input."""
    rest = [0] * len(stride)
    if not transposed and max(stride) != 1:  # what a stride leaves over at the far end
        kernel = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
        sizes = zip(shape[2:], s.shape[2:], stride, padding, kernel, strict=True)
        rest = [n - ((m - 1) * by - 2 * p + k) for n, m, by, p, k in sizes]
    c = kernels.convolution(s, w, None, stride, padding, dilation, not transposed, rest, groups)
    for d, n in enumerate(shape[2:], 2):
        c = c if c.shape[d] == n else c.narrow(d, 0, n)
    return c


class Affine(Layer):
    """Batch norm on its own: one weight per channel."""

    kind = "affine"

    def forward(self, a: Tensor, w: Tensor) -> Tensor:
        return a * channelwise(w, a.ndim)

    def transpose(self, s: Tensor, w: Tensor, shape: Sequence[int]) -> Tensor:
        return s * channelwise(w, s.ndim)

    def spread_bias(self, b: Tensor) -> Tensor:
        return channelwise(b, self.x.meta["val"].ndim)


def layer_in(step: Step) -> Layer | None:
    """The layer that a step is: an operation that is linear in its active input."""
    return layer_of(step.node, lambda n: n not in step.active)


def layer_of(node: Node, is_constant: Callable[[Any], bool]) -> Layer | None:
    """The layer that a node is, or None if it is no linear operation with a constant weight.

    Args:
        node: an operation of the graph.
        is_constant: tells whether an argument depends on parameters alone.
    """
    layer = _candidate(node, is_constant)
    if layer is None or is_constant(layer.x) or not is_constant(layer.weight) or not is_constant(layer.bias):
        return None
    return layer


def called(node: Node) -> Any:
    """The operation that the model calls at a node, also where batch norm or padding was folded into a layer."""
    return argument(node, "op") if node.target in (mapped_bias, padded_convolution) else node.target


def _candidate(node: Node, is_constant: Callable[[Any], bool]) -> Layer | None:
    target: Any = node.target
    if target is aten.linear.default:
        return Dense(*arguments(node).values())
    if target in CONVOLUTIONS or target in TRANSPOSED:
        return _convolution(target, *arguments(node).values())
    if target is mapped_bias:
        x, weight, bias, inner, options = arguments(node).values()
        if inner is aten.linear.default:
            return Dense(x, weight, bias)
        return _convolution(inner, x, weight, bias, *options)
    if target is padded_convolution:
        x, weight, bias, inner, options, sides = arguments(node).values()
        layer = _convolution(inner, x, weight, bias, *options)
        layer.options["sides"] = sides
        layer.needs = tuple(n for n in sides if isinstance(n, Node))
        return layer
    if target is affine:
        return Affine(*arguments(node).values())
    if target is grouped_product:
        return Grouped(*arguments(node).values())
    if target in MATMULS:
        x, y = arguments(node).values()
        if is_constant(y) and _ndim(y) == 2:
            return MatrixRight(x, y, None)
        if is_constant(x) and _ndim(x) == 2 and _ndim(y) >= 2:
            return MatrixLeft(y, x, None)
    return None


def _convolution(target: Any, x: Any, weight: Any, bias: Any, *options: Any) -> Convolution:
    named = dict(zip(list(signature(target))[3:], options, strict=True))
    dims = CONVOLUTIONS.get(target) or TRANSPOSED[target]
    return Convolution(x, weight, bias, dims, target in TRANSPOSED, named)


def _ndim(node: Any) -> int:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value.ndim if isinstance(value, Tensor) else 0
