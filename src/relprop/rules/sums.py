"""Sums: both summands get the same coefficient; a constant summand keeps its share.

A constant that is a single number or a vector is a bias and follows the bias policy; any other is a parameter that
acts as an input (a position embedding), whose share is booked under its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..message import RELEVANCE, Form, Message
from .base import Call, Messages, Step, argument_of, register
from .structural import Gradient

aten = torch.ops.aten


@dataclass(frozen=True)
class Sum(Gradient):
    """z = x + y: R_x = x/z R, R_y = y/z R, without the division (Bach et al. 2015, Eq. 56)."""

    linear: bool = True

    def form(self, step: Step) -> Form:
        return RELEVANCE if _keeps_all(step) else super().form(step)

    def saves(self, step: Step) -> set[Node]:
        if _keeps_all(step):
            return {step.node}
        return super().saves(step)

    def forward(self, call: Call) -> Any:
        return call.run() if _keeps_all(call.step) else super().forward(call)

    def backward(self, call: Call, message: Message) -> Messages:
        if _keeps_all(call.step):
            # a single input: without the bias, or with the bias' share handed to it, it has all the relevance
            relevance = message.relevance(call.output)
            return [Message(r=_sum_to(relevance, call.shape(call.active[0])))]
        sent = super().backward(call, message)
        for constant, coefficient in _biases(call.step):
            if isinstance(constant, Node):
                continue  # booked by its own gradient, like every constant input
            z = call.run_state.shapes[call.node]
            c = message.c if message.r is None else self._coefficient(call, 0, message).c
            assert c is not None
            call.book("bias", lambda c=c, k=constant * coefficient: (c * k).expand(z))  # type: ignore[misc]
        return sent


    def constant_kind(self, call: Call, node: Node) -> str:
        return "bias" if _is_bias(node) else super().constant_kind(call, node)


def _biases(step: Step) -> list[tuple[Any, float]]:
    """The constant summands that are numbers or vectors, with their coefficients."""
    return [(t, k) for t, k in terms(step.node) if t not in step.active and _is_bias(t)]


def _is_bias(term: Any) -> bool:
    if not isinstance(term, Node):
        return True
    value = term.meta.get("val")
    return isinstance(value, Tensor) and sum(n != 1 for n in value.shape) <= 1


def _keeps_all(step: Step) -> bool:
    """Whether the only active summand takes over the bias' share."""
    return step.bias != "absorb" and len(step.active) == 1 and len(_biases(step)) == 1 and len(terms(step.node)) == 2


def terms(node: Node) -> list[tuple[Any, float]]:
    """The summands of a node and their coefficients."""
    alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    x, y = argument_of(node, 0, "self"), argument_of(node, 1, "other")
    if not isinstance(alpha, (int, float)):
        alpha = 1.0
    if node.target in (aten.rsub.Scalar, aten.rsub.Tensor):
        return [(x, -alpha), (y, 1.0)]
    return [(x, 1.0), (y, -alpha if node.target in (aten.sub.Tensor, aten.sub.Scalar) else alpha)]


def _sum_to(r: Tensor, shape: torch.Size) -> Tensor:
    return r if r.shape == shape else r.sum_to_size(shape)


register(
    "add",
    Sum(),
    aten.add.Tensor,
    aten.add.Scalar,
    aten.sub.Tensor,
    aten.sub.Scalar,
    aten.rsub.Scalar,
    aten.rsub.Tensor,
)
