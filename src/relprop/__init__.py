"""relprop explains the predictions of PyTorch models by Layer-wise Relevance Propagation (LRP)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from .evaluation.result import Evaluation
    from .evaluation.run import evaluate
    from .explanation import load, verify
    from .explanation.explanation import Explanation, report
    from .lrp import LRP
    from .methods.bilrp import bilrp
    from .rules import Rule, rule_for
    from .rules.message import Message

__version__ = "0.1.0"

__all__ = [
    "LRP",
    "CaptureError",
    "Composite",
    "Evaluation",
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
    "evaluate",
    "load",
    "report",
    "rule_for",
    "rules",
    "select",
    "targets",
    "verify",
]

_HOMES = {
    "composite": "Composite",
    "engine.ledger": "Ledger",
    "errors": "CaptureError FileError InputError RelevanceWarning RelpropError RuleError SelectionError TargetError "
    "UnsupportedOperation",
    "evaluation.result": "Evaluation",
    "evaluation.run": "evaluate",
    "explanation": "load verify",
    "explanation.explanation": "Explanation report",
    "lrp": "LRP",
    "methods.bilrp": "bilrp",
    "rules": "Rule rule_for",
    "rules.message": "Message",
}
"""Module -> the public names that live there. Torch is loaded when one is first asked for, so that `relprop --help`,
which needs none, answers at once."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # which would take it for a promise that every name exists

    def __getattr__(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _HOME_OF:
            value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
            globals()[name] = value
            return value
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
