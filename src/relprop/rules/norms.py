"""Normalisation layers: y = (x - mean) / std * w + b, with the statistics held constant (Ali et al. 2022, "LN-rule").

The division by the standard deviation is then a scaling, the subtraction of the mean a linear operation, and the bias
keeps its share. Without that, a normalisation would hand on nothing at all: it does not react to the scale of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.ops import standardise
from .base import Call, Messages, Rule, Step
from .message import COEFFICIENT, RELEVANCE, Form, Message, add, divide, stabilise
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class HoldStatistics(Rule):
    """LN-rule: the statistics are constants, the rest is LRP-ε (Ali et al. 2022; AttnLRP uses the same).

    When to use: layer, group and RMS norms; the default there.

    Args:
        epsilon: the ε of the linear rest; 0 by default.
    """

    epsilon: float = 0.0
    sends_new = True

    def supports(self, step: Step) -> str | None:
        if step.node.target not in NORMS:
            return "it is meant for layer, group, instance and RMS norm"
        return None if len(step.active) == 1 else "its weight depends on the input"

    def form(self, step: Step) -> Form:
        absorbs = _bias_of(step.node) is not None or self.epsilon > 0
        return COEFFICIENT | (RELEVANCE if step.bias == "redistribute" and absorbs else Form())

    def saves(self, step: Step) -> set[Node]:
        exact = self.epsilon == 0 and not step.form.r and (step.bias != "zero" or _bias_of(step.node) is None)
        return set() if exact else {step.node}

    def forward(self, call: Call) -> Any:
        return NORMS[call.node.target](call)

    def backward(self, call: Call, message: Message) -> Messages:
        accumulate, step = call.context.accumulate, call.step
        rstd, weight, bias, groups = call.saved["norm"]
        bias = None if bias is None else accumulate(bias)
        absorbed: Tensor | None = None
        if call.node in self.saves(step):
            y = accumulate(call.output)
            relevance = message.relevance(y)
            z = y - bias if bias is not None and step.bias == "zero" else y
            c = relevance / stabilise(z, self.epsilon) if self.epsilon else divide(relevance, z)
            if step.bias == "redistribute" and self.epsilon:
                absorbed = relevance - c * z
            else:
                call.book("stabiliser", lambda: relevance - c * z)
        else:
            assert message.c is not None
            c = message.c
        if bias is not None and step.bias == "redistribute":
            absorbed = add(absorbed, c * bias)
        elif bias is not None and step.bias == "absorb":
            call.book("bias", lambda: c * bias)
        shape = call.shape(call.active[0])
        g = groups(c if weight is None else c * accumulate(weight), shape, accumulate(rstd))
        # what is redistributed is shared by the features that were normalised together
        return [Message(g, None if absorbed is None else groups.mean(absorbed, shape))]


class Groups:
    """Which values are normalised together, and whether their mean is subtracted."""

    def __init__(self, dims: tuple[int, ...] | int, centred: bool = True):
        self.dims, self.centred = dims, centred

    def _grouped(self, g: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        if isinstance(self.dims, int):  # a number of groups of channels
            return g.reshape(g.shape[0], self.dims, math.prod(g.shape[1:]) // self.dims), (2,)
        return g, self.dims

    def __call__(self, g: Tensor, shape: torch.Size, rstd: Tensor) -> Tensor:
        """The coefficient of x, from that of the scaled output."""
        g, dims = self._grouped(g)
        g = g * rstd
        return (g.sub_(g.mean(dims, keepdim=True)) if self.centred else g).reshape(shape)

    def mean(self, r: Tensor, shape: torch.Size) -> Tensor:
        r, dims = self._grouped(r)
        return r.mean(dims, keepdim=True).expand_as(r).reshape(shape)


def _layer_norm(call: Call) -> Tensor:
    x, shape, weight, bias, epsilon, _ = map(call.value, arguments(call.node).values())
    y, _, rstd = aten.native_layer_norm.default(x, shape, weight, bias, epsilon)
    dims = tuple(range(-len(shape), 0))
    if call.context.differentiable:
        rstd = _rstd(x, dims, epsilon)
    call.saved["norm"] = (rstd, weight, bias, Groups(dims))
    return y


def _rms_norm(call: Call) -> Tensor:
    x, shape, weight, epsilon = map(call.value, arguments(call.node).values())
    epsilon = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    dims = tuple(range(-len(shape), 0))
    # torch computes the statistics of half precision in single precision
    rstd = torch.rsqrt(call.context.accumulate(x).square().mean(dims, keepdim=True) + epsilon)
    call.saved["norm"] = (rstd, weight, None, Groups(dims, centred=False))
    return call.run()


def _group_norm(call: Call) -> Tensor:
    x, groups, weight, bias, epsilon, _ = map(call.value, arguments(call.node).values())
    n, channels = x.shape[:2]
    y, _, rstd = aten.native_group_norm.default(
        x.contiguous(), weight, bias, n, channels, math.prod(x.shape[2:]), groups, epsilon
    )
    if call.context.differentiable:
        rstd = _rstd(x.reshape(n, groups, -1), (2,), epsilon)[..., 0]
    per_channel = [None if p is None else p.reshape(-1, *[1] * (x.ndim - 2)) for p in (weight, bias)]
    call.saved["norm"] = (rstd[..., None], *per_channel, Groups(groups))
    return y


def _standardise(call: Call) -> Tensor:
    x, weight, bias, epsilon = map(call.value, arguments(call.node).values())
    dims = tuple(d for d in range(x.ndim) if d != 1)
    rstd = _rstd(x, dims, epsilon)
    per_channel = [None if p is None else p.reshape(-1, *[1] * (x.ndim - 2)) for p in (weight, bias)]
    call.saved["norm"] = (rstd, *per_channel, Groups(dims))
    return call.run()


def _rstd(x: Tensor, dims: tuple[int, ...], epsilon: float) -> Tensor:
    """1 / σ, which torch's own kernels hand out without a graph."""
    return torch.rsqrt(x.var(dims, correction=0, keepdim=True) + epsilon)


def _bias_of(node: Node) -> Any:
    return None if node.target is aten.rms_norm.default else argument(node, "bias")


NORMS: dict[Any, Any] = {
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    aten.group_norm.default: _group_norm,
    standardise: _standardise,
}

register("norm", HoldStatistics(), *NORMS, fresh=True)
