"""The rule of operations that are linear in their inputs: their vector-Jacobian product, which torch knows.

With ``R = a * c`` an operation that moves, adds or averages values hands ``c`` back through its own gradient: LRP-0
without a division. The operation is run once, under autograd, cut off from its neighbours, so that autograd keeps
what its own gradient needs and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.facts import facts
from ..graph.graph import holds_numbers
from .base import Call, Messages, Rule, Step, nodes_in
from .message import COEFFICIENT, Form, Message, divide, product

aten = torch.ops.aten


class Source(torch.autograd.Function):
    """Where a local gradient ends. It holds no reference to the value, so the value can be freed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None


@dataclass(frozen=True)
class Gradient(Rule):
    """The vector-Jacobian product: exact LRP-0 for linear operations, gradient x input for any other (Eq. 56).

    For an operation that is not linear, what the gradient does not explain is booked as its remainder.

    When to use: comparison with gradient × input; also what moves or averages values.
    """

    linear: bool = False
    """The output is linear in the tensors that enter: constants among them have a share of their own."""
    fills: bool = False
    """A fixed number may take the place of values; its share is booked as a constant."""
    moves: bool = False
    """The operation only rearranges values, so relevance itself can be sent through it."""

    def __str__(self) -> str:
        return type(self).__name__ if not self.linear else "linear"

    def form(self, step: Step) -> Form:
        return step.form if self.moves else COEFFICIENT

    def saves(self, step: Step) -> set[Node]:
        saved: set[Node] = set()
        if step.form.r and not self.moves:
            saved.add(step.node)
        if step.accounting:
            saved |= set(self.constants(step))
            saved |= {step.node} if self.fills else set() if self.linear else {step.node, *step.active}
        return saved

    def constants(self, step: Step) -> list[Node]:
        """Inputs that get no relevance though they are part of the sum: their share is booked."""
        return constant_inputs(step) if self.linear else []

    def factor(self, step: Step, node: Node) -> float:
        """What part of the relevance an input gets when several share it."""
        return 1.0

    def rest(self, call: Call) -> str | None:
        """How relevance is booked that the gradient does not explain; None if there is none."""
        return None if self.linear else "remainder"

    # -----------------------------------------------------------------------------------------------------------------

    def forward(self, call: Call) -> Any:
        nodes = [*call.active, *(self.constants(call.step) if call.step.accounting else [])]
        with torch.enable_grad():
            sources = {n: call.context.source(self._value(call, n)) for n in nodes}
            output = call.run({**self._others(call), **sources})
        if self.fills and call.step.accounting:
            call.saved["filled"] = self._filled(call)
        call.saved["inputs"] = {n: get_gradient_edge(v) for n, v in sources.items()}
        outputs = output if isinstance(output, (tuple, list)) else [output]
        call.saved["outputs"] = [
            (get_gradient_edge(o), o.dtype) if isinstance(o, Tensor) and o.requires_grad else None for o in outputs
        ]
        if call.context.guarded:  # the gradient is that of other values than the output
            with torch.no_grad():
                output = call.run()
        return torch.utils._pytree.tree_map_only(Tensor, call.context.detach, output)

    def _value(self, call: Call, node: Node) -> Tensor:
        """An input; a constant that is broadcast is written out, so that every sample has its own share of it."""
        value: Tensor = call.value(node)
        if call.context.guarded:
            value = self.without_gaps(value)
        if node in call.active:
            return value
        if not holds_numbers(node):
            value = value.to(call.value(call.active[0]).dtype)
        if not facts(call.node).pointwise:
            return value
        tensors = [call.value(n) for n in call.node.all_input_nodes]
        return value.expand(torch.broadcast_shapes(*(t.shape for t in tensors if isinstance(t, Tensor))))

    def _others(self, call: Call) -> dict[Node, Tensor]:
        """Other values than those of the run, for inputs that the gradient is not taken of."""
        if not call.context.guarded:
            return {}
        return {n: self.without_gaps(call.value(n)) for n in call.node.all_input_nodes if holds_numbers(n)}

    def without_gaps(self, value: Tensor) -> Tensor:
        """What the gradient is taken at, in the place of values that are NaN. Infinite ones may have a meaning."""
        return torch.where(value.isnan(), 0, value)

    def _filled(self, call: Call) -> list[Any]:
        """Where in each output a fixed number is: what enters makes no difference there."""
        zeros, ones = (
            torch.utils._pytree.tree_leaves(call.run({n: torch.full_like(call.value(n), k) for n in call.active}))
            for k in (0, 1)
        )
        return [z == o if isinstance(o, Tensor) else None for z, o in zip(zeros, ones, strict=True)]

    def backward(self, call: Call, message: Message) -> Messages:
        messages = call.messages or {0: message}
        booked = self.constants(call.step) if call.step.accounting else []
        if not self.moves:
            messages = {i: Message(coefficient(call, m, i)) for i, m in messages.items()}
        twice = any(m.c is not None for m in messages.values()) and any(m.r is not None for m in messages.values())
        # a factor that several inputs have in common is multiplied in once, before the way back
        common = 1.0 if booked else min((self.factor(call.step, n) for n in call.active), default=1.0)
        shared = messages if common == 1 else {i: m.scaled(common) for i, m in messages.items()}
        c = self._pull_back(call, {i: m.c for i, m in shared.items()}, again=twice)
        r = self._pull_back(call, {i: m.r for i, m in shared.items()})
        for node in booked:
            if share := Message(c.get(node), r.get(node)):
                reason = call.context.reason_for(node)
                shown = call.node if facts(call.node).pointwise else node
                call.book(reason, lambda n=node, s=share: relevance_of(call.value(n), s), node=shown)  # type: ignore[misc]
        if self.fills and call.step.accounting:
            self._book_filled(call, messages)
        sent = []
        for node in call.active:
            factor = self.factor(call.step, node) / common
            part = Message(c.get(node), r.get(node))
            sent.append(part if factor == 1 else part.scaled(factor))
        if (rest := self.rest(call)) is not None:
            self._book_remainder(call, rest, messages, sent)
        return sent

    def _pull_back(self, call: Call, gradients: dict[int, Tensor | None], again: bool = False) -> dict[Node, Tensor]:
        edges, given = [], []
        for i, g in gradients.items():
            output = call.saved["outputs"][i]
            if g is not None and output is not None:
                edge, dtype = output
                edges.append(edge)
                given.append(g.to(dtype))
        nodes, inputs = list(call.saved["inputs"]), list(call.saved["inputs"].values())
        if not edges or not nodes:
            return {}
        run = call.context
        keep = run.retain or again or None
        pulled = torch.autograd.grad(
            edges, inputs, given, retain_graph=keep, create_graph=run.differentiable, allow_unused=True
        )
        found = {n: run.accumulate(g) for n, g in zip(nodes, pulled, strict=True) if g is not None}
        return {n: torch.where(g.isnan(), 0, g) for n, g in found.items()} if run.guarded else found

    def _book_filled(self, call: Call, messages: dict[int, Message]) -> None:
        """Book the relevance of fixed numbers."""
        for i, m in messages.items():
            value, shown = _output(call, i)

            def kept(m: Message = m, value: Tensor = value, filled: Tensor = call.saved["filled"][i]) -> Tensor:
                return torch.where(filled, relevance_of(value, m), 0)

            call.book("constant", kept, node=shown, place=call.node)

    def _book_remainder(self, call: Call, kind: str, messages: dict[int, Message], sent: Messages) -> None:
        """Book the relevance of the output less that of the inputs."""
        if not call.context.keeps_books:
            return
        for i, m in messages.items():
            value, shown = _output(call, i)
            call.book(kind, lambda m=m, v=value: relevance_of(v, m), node=shown, place=call.node)  # type: ignore[misc]
        for node, m in zip(call.active, sent, strict=True):
            if m:
                call.book(kind, lambda m=m, n=node: -relevance_of(call.value(n), m), node=node)  # type: ignore[misc]


def coefficient(call: Call, message: Message, index: int = 0) -> Tensor:
    """The message as a coefficient alone; what the division by a vanishing activation loses is booked."""
    if message.r is None:
        assert message.c is not None
        return message.c
    output = call.output
    several = isinstance(output, (tuple, list))
    a = call.context.accumulate(output[index] if several else output)
    c = divide(message.r, a)
    if not several:
        call.book("conversion", lambda: message.r - product(a, c))  # type: ignore[operator]
    return c if message.c is None else c + message.c


def _output(call: Call, index: int) -> tuple[Tensor, Node]:
    """One of an operation's outputs, and the node that is it."""
    output = call.output
    if not isinstance(output, (tuple, list)):
        return output, call.node
    return output[index], next((u for u in call.node.users if argument(u, 1) == index), call.node)


def relevance_of(a: Tensor, message: Message) -> Tensor:
    """The relevance of ``a``, where a coefficient of zero also silences an infinite activation (a mask's -inf)."""
    if message.c is None:
        return message.relevance(a)
    product = finite_product(a, message.c)
    return product if message.r is None else product + message.r


def finite_product(a: Tensor, c: Tensor) -> Tensor:
    """``a * c``, where a coefficient of zero also silences an infinite activation (a mask's -inf)."""
    return torch.where(c == 0, 0, product(a, c))


def constant_inputs(step: Step) -> list[Node]:
    """Inputs of a step that get no relevance, though they are part of the sum.

    Integers and truths are no numbers but indices, masks and the like, unless torch makes numbers of them.
    """
    node = step.node
    numbers = set(filter(holds_numbers, node.all_input_nodes))
    numbers.update(n for name in PROMOTING.get(node.target, ()) for n in nodes_in(argument(node, name)))
    return [n for n in node.all_input_nodes if n in numbers and n not in step.active]


PROMOTING: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((aten.maximum.default, aten.minimum.default, aten.max.other, aten.min.other), ("self", "other")),
    **dict.fromkeys((aten.fmax.default, aten.fmin.default, aten.hypot.default), ("self", "other")),
    aten.where.self: ("self", "other"),
    aten.masked_fill.Tensor: ("value",),
    aten.cat.default: ("tensors",),
    aten.stack.default: ("tensors",),
}
"""Operations that bring their tensors to one type, and which arguments these are."""

LINEAR = Gradient(linear=True)


MOVES = Gradient(linear=True, moves=True)
FILLS = Gradient(linear=True, moves=True, fills=True)
