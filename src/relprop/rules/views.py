"""Views: operations that rearrange values. Relevance is rearranged back.

The way back is the operation's own vector-Jacobian product, as for every linear operation (structural.py). It is
another view, which is written out here: autograd's bookkeeping would take longer than the view itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..graph.arguments import argument, arguments
from ..graph.facts import KEEPS, TABLE
from .base import Call, Messages, Rule, Step
from .gradient import Gradient, constant_inputs
from .message import Message
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class View(Rule):
    """R_in is R_out in the places it came from.

    When to use: reshaping, slicing and transposing; the default there.
    """

    moves = True

    def __str__(self) -> str:
        return "linear"

    def backward(self, call: Call, message: Message) -> Messages:
        back = TABLE[call.node.target].back
        assert back is not None
        _, *rest = arguments(call.node).values()
        return [
            Message(
                *(None if m is None else back(m, call.shape(call.active[0]), *map(call.value, rest)) for m in message)
            )
        ]


def _reshape(m: Tensor, shape: torch.Size, *_: Any) -> Tensor:
    return m.reshape(shape)


def _expand(m: Tensor, shape: torch.Size, *_: Any) -> Tensor:
    return m.sum_to_size(shape)


def _permute(m: Tensor, shape: torch.Size, dims: list[int]) -> Tensor:
    return m.permute(sorted(range(m.ndim), key=lambda d: dims[d] % m.ndim))


def _select(m: Tensor, shape: torch.Size, dim: int, index: int) -> Tensor:
    return aten.select_backward.default(m, shape, dim, index)


def _slice(m: Tensor, shape: torch.Size, dim: int, start: Any, end: Any, step: int) -> Tensor:
    low, high = 0 if start is None else start, shape[dim] if end is None else end
    return aten.slice_backward.default(m, shape, dim, low, high, step)


VIEW = View()

register(
    "structural",
    VIEW,
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    back=_reshape,
    in_order=True,
    sign=KEEPS,
)
register("structural", VIEW, aten.expand.default, sign=KEEPS, back=_expand)
register("structural", VIEW, aten.permute.default, sign=KEEPS, back=_permute)
register("structural", VIEW, aten.transpose.int, sign=KEEPS, back=lambda m, shape, i, j: m.transpose(i, j))
register("structural", VIEW, aten.t.default, sign=KEEPS, back=lambda m, shape: m.t())
register("structural", VIEW, aten.mT.default, sign=KEEPS, back=lambda m, shape: m.mT)
register("structural", VIEW, aten.select.int, sign=KEEPS, back=_select)
register("structural", VIEW, aten.slice.Tensor, sign=KEEPS, back=_slice)


@dataclass(frozen=True)
class Negation(Rule):
    """-x has the relevance of x: only the coefficient changes its sign."""

    def __str__(self) -> str:
        return "linear"

    def backward(self, call: Call, message: Message) -> Messages:
        return [Message(None if message.c is None else -message.c, message.r)]


@dataclass(frozen=True)
class Concatenation(Gradient):
    """Every part gets back what is its own. Parts that are constants have a share, which is booked."""

    linear: bool = True
    moves: bool = True

    def forward(self, call: Call) -> Any:
        return super().forward(call) if _has_constants(call.step) else call.run()

    def backward(self, call: Call, message: Message) -> Messages:
        if _has_constants(call.step):
            return super().backward(call, message)
        parts, dim = argument(call.node, "tensors"), call.argument("dim")
        sizes = [call.shape(n)[dim] for n in parts]
        sent: dict[Any, Message] = {}
        for i, node in enumerate(parts):
            start = sum(sizes[:i])
            piece = Message(*(None if m is None else m.narrow(dim, start, sizes[i]) for m in message))
            sent[node] = sent[node].plus(piece) if node in sent else piece
        return [sent[node] for node in call.active]


def _has_constants(step: Step) -> bool:
    """Also an empty tensor, which torch.cat takes whatever its shape."""
    parts = argument(step.node, "tensors")
    return bool(constant_inputs(step)) or any(n.meta["val"].ndim != step.node.meta["val"].ndim for n in parts)


register("structural", Negation(), aten.neg.default, fresh=True, pointwise=True)
register("structural", Concatenation(), aten.cat.default, fresh=True, sign=KEEPS)
