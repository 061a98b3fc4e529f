"""Powers, and products of all values up to each one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import arguments
from ..graph.facts import KEEPS
from .base import Call, Messages, Rule, Step
from .gradient import coefficient
from .message import RELEVANCE, Form, Message
from .products import Uniform
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Power(Rule):
    """x ** y: the exponent is held constant like a divisor, and the base has all relevance.

    An exponent over a constant base has it instead. Whether 0 ** y is zero depends on the values of y, so that it is
    relevance itself that is passed.

    When to use: powers of tensors; the default there.
    """

    def carries(self, step: Step, node: Node) -> bool:
        base, exponent = arguments(step.node).values()
        return node is (base if base in step.active else exponent)

    def form(self, step: Step) -> Form:
        return RELEVANCE

    def saves(self, step: Step) -> set[Node]:
        return {step.node} if step.form.c else set()

    def backward(self, call: Call, message: Message) -> Messages:
        relevance = message.relevance(call.output if message.c is not None else None)
        return [Message(r=relevance.sum_to_size(call.shape(node))) for node in call.active]


@dataclass(frozen=True)
class Cumulative(Uniform):
    """Every output is the product of the values up to its place, each of which gets the same share.

    When to use: ``cumprod``; the default there.
    """

    def supports(self, step: Step) -> str | None:
        return None if step.node.target is aten.cumprod.default else "it is meant for cumulative products"

    def backward(self, call: Call, message: Message) -> Messages:
        c, dim = coefficient(call, message), call.argument("dim")
        if not c.ndim:  # a single number
            return [Message(c)]
        factors = torch.arange(1, c.shape[dim] + 1, dtype=c.dtype, device=c.device)
        return super().backward(call, Message(c / _along(factors, dim, c.ndim)))

    def factor(self, step: Step, node: Node) -> float:
        return 1.0


def _along(values: Tensor, dim: int, ndim: int) -> Tensor:
    return values.reshape([-1 if d == dim % ndim else 1 for d in range(ndim)])


register("power", Power(), aten.pow.Tensor_Tensor, fresh=True, pointwise=True, sign=KEEPS)
register("cumulative product", Cumulative(), aten.cumprod.default, fresh=True, sign=KEEPS)
