"""Operations that put values in places: every value of the result is one that entered, or a fixed number.

Which one it is, also where an index names a place twice, is asked of the operation itself: it is run once more, on the
numbers of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.facts import KEEPS
from ..graph.graph import holds_numbers
from .base import Call, Messages, Rule, Step
from .gradient import LINEAR, relevance_of
from .message import Form, Message
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Placement(Rule):
    """Every value gets back what arrives in its places; constants and fixed numbers in the others keep it."""

    moves = True

    def __str__(self) -> str:
        return "linear"

    def saves(self, step: Step) -> set[Node]:
        values = _values(step)
        saved = {n for n in step.node.all_input_nodes if n not in values}  # what says where to
        if step.accounting:
            saved |= {step.node, *(n for n in values if n not in step.active)}
        return saved

    def backward(self, call: Call, message: Message) -> Messages:
        values = _values(call.step)
        places = _places(call, values, next(m.device for m in message if m is not None))
        c, r = ({} if m is None else _gather(call, m, places, values) for m in message)
        sent = {n: Message(c.get(n), r.get(n)) for n in values}
        for node in values:
            if node not in call.active:
                reason = call.context.reason_for(node)
                call.book(reason, lambda n=node: relevance_of(call.value(n), sent[n]), node=node)  # type: ignore[misc]
        if call.context.keeps_books and bool((fixed := places == 0).any()):
            call.book("constant", lambda: torch.where(fixed, relevance_of(call.output, message), 0))
        return [sent[node] for node in call.active]


def _values(step: Step) -> list[Node]:
    """The inputs whose values are put somewhere; the others, which say where, are integers."""
    return [n for n in step.node.all_input_nodes if holds_numbers(n)]


def _places(call: Call, values: Sequence[Node], device: torch.device) -> Tensor:
    """The number of the value in every place of the result; zero where there is a fixed number."""
    numbered: dict[Node, Tensor] = {}
    first = 1
    for node in values:
        shape = call.shape(node)
        numbers = torch.arange(first, first + shape.numel(), device=device)
        # double precision is exact up to 10^15, which not every accelerator has
        numbered[node] = numbers.to(torch.float32 if device.type == "mps" else torch.float64).reshape(shape)
        first += shape.numel()
    places: Tensor = call.run(numbered)
    opposite = call.run({n: -v for n, v in numbered.items()})
    return torch.where(places == opposite, 0, places).long()


def _gather(call: Call, m: Tensor, places: Tensor, values: Sequence[Node]) -> dict[Node, Tensor]:
    """What arrived in the places of each value, in the shapes of the tensors that hold them."""
    sizes = [call.shape(n).numel() for n in values]
    total = m.new_zeros(1 + sum(sizes)).index_add(0, places.flatten(), m.flatten())
    parts = total[1:].split(sizes)
    return {n: part.reshape(call.shape(n)) for n, part in zip(values, parts, strict=True)}


@dataclass(frozen=True)
class Put(Rule):
    """``index_put``: values are put in places, or added to what is there."""

    moves = True

    def __str__(self) -> str:
        return "linear"

    def _rule(self, step: Step) -> Rule:
        return LINEAR if argument(step.node, "accumulate") else PLACEMENT

    def form(self, step: Step) -> Form:
        return self._rule(step).form(step)

    def saves(self, step: Step) -> set[Node]:
        return self._rule(step).saves(step)

    def forward(self, call: Call) -> object:
        return self._rule(call.step).forward(call)

    def backward(self, call: Call, message: Message) -> Messages:
        return self._rule(call.step).backward(call, message)


PLACEMENT = Placement()

register("structural", Put(), aten.index_put.default, fresh=True, sign=KEEPS)
register(
    "structural",
    PLACEMENT,
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.diagonal_scatter.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.masked_scatter.default,
    aten.max_unpool2d.default,
    aten.max_unpool3d.default,
    fresh=True,
    sign=KEEPS,
)
