"""Sums: both summands get the same coefficient; a constant summand keeps its share.

A number, or a vector of parameters, is a bias and follows the bias policy. A larger parameter acts as an input (a
position embedding), and what depends on the sample is never a bias, whatever its shape: their shares are booked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import arguments
from ..graph.facts import KEEPS
from .base import Call, Messages, Rule, Step
from .gradient import coefficient, finite_product
from .message import COEFFICIENT, RELEVANCE, Form, Message
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Sum(Rule):
    """z = x + y: R_x = x/z R, R_y = y/z R, without the division (Bach et al. 2015, Eq. 56).

    When to use: sums and residual connections; the default there. ``Norm`` if branches cancel.
    """

    def form(self, step: Step) -> Form:
        return RELEVANCE if _keeps_all(step) else COEFFICIENT

    def saves(self, step: Step) -> set[Node]:
        saved = {step.node} if step.form.r or _keeps_all(step) else set()
        summands = terms(step.node)
        saved |= {k for _, _, k in summands if isinstance(k, Node)}
        if step.accounting:
            saved |= {t for t, _, _ in summands if isinstance(t, Node) and t not in step.active}
        return saved

    def backward(self, call: Call, message: Message) -> Messages:
        step = call.step
        if _keeps_all(step):
            # a single input: without the bias, or with the bias' share handed to it, it has all the relevance
            relevance = message.relevance(call.output if message.c is not None else None)
            return [Message(r=_sum_to(relevance, call.shape(step.active[0])))]
        c = coefficient(call, message)
        sent: dict[Node, Tensor] = {}
        for term, sign, factor in terms(step.node):
            k = sign * call.value(factor)
            share = c if k == 1 else c * k
            if term in step.active:
                part = _sum_to(share, call.shape(term))
                if part.is_complex() and not _is_complex(term):
                    part = part.real
                sent[term] = sent[term] + part if term in sent else part
            elif step.accounting:
                kind = "bias" if _is_bias(step, term) else call.context.reason_for(term)
                call.book(kind, lambda t=term, s=share: finite_product(call.value(t), s))  # type: ignore[misc]
        return [Message(sent[n]) for n in step.active]


def _biases(step: Step) -> list[Any]:
    """The summands that are numbers, or vectors of parameters."""
    return [t for t, _, _ in terms(step.node) if t not in step.active and _is_bias(step, t)]


def _is_bias(step: Step, term: Any) -> bool:
    if not isinstance(term, Node):
        return True
    shape = getattr(term.meta.get("val"), "shape", ())
    return term in step.constants and sum(n != 1 for n in shape) <= 1


def _keeps_all(step: Step) -> bool:
    """Whether the only active summand takes over the bias' share."""
    return step.bias != "absorb" and len(step.active) == 1 and len(_biases(step)) == 1 and len(terms(step.node)) == 2


def terms(node: Node) -> list[tuple[Any, int, Any]]:
    """The summands of a node, each with a sign and a factor."""
    x, y, alpha = arguments(node).values()
    if node.target in (aten.rsub.Scalar, aten.rsub.Tensor):
        return [(x, -1, alpha), (y, 1, 1)]
    return [(x, 1, 1), (y, -1 if node.target in (aten.sub.Tensor, aten.sub.Scalar) else 1, alpha)]


def _is_complex(term: Node) -> bool:
    value: Tensor = term.meta["val"]
    return value.is_complex()


def _sum_to(r: Tensor, shape: torch.Size) -> Tensor:
    return r if r.shape == shape else r.sum_to_size(shape)


SUM = Sum()
register("add", SUM, aten.add.Tensor, aten.add.Scalar, fresh=True, pointwise=True, sign=KEEPS)
register(
    "add",
    SUM,
    aten.sub.Tensor,
    aten.sub.Scalar,
    aten.rsub.Scalar,
    aten.rsub.Tensor,
    fresh=True,
    pointwise=True,
)
