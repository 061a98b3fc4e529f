"""Norms, deviations and variances that are explained, rather than held constant as scales (passes/statistics.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.ops import statistic
from .base import Step
from .gradient import Gradient
from .table import register

aten = torch.ops.aten

VARIANCES = {aten.var.correction, aten.var.dim}


@dataclass(frozen=True)
class Statistic(Gradient):
    """R_j = x_j ∂f/∂x_j: exact, as norm and deviation are homogeneous; half of it for a variance."""

    def factor(self, step: Step, node: Node) -> float:
        return 0.5 if argument(step.node, "operation") in VARIANCES else 1.0


register("statistic", Statistic(), statistic)
