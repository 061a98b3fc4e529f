"""Distances. Unlike the norm that something is divided by, which counts as a scale, they are explained.

‖x - y‖ is homogeneous: where both are stretched, so is the distance. So gradient x input is exact (Euler), and of a
distance to a prototype the prototype has a share of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..graph.ops import distance
from .base import Call, Step, argument_of
from .gradient import Gradient, constant_inputs
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Distance(Gradient):
    """R_j = x_j ∂d/∂x_j: for the Euclidean distance x_j (x_j - y_j) / d."""

    def __str__(self) -> str:
        return "Distance()"

    def supports(self, step: Step) -> str | None:
        p = argument_of(step.node, ORDER[step.node.target], "p", 2)
        return "counting the values that differ (p=0) has no gradient" if p == 0 else None

    def rest(self, call: Call) -> str | None:
        constants = constant_inputs(call.step)
        return call.context.reason_for(constants[0]) if constants else super().rest(call)


ORDER = {aten.cdist.default: 2, aten.pdist.default: 1, distance: 1}
"""Distances, and which argument says the order of the norm."""

register("distance", Distance(), *ORDER)
