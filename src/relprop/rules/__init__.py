"""Propagation rules, one file per family of operations."""

from . import packing  # noqa: F401  (its operations)
from .attention import CPLRP, AttnLRP, Taylor
from .base import TABLE, Pass, Rule, Stop, rule_for
from .distances import Distance
from .elementwise import Identity
from .linear import LRP0, AlphaBeta, Epsilon, Flat, Gamma, LinearRule, WSquare, ZBox, ZPlus
from .norms import HoldStatistics
from .pooling import Norm, Proportional, WinnerTakeAll
from .powers import Cumulative, Power
from .products import Quotient, Signal, Uniform
from .recurrent import Recurrent
from .structural import Gradient
from .sums import Sum
from .views import View

__all__ = [
    "CPLRP",
    "LRP0",
    "TABLE",
    "AlphaBeta",
    "AttnLRP",
    "Cumulative",
    "Distance",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gradient",
    "HoldStatistics",
    "Identity",
    "LinearRule",
    "Norm",
    "Pass",
    "Power",
    "Proportional",
    "Quotient",
    "Recurrent",
    "Rule",
    "Signal",
    "Stop",
    "Sum",
    "Taylor",
    "Uniform",
    "View",
    "WSquare",
    "WinnerTakeAll",
    "ZBox",
    "ZPlus",
    "rule_for",
]
