"""Distances. Unlike the norm that something is divided by, which counts as a scale, they are explained.

‖x - y‖ is homogeneous: where both are stretched, so is the distance. So gradient x input is exact (Euler), and of a
distance to a prototype the prototype has a share of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..graph.arguments import argument
from ..graph.facts import NONNEGATIVE
from ..graph.ops import distance
from .base import Call, Step
from .gradient import Gradient, constant_inputs
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Distance(Gradient):
    """R_j = x_j ∂d/∂x_j: for the Euclidean distance x_j (x_j - y_j) / d.

    When to use: ``cdist`` and the like; the default there.
    """

    def __str__(self) -> str:
        return "Distance()"

    def supports(self, step: Step) -> str | None:
        p = argument(step.node, "p")
        return "counting the values that differ (p=0) has no gradient" if p == 0 else None

    def rest(self, call: Call) -> str | None:
        constants = constant_inputs(call.step)
        return call.context.reason_for(constants[0]) if constants else super().rest(call)


register("distance", Distance(), aten.cdist.default, aten.pdist.default, distance, fresh=True, sign=NONNEGATIVE)
