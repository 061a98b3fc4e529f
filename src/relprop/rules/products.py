"""Products. A factor that is a constant scales; factors that are all active share the relevance equally.

With halves, ``(x1 * x2) * x3`` and ``x1 * (x2 * x3)`` give different answers: the plan shows which one a model has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RuleError
from ..graph.arguments import argument, arguments
from ..graph.facts import KEEPS, TABLE
from ..graph.ops import CONVOLUTIONS, TRANSPOSED
from .base import Call, Messages, Step, nodes_in
from .gradient import Gradient, coefficient
from .message import RELEVANCE, Form, Message, finite
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Uniform(Gradient):
    """Every active factor of a product gets the same share (AttnLRP Prop. 3.2 and 3.3: one half each).

    When to use: products of two signals; the default there.
    """

    linear: bool = True

    def __str__(self) -> str:
        return "Uniform()"

    def supports(self, step: Step) -> str | None:
        return None if step.node.target in PRODUCTS else "it shares relevance among the factors of a product"

    def without_gaps(self, value: Tensor) -> Tensor:
        return finite(value)

    def constants(self, step: Step) -> list[Node]:
        # a constant factor only scales: it has no share; a bias beside the product has one
        beside = argument(step.node, "bias") if step.node.target in WEIGHTED else None
        return [beside] if isinstance(beside, Node) and beside not in step.active else []

    def factor(self, step: Step, node: Node) -> float:
        if step.node.target in WITHIN:
            values = step.active[0].meta["val"].numel() / max(1, step.node.meta["val"].numel())
            return 1.0 / max(1.0, float(values))
        factors = sum(n in step.active for n in nodes_in(list(arguments(step.node).values())))  # x * x has two
        return 1.0 / max(1, factors)

    # -- x * y, element by element: written out, since autograd's bookkeeping would take longer than the product -------

    def signals(self, step: Step) -> list[tuple[Node, Any]]:
        """The factors of x * y that get relevance, each with what it is multiplied by."""
        x, y = arguments(step.node).values()
        return [(n, other) for n, other in ((x, y), (y, x)) if n in step.active]

    def saves(self, step: Step) -> set[Node]:
        if not _elementwise(step.node):
            of_nothing = step.accounting and step.node.target in WITHIN
            return super().saves(step) | ({step.node} if of_nothing else set())
        return {n for _, n in self.signals(step) if isinstance(n, Node)} | ({step.node} if step.form.r else set())

    def forward(self, call: Call) -> Any:
        return call.run() if _elementwise(call.node) else super().forward(call)

    def backward(self, call: Call, message: Message) -> Messages:
        if not _elementwise(call.node):
            if call.node.target in WITHIN and not call.shape(call.active[0]).numel():  # the product of nothing is 1
                call.book("constant", lambda: message.relevance(call.output))
            return super().backward(call, message)
        c = coefficient(call, message)
        signals = self.signals(call.step)
        if (factor := self.factor(call.step, call.active[0])) != 1:
            c = c * factor
        sent: dict[Node, Message] = {}
        for node, other in signals:
            part = Message((c * call.value(other)).sum_to_size(call.shape(node)))
            sent[node] = sent[node].plus(part) if node in sent else part
        return [sent[node] for node in call.active]


@dataclass(frozen=True)
class Signal(Uniform):
    """All relevance to one factor, the signal; the others only gate it (Arras et al. 2017, "signal-take-all").

    When to use: products of gate and signal, as in recurrent cells and gated layers.

    Args:
        position: which argument of the product is the signal, 0 or 1.

    Raises:
        RuleError: if the position is neither.
    """

    position: int = 0

    def __post_init__(self) -> None:
        if self.position not in (0, 1):
            raise RuleError(f"Signal: position must be 0 or 1, got {self.position!r}")

    def __str__(self) -> str:
        return f"Signal({self.position})"

    def carries(self, step: Step, node: Node) -> bool:
        return node is argument(step.node, self.position)

    def signals(self, step: Step) -> list[tuple[Node, Any]]:
        x, y = arguments(step.node).values()
        pairs: list[tuple[Any, Any]] = [(x, y), (y, x)]
        return pairs[self.position : self.position + 1]

    def factor(self, step: Step, node: Node) -> float:
        return 1.0


@dataclass(frozen=True)
class Quotient(Uniform):
    """x / y: the divisor is a scale, held constant; all relevance goes to the dividend. If that is a constant, to y.

    When to use: divisions by something that depends on the input; the default there.
    """

    def __str__(self) -> str:
        return "Quotient()"

    def supports(self, step: Step) -> str | None:
        return None if step.kind == "quotient" else "it is meant for divisions"

    def carries(self, step: Step, node: Node) -> bool:
        dividend, divisor = argument(step.node, 0), argument(step.node, 1)
        return node is (dividend if dividend in step.active else divisor)

    def factor(self, step: Step, node: Node) -> float:
        return 1.0

    def form(self, step: Step) -> Form:
        return super().form(step) if _has_dividend(step) else RELEVANCE

    def saves(self, step: Step) -> set[Node]:
        return super().saves(step) if _has_dividend(step) else {step.node} if step.form.c else set()

    def forward(self, call: Call) -> Any:
        return super().forward(call) if _has_dividend(call.step) else call.run()

    def backward(self, call: Call, message: Message) -> Messages:
        if _has_dividend(call.step):
            return super().backward(call, message)
        relevance = message.relevance(call.output if message.c is not None else None)  # as through 1 / y
        return [Message(r=relevance.sum_to_size(call.shape(node))) for node in call.active]


def _has_dividend(step: Step) -> bool:
    return argument(step.node, 0) in step.active


UNIFORM = Uniform()


def _elementwise(node: Node) -> bool:
    value = node.meta.get("val")
    return node.target is aten.mul.Tensor and isinstance(value, Tensor) and not value.dtype.is_complex


WITHIN = {aten.prod.default, aten.prod.dim_int}
"""Products of the values of one tensor."""
WEIGHTED = {aten.linear.default, *CONVOLUTIONS, *TRANSPOSED}
"""Products of an input and a weight, with a bias beside them."""

register(
    "product",
    UNIFORM,
    *WITHIN,
    *WEIGHTED,
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.mv.default,
    aten.dot.default,
    aten.einsum.default,
    aten.bilinear.default,
    aten.outer.default,
    aten.kron.default,
    fresh=True,
    sign=KEEPS,
)
register(
    "product",
    UNIFORM,
    *(aten.mul.Tensor, aten.mul.Scalar, aten.multiply.Tensor),
    fresh=True,
    pointwise=True,
    sign=KEEPS,
)
register("product", UNIFORM, aten.cross.default, aten.linalg_cross.default, fresh=True)
register(
    "quotient",
    Quotient(),
    *(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor),
    fresh=True,
    pointwise=True,
    sign=KEEPS,
)

# An image, linearly, at places that a grid says: the image is the signal, the grid has no share.
register(
    "upsample",
    Signal(),
    aten.grid_sampler.default,
    aten.grid_sampler_2d.default,
    aten.grid_sampler_3d.default,
    fresh=True,
)
# Linear in the first argument; the others (a window, ranks, weights of classes) have no share.
register(
    "structural",
    Signal(),
    aten.stft.default,
    aten.stft.center,
    aten.istft.default,
    aten.nll_loss.default,
    fresh=True,
)
register("structural", Signal(), aten.quantile.default, aten.quantile.scalar, fresh=True, sign=KEEPS)

PRODUCTS = {operation for operation, known in TABLE.items() if type(known.rule) in (Uniform, Signal)}
"""Operations whose factors share the relevance, or one of which has all of it."""
