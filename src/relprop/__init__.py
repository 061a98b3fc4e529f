"""relprop explains the predictions of PyTorch models by Layer-wise Relevance Propagation (LRP)."""

from . import composites, rules, select, targets
from .bilrp import bilrp
from .composites import Composite
from .errors import (
    CaptureError,
    InputError,
    RelevanceWarning,
    RelpropError,
    RuleError,
    SelectionError,
    TargetError,
    UnsupportedOperation,
)
from .explanation import Explanation
from .ledger import Ledger
from .lrp import LRP
from .message import Message
from .rules import Rule, rule_for

__version__ = "0.1.0"

__all__ = [
    "LRP",
    "CaptureError",
    "Composite",
    "Explanation",
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
    "rule_for",
    "rules",
    "select",
    "targets",
]
