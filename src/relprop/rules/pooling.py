"""Pooling. Averages are linear; the maximum goes to the winner, or is shared in proportion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import ANY, KEEPS, TABLE, Sign
from .base import Call, Messages, Rule, Step
from .gradient import LINEAR, Gradient
from .layers import LAYER_KINDS
from .linear import Epsilon
from .message import COEFFICIENT, Form, Message, product, share, sign, stabilise, stabiliser
from .neurons import check_number
from .table import register

aten = torch.ops.aten

AVERAGE_OF: dict[Any, Callable[..., Tensor]] = {
    aten.max_pool1d.default: torch.nn.functional.avg_pool1d,
    aten.max_pool2d.default: torch.nn.functional.avg_pool2d,
    aten.max_pool3d.default: torch.nn.functional.avg_pool3d,
}


@dataclass(frozen=True)
class Average(Gradient):
    """Every value of a window gets its part of what the average gets.

    Of a whole image that is the same for all, which is written out: autograd's bookkeeping would take longer.
    """

    linear: bool = True

    def forward(self, call: Call) -> Any:
        return call.run() if _of_everything(call.node) else super().forward(call)

    def _pull_back(self, call: Call, gradients: dict[int, Tensor | None], again: bool = False) -> dict[Node, Tensor]:
        if not _of_everything(call.node):
            return super()._pull_back(call, gradients, again)
        (x,), (c,) = call.active, gradients.values()
        shape = call.shape(x)
        count = math.prod(shape[-len(argument(call.node, "output_size")) :])
        return {} if c is None else {x: (c / count).expand(shape)}


def _of_everything(node: Node) -> bool:
    return all(n == 1 for n in argument(node, "output_size"))


@dataclass(frozen=True)
class WinnerTakeAll(Gradient):
    """The maximum of a window gets all of its relevance; at ties the one that torch picks.

    When to use: max pooling; the default there.
    """

    linear: bool = True
    moves: bool = True

    def __str__(self) -> str:
        return "WinnerTakeAll()"

    def supports(self, step: Step) -> str | None:
        return None if isinstance(TABLE[step.node.target].rule, WinnerTakeAll) else "it is meant for max pooling"

    def constants(self, step: Step) -> list[Node]:
        return []  # where windows begin may be a tensor of random numbers, which is part of no sum


@dataclass(frozen=True)
class Proportional(Rule):
    """Max pooling explained like a sum: R_j = a_j / Σ_window a R, every value of the window has its share.

    When to use: max pooling, for smoother maps than those of the winner alone.

    Args:
        stabilizer: added to the denominator with its sign.
    """

    stabilizer: float = 1e-6

    def __post_init__(self) -> None:
        check_number(self, "stabilizer", self.stabilizer)

    def supports(self, step: Step) -> str | None:
        if step.node.target not in AVERAGE_OF:
            return "it is meant for max pooling"
        return None if _dilation(step.node) == 1 else "a dilated maximum has no average of the same window"

    def form(self, step: Step) -> Form:
        return COEFFICIENT

    def saves(self, step: Step) -> set[Node]:
        return {step.node} if step.form.c else set()

    def forward(self, call: Call) -> Any:
        x, kernel, stride, padding, _, ceil_mode = map(call.value, arguments(call.node).values())
        with torch.enable_grad():
            source = call.context.source(x)
            average = AVERAGE_OF[call.node.target](source, kernel, stride or None, padding, ceil_mode)
            window = float(torch.tensor(kernel).prod()) if len(kernel) > 1 else float(kernel[0]) ** (average.ndim - 2)
            total = average * window
        call.saved.update(edge=get_gradient_edge(total), source=get_gradient_edge(source), total=total.detach())
        return call.run()

    def backward(self, call: Call, message: Message) -> Messages:
        relevance = message.relevance(call.output if message.c is not None else None)
        total = call.context.accumulate(call.saved["total"])
        s = relevance / stabilise(total, self.stabilizer or stabiliser(total.dtype))
        call.book("stabiliser", lambda: relevance - s * total)
        (c,) = torch.autograd.grad(
            [call.saved["edge"]],
            [call.saved["source"]],
            [s.to(call.saved["total"].dtype)],
            retain_graph=call.context.retain or None,
            create_graph=call.context.differentiable,
        )
        return [Message(c=call.context.accumulate(c))]


@dataclass(frozen=True)
class Stabilised(Rule):
    """Sums and averages in proportion to their terms, with a stabiliser: R_j = a_j / (Σ a + ε sign) R."""

    stabilizer: float
    plain: Rule
    """The rule of the operation without the stabiliser."""
    multiple_of_output = True

    def form(self, step: Step) -> Form:
        return self.plain.form(replace(step, form=COEFFICIENT))

    def saves(self, step: Step) -> set[Node]:
        return self.plain.saves(step) | {step.node}

    def forward(self, call: Call) -> Any:
        return self.plain.forward(call)

    def backward(self, call: Call, message: Message) -> Messages:
        z = call.context.accumulate(call.output)
        share_of = self.in_place(call) or type(self).share
        s = share_of(self, z, message, call.step.output_is_relu)
        call.book("stabiliser", lambda: product(sign(z), s) * self.epsilon(z))
        return self.plain.backward(call, Message(s))

    def epsilon(self, z: Tensor) -> float:
        return self.stabilizer or stabiliser(z.dtype)

    def share(self, z: Tensor, message: Message, nonnegative: bool) -> Tensor:
        """s = R / (z + ε sign z)"""
        return share(message, z, self.epsilon(z))


@dataclass(frozen=True)
class Norm(Rule):
    """Relevance in proportion to the contributions, with a stabiliser (zennit's ``Norm``): LRP-ε for linear operations,
    a_j / Σ a for sums and pooling, also for max pooling.

    When to use: sums and average pooling whose terms may cancel, and results that shall be those of zennit.

    Args:
        stabilizer: added to the denominator with its sign.
    """

    stabilizer: float = 1e-6
    multiple_of_output = True

    def __post_init__(self) -> None:
        check_number(self, "stabilizer", self.stabilizer)

    def _rule(self, step: Step) -> Rule:
        if step.kind in LAYER_KINDS:
            return Epsilon(self.stabilizer)
        if step.node.target in AVERAGE_OF:
            return Proportional(self.stabilizer)
        return Stabilised(self.stabilizer, TABLE[step.node.target].rule)

    def supports(self, step: Step) -> str | None:
        if step.kind not in (*LAYER_KINDS, "add", "maximum pool", "average pool", "structural", "upsample"):
            return "it is meant for sums, pooling and linear operations"
        if step.kind == "maximum pool" and step.node.target not in AVERAGE_OF:
            return "an adaptive or fractional maximum has no average of the same windows"
        return self._rule(step).supports(step)

    def form(self, step: Step) -> Form:
        return self._rule(step).form(step)

    def saves(self, step: Step) -> set[Node]:
        return self._rule(step).saves(step)

    def look_up(self, step: Step) -> Any:
        return self._rule(step).look_up(step)

    def forward(self, call: Call) -> Any:
        return self._rule(call.step).forward(call)

    def backward(self, call: Call, message: Message) -> Messages:
        return self._rule(call.step).backward(call, message)


def _dilation(node: Node) -> int:
    dilation: list[int] = argument(node, "dilation")
    return max(dilation)


def _by_the_divisor(node: Node) -> Sign:
    return ANY if (argument(node, "divisor_override") or 1) < 0 else KEEPS


register(
    "maximum pool",
    WinnerTakeAll(),
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool1d_with_indices.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
    aten.fractional_max_pool2d.default,
    aten.fractional_max_pool3d.default,
    fresh=True,
    sign=KEEPS,
)
register("average pool", LINEAR, aten.avg_pool1d.default, fresh=True, sign=KEEPS)
register(
    "average pool",
    Average(),
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
    fresh=True,
    sign=KEEPS,
)
register("average pool", LINEAR, aten.avg_pool2d.default, aten.avg_pool3d.default, fresh=True, sign=_by_the_divisor)

__all__ = ["Norm", "Proportional", "WinnerTakeAll"]
