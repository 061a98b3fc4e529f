"""Packing sequences and padding them again: values move, and those behind the end of a sequence are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError, reason_of
from ..graph.arguments import arguments
from ..graph.facts import KEEPS
from ..graph.graph import place
from ..graph.ops import PACK, PAD
from .base import Call
from .gradient import FILLS, Gradient
from .table import register

__all__ = ["Packing"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Packing(Gradient):
    """Packing moves the steps that a sequence has. Its lengths are values, so they are looked at in every run."""

    linear: bool = True
    moves: bool = True

    def forward(self, call: Call) -> Any:
        x, lengths, batch_first = map(call.value, arguments(call.node).values())
        longest, steps = int(lengths.max()), x.shape[1 if batch_first else 0]
        if longest > steps:
            raise InputError(f"{place(call.node)}: a sequence of {longest} steps in a batch of {steps}.")
        try:
            return super().forward(call)
        except RuntimeError as error:  # a length of zero, or the wrong order
            raise InputError(f"{place(call.node)} cannot pack these sequences: {reason_of(error)}") from error


register("structural", Packing(), PACK, fresh=True, sign=KEEPS)
register("structural", FILLS, PAD, aten.pad_sequence.default, fresh=True, sign=KEEPS)
