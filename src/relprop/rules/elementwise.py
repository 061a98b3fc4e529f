"""Activations: f applied to every element.

Where f(0) = 0, the coefficient is multiplied by f(x)/x (the identity rule, AttnLRP Eq. 9, in gradient form), which is
finite: the step function for ReLU, the normal distribution for GELU, the sigmoid for SiLU; at x = 0 it has its limit
f'(0). Where f(0) is not zero (sigmoid, softplus, exp, cos) relevance itself is passed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import ANY, KEEPS, NONNEGATIVE, Sign, facts
from ..graph.ops import fake_quantised, written_activation
from .base import Call, Messages, Rule, Step
from .message import RELEVANCE, Form, Message
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Identity(Rule):
    """R_in = R_out through an activation (AttnLRP Eq. 9): c is multiplied by f(x)/x, or R passed where f(0) != 0.

    When to use: activations; the default there.
    """

    def supports(self, step: Step) -> str | None:
        if len(step.active) != 1 or getattr(step.node.meta["val"], "shape", None) != step.active[0].meta["val"].shape:
            return "it is meant for functions of one tensor that act on every element"
        return None

    def form(self, step: Step) -> Form:
        return step.form if vanishes_at_zero(step.node) else RELEVANCE

    def saves(self, step: Step) -> set[Node]:
        if not step.form.c:
            return set()
        if facts(step.node).by_output or not vanishes_at_zero(step.node):
            return {step.node}
        return {step.active[0]} if facts(step.node).ratio else {step.node, step.active[0]}

    def look_up(self, step: Step) -> tuple[float, float]:
        return _at_zero(step.node)

    def forward(self, call: Call) -> Any:
        in_place = facts(call.node).in_place
        if in_place is not None and call.context.may_overwrite(call.active[0]):
            return in_place(call.value(call.active[0]))
        return call.run()

    def backward(self, call: Call, message: Message) -> Messages:
        if message.c is None:
            return [message]
        if call.step.known[0] != 0:
            return [Message(r=message.relevance(call.output))]
        return [Message(self._ratio(call, message.c), message.r)]

    def _ratio(self, call: Call, c: Tensor) -> Tensor:
        """c * f(x) / x"""
        known = facts(call.node)
        if known.by_output is not None:
            return known.by_output(c, call.output)
        x = call.context.accumulate(call.value(call.active[0]))
        if x.is_complex() and call.node.target is aten.abs.default:
            return c * torch.sgn(x)  # |z| is homogeneous: gradient x input is exact
        if known.ratio is not None:
            multiply = self.in_place(call) or torch.mul
            return multiply(known.ratio(x, *list(arguments(call.node).values())[1:]), c)
        return c * torch.where(x == 0, call.step.known[1], call.output / torch.where(x == 0, 1, x))


@dataclass(frozen=True)
class Unmasked(Identity):
    """A ReLU behind an operation whose rule multiplies by the ReLU's output: that does what its mask would do."""

    def __str__(self) -> str:
        return str(Identity())

    def saves(self, step: Step) -> set[Node]:
        return set()

    def backward(self, call: Call, message: Message) -> Messages:
        return [message]


def _relu(c: Tensor, y: Tensor) -> Tensor:
    return aten.threshold_backward(c, y, 0) if c.dtype == y.dtype else c * (y > 0)


def _gelu(x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        k = math.sqrt(2 / math.pi)
        t = x.square().mul_(0.044715 * k).add_(k).mul_(x).tanh_()
    else:
        t = x.mul(math.sqrt(0.5)).erf_()
    return t.add_(1).mul_(0.5)


def vanishes_at_zero(node: Node) -> bool:
    """Whether f(0) = 0 for this call of an activation."""
    return _at_zero(node)[0] == 0


def _at_zero(node: Node) -> tuple[float, float]:
    """f(0), and the limit of f(x)/x at zero, which is f'(0); zero where it is not finite."""
    given = arguments(node)
    x, *others = (name for name, value in given.items() if isinstance(value, Node))
    if others:
        return (0.0, 0.0)  # a learned slope (PReLU): f(0) = 0
    return _evaluate_at_zero(node.target, x, tuple((name, value) for name, value in given.items() if name != x))


@lru_cache(maxsize=512)
def _evaluate_at_zero(target: Any, name: str, options: tuple[tuple[str, Any], ...]) -> tuple[float, float]:
    with torch.enable_grad():
        x = torch.zeros((), dtype=torch.float64, requires_grad=True)
        y = target(**{name: x, **dict(options)})
        (slope,) = torch.autograd.grad(y, x)
    return float(y.detach()), float(slope) if torch.isfinite(slope) else 0.0


IDENTITY = Identity()


def _if_bounded(low: str, high: str) -> Callable[[Node], Sign]:
    """Between bounds that are not negative, nothing is; and nothing that is not negative becomes so."""

    def sign(node: Node) -> Sign:
        least, most = argument(node, low), argument(node, high)
        fixed = isinstance(least, (int, float)) and least >= 0 and (most is None or most >= 0)
        return NONNEGATIVE if fixed else KEEPS

    return sign


def _of_power(node: Node) -> Sign:
    exponent = argument(node, "exponent")
    return NONNEGATIVE if isinstance(exponent, (int, float)) and exponent % 2 == 0 else KEEPS


def _of_softplus(node: Node) -> Sign:
    """Beyond its threshold it is the identity."""
    return NONNEGATIVE if argument(node, "beta") > 0 and argument(node, "threshold") >= 0 else ANY


def _register(*operations: Any, **known: Any) -> None:
    register("activation", IDENTITY, *operations, fresh=True, pointwise=True, **known)


_register(aten.relu.default, sign=NONNEGATIVE, by_output=_relu, in_place=torch.relu_)
_register(aten.silu.default, sign=KEEPS, ratio=torch.sigmoid)
_register(aten.gelu.default, sign=KEEPS, ratio=_gelu)
_register(aten.hardswish.default, sign=KEEPS, ratio=torch.nn.functional.hardsigmoid)
_register(aten.mish.default, sign=KEEPS, ratio=lambda x: torch.tanh(torch.nn.functional.softplus(x)))
_register(aten.leaky_relu.default, sign=KEEPS, ratio=lambda x, slope: torch.full_like(x, slope).masked_fill(x > 0, 1))
_register(aten.square.default, sign=NONNEGATIVE, ratio=torch.clone)
_register(aten.rrelu.default, sign=KEEPS, random=("training",))
register("activation", IDENTITY, aten.prelu.default, fresh=True, sign=KEEPS)  # a slope for every channel
register("activation", IDENTITY, written_activation)
register("activation", IDENTITY, fake_quantised)
_register(aten.fake_quantize_per_tensor_affine.default)
_register(aten.hardtanh.default, sign=_if_bounded("min_val", "max_val"), gate=0)
_register(aten.tanh.default, sign=KEEPS, gate=0)
_register(aten.sigmoid.default, aten.hardsigmoid.default, sign=NONNEGATIVE, gate=2)
_register(aten.clamp.default, sign=_if_bounded("min", "max"))
_register(aten.clamp_min.default, sign=_if_bounded("min", "min"))
_register(aten.threshold.default, sign=_if_bounded("threshold", "value"))
_register(aten.pow.Tensor_Scalar, sign=_of_power)
_register(aten.pow.Scalar, sign=lambda node: NONNEGATIVE if argument(node, "self") >= 0 else ANY)
_register(aten.softplus.default, sign=_of_softplus)
_register(
    aten.relu6.default,
    aten.exp.default,
    aten.exp2.default,
    aten.sqrt.default,
    aten.abs.default,
    aten.cosh.default,
    aten.acosh.default,
    aten.acos.default,
    aten.erfc.default,
    sign=NONNEGATIVE,
)
_register(
    aten._prelu_kernel.default,
    aten.elu.default,
    aten.selu.default,
    aten.celu.default,
    aten.softshrink.default,
    aten.hardshrink.default,
    aten.clamp_max.default,
    aten.expm1.default,
    aten.log1p.default,
    aten.atan.default,
    aten.asin.default,
    aten.sinh.default,
    aten.asinh.default,
    aten.atanh.default,
    aten.erf.default,
    aten.erfinv.default,
    aten.reciprocal.default,
    sign=KEEPS,
)
_register(
    aten.log_sigmoid.default,
    aten.log.default,
    aten.log2.default,
    aten.log10.default,
    aten.logit.default,
    aten.sin.default,
    aten.cos.default,
    aten.tan.default,
    aten.sinc.default,
    aten.lgamma.default,
    aten.digamma.default,
    aten.special_entr.default,
    aten.special_log_ndtr.default,
)
