"""Operations of our own, that passes put in the place of torch's."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .facts import KEEPS, describe
from .kernels import channels_last

aten = torch.ops.aten

describe("pick", operator.getitem, sign=KEEPS)  # of one of several outputs: no rule is for it


def standardise(x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Tensor:
    """Normalise every channel by its own statistics."""
    return torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=epsilon)


PACK, PAD = aten._pack_padded_sequence.default, aten._pad_packed_sequence.default

CONVOLUTIONS = {aten.conv1d.default: 1, aten.conv2d.default: 2, aten.conv3d.default: 3}
TRANSPOSED = {aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2, aten.conv_transpose3d.input: 3}
"""Convolutions, and over how many dimensions they go."""
ONE_DIMENSIONAL = {operation for operation, dims in {**CONVOLUTIONS, **TRANSPOSED}.items() if dims == 1}
PER_CHANNEL = {aten.group_norm.default, standardise, *CONVOLUTIONS, *TRANSPOSED}
"""Operations whose channels come right behind the samples, [B, C, ...]."""


def as_real(x: Tensor) -> Tensor:
    """A complex tensor as pairs of numbers, also where its conjugation has only been noted."""
    return torch.view_as_real(x.resolve_conj())


def dense(x: Tensor) -> Tensor:
    """A sparse matrix with its zeros."""
    return x.to_dense()


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Batch norm that found no neighbour: ``x * scale + shift``, one weight per channel."""
    return x * channelwise(scale, x.ndim) + channelwise(shift, x.ndim)


def channelwise(v: Tensor, ndim: int) -> Tensor:
    """A vector over channels (dimension 1) as it broadcasts against a tensor of ``ndim`` dimensions."""
    return v.reshape(-1, *[1] * (ndim - 2))


def along(c: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """A constant as a vector over channels."""
    return c.reshape(-1).to(dtype).expand(size)


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


def shift_map(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, op: Any, options: list[Any]) -> Tensor:
    """What the shift of a batch norm becomes behind a linear operation: a bias, with borders where it pads."""
    image = channelwise(shift, x.ndim).expand(1, *x.shape[1:])
    return op(image, weight, bias, *options)


def mapped_bias(x: Tensor, weight: Tensor, bias: Tensor, op: Any, options: list[Any]) -> Tensor:
    """A linear operation whose bias differs from place to place: ``op(x, weight) + bias``."""
    return op(x, weight, None, *options) + bias


class Formula:
    """A function of some tensors, as the operations that it is written in."""

    def __init__(self, entering: list[Node], nodes: list[Node]):
        self.entering, self.nodes = entering, [(n, n.target, n.args, n.kwargs) for n in nodes]

    def __call__(self, *given: Any) -> Tensor:
        values: dict[Node, Any] = dict(zip(self.entering, given, strict=True))
        for node, target, args, kwargs in self.nodes:
            args, kwargs = torch.fx.node.map_arg((args, kwargs), values.__getitem__)
            values[node] = target(*args, **kwargs)  # type: ignore[operator]
        return values[self.nodes[-1][0]]

    def __repr__(self) -> str:
        return " ".join(str(target).removeprefix("aten.").partition(".")[0] for _, target, _, _ in self.nodes)


def written_activation(x: Tensor, formula: Formula) -> Tensor:
    """An activation that the model has no name for."""
    return formula(x)


def written_softmax(x: Tensor, formula: Formula, others: list[Any]) -> Tensor:
    """A normalised exponential that the model has no name for; others tell its groups, or mask some values."""
    return formula(x, *others)


def fake_quantised(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, low: int, high: int, on: Tensor | None
) -> Tensor:
    """Numbers rounded to those that integers from ``low`` to ``high`` stand for, if that is switched on."""
    if axis is None:
        on = torch.ones_like(zero_point) if on is None else on
        rounded = aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
            x, scale.reshape(()), zero_point.reshape(()).int(), on.reshape(()).long(), low, high
        )
        return rounded[0]
    rounded = torch.fake_quantize_per_channel_affine(x, scale, zero_point.int(), axis, low, high)
    return rounded if on is None else torch.where(on.bool(), rounded, x)


def padded_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, op: Any, options: list[Any], sides: list[int]
) -> Tensor:
    """A convolution whose padding differs from side to side; ``sides`` are as in ``torch.nn.functional.pad``."""
    return op(torch.nn.functional.pad(x, sides), weight, bias, *options)


def distance(x: Tensor, p: float, keepdim: bool) -> Tensor:
    """The norm of a difference."""
    return torch.linalg.vector_norm(x, p, -1, keepdim)


def statistic(x: Tensor, operation: Any, rest: list[Any], options: dict[str, Any]) -> Tensor:
    """A norm, a deviation or a variance that is not only a scale."""
    return operation(x, *rest, **options)


def bag_of(ids: Tensor, offsets: Tensor, last: bool, padding: int | None) -> Tensor:
    """The number of the bag that each token is in; for padding, which is in none, the number of bags."""
    places = torch.arange(len(ids), dtype=offsets.dtype, device=ids.device)
    bag = torch.searchsorted(offsets, places, right=True) - 1
    return bag if padding is None or padding < 0 else bag.masked_fill(ids == padding, len(offsets) - last)


def bagged(x: Tensor, bag: Tensor, offsets: Tensor, last: bool, mode: int) -> Tensor:
    """The sum, mean or maximum of every bag of rows, zero if it is empty."""
    bags = len(offsets) - last
    start = x.new_zeros(bags + 1, x.shape[1])
    index = bag[:, None].expand_as(x)
    return start.scatter_reduce(0, index, x, ("sum", "mean", "amax")[mode], include_self=False)[:bags]


def spread(x: Tensor, like: Tensor) -> Tensor:
    """What is written over a tensor: ``x``, in its shape."""
    return x.expand(like.shape).to(like.dtype)


def grouped_product(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Rows of ``x`` in groups that end at ``ends``, each times a matrix of its own: the experts of a mixture."""
    starts = [0, *ends.tolist()]
    parts = [x[i:j] @ w for i, j, w in zip(starts, starts[1:], weight, strict=False)]
    return torch.cat([*parts, x.new_zeros(x.shape[0] - starts[-1], weight.shape[2])])
