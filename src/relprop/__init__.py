"""relprop explains the predictions of PyTorch models by Layer-wise Relevance Propagation (LRP)."""

from . import composites, rules, select, targets
from .composite import Composite
from .engine.ledger import Ledger
from .errors import (
    CaptureError,
    FileError,
    InputError,
    RelevanceWarning,
    RelpropError,
    RuleError,
    SelectionError,
    TargetError,
    UnsupportedOperation,
)
from .explanation import Explanation, report
from .lrp import LRP
from .methods.bilrp import bilrp
from .rules import Rule, rule_for
from .rules.message import Message

load = Explanation.load

__version__ = "0.1.0"

__all__ = [
    "LRP",
    "CaptureError",
    "Composite",
    "Explanation",
    "FileError",
    "InputError",
    "Ledger",
    "Message",
    "RelevanceWarning",
    "RelpropError",
    "Rule",
    "RuleError",
    "SelectionError",
    "TargetError",
    "UnsupportedOperation",
    "bilrp",
    "composites",
    "load",
    "report",
    "rule_for",
    "rules",
    "select",
    "targets",
]
