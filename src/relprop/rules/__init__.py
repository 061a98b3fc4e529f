"""Propagation rules, one file per family of operations."""

from ..graph.facts import TABLE
from . import fused, packing, placement, statistics, stopped, structural  # noqa: F401  (what they register)
from .base import Pass, Rule, Stop
from .bounds import Flat, WSquare, ZBox
from .distances import Distance
from .elementwise import Identity
from .gradient import Gradient
from .linear import LRP0, AlphaBeta, Epsilon, Gamma, ZPlus
from .message import Message, stabilise
from .neurons import LinearRule, check_number
from .norms import HoldStatistics
from .pooling import Norm, Proportional, WinnerTakeAll
from .powers import Cumulative, Power
from .products import Quotient, Signal, Uniform
from .recurrent import Recurrent
from .softmax import CPLRP, AttnLRP, Softmax
from .split import Shares, SplitRule
from .sums import Sum
from .table import rule_for
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
    "Message",
    "Norm",
    "Pass",
    "Power",
    "Proportional",
    "Quotient",
    "Recurrent",
    "Rule",
    "Shares",
    "Signal",
    "Softmax",
    "SplitRule",
    "Stop",
    "Sum",
    "Uniform",
    "View",
    "WSquare",
    "WinnerTakeAll",
    "ZBox",
    "ZPlus",
    "check_number",
    "rule_for",
    "stabilise",
]
