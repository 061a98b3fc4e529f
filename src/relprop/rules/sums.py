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

from .base import Call, Messages, Rule, Step, argument_of
from .gradient import coefficient, constant_inputs, finite_product
from .message import COEFFICIENT, RELEVANCE, Form, Message
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Sum(Rule):
    """z = x + y: R_x = x/z R, R_y = y/z R, without the division (Bach et al. 2015, Eq. 56)."""

    def form(self, step: Step) -> Form:
        return RELEVANCE if _keeps_all(step) else COEFFICIENT

    def saves(self, step: Step) -> set[Node]:
        saved = {step.node} if step.form.r or _keeps_all(step) else set()
        return saved | (set(constant_inputs(step)) if step.accounting else set())

    def backward(self, call: Call, message: Message) -> Messages:
        step = call.step
        if _keeps_all(step):
            # a single input: without the bias, or with the bias' share handed to it, it has all the relevance
            relevance = message.relevance(call.output if message.c is not None else None)
            return [Message(r=_sum_to(relevance, call.shape(step.active[0])))]
        c = coefficient(call, message)
        sent: dict[Node, Tensor] = {}
        for term, k in terms(step.node):
            share = c if k == 1 else c * k
            if term in step.active:
                part = _sum_to(share, call.shape(term))
                sent[term] = sent[term] + part if term in sent else part
            elif step.accounting:
                kind = "bias" if _is_bias(term) else call.context.reason_for(term)
                call.book(kind, lambda t=term, s=share: finite_product(call.value(t), s))  # type: ignore[misc]
        return [Message(sent[n]) for n in step.active]


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
