"""Operations and their default rules; :func:`rule_for` does the same for an operation of your own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from ..errors import RuleError
from ..graph.facts import REWRITTEN, TABLE, UNKNOWN, describe
from ..graph.graph import operation
from .base import Call, Messages, Rule, Step
from .message import Form, Message


def register(kind: str, rule: Rule, *operations: Any, **known: Any) -> None:
    """Put operations into the table of graph/facts.py: their kind, their default rule, and facts about them."""
    describe(kind, *operations, rule=rule, **known)


_versions = [0]


def table_version() -> int:
    """A number that changes with every registration, so that plans made before it are not used again."""
    return _versions[0]


def rule_for(*operations: Any, kind: str = "custom") -> Callable[[Any], Any]:
    """Give an operation a rule: ``@relprop.rule_for(torch.ops.mylib.op)`` above a Rule class or a function.

    A class is constructed without arguments. A function takes ``(call, message)`` and returns one message, or one for
    each of ``call.active``; ``message.relevance(call.output)`` is the relevance of the output, and
    ``relprop.Message(c=..., r=...)`` the message to an input ``a``, whose relevance is ``a * c + r``. How messages lie
    in memory is not fixed: ``reshape`` them rather than ``view``.

    A rule for a linear operation (``torch.ops.aten.linear``) takes the place of the one that "auto", a composite by
    name or a bare rule has for linear operations. Only a strict composite, a list of selectors of your own, is
    stronger. What decided is in the plan.

    Raises:
        TypeError: if what is decorated is neither a rule nor a function, or if an operation is no callable.
        RuleError: if no rule ever meets an operation, since it is written as others before rules are chosen.
    """
    overloads = []
    for op in operations:
        if isinstance(op, torch._ops.OpOverloadPacket):
            found = [getattr(op, name) for name in op.overloads()]
        elif callable(op):
            found = [op]
        else:
            raise TypeError(f"rule_for takes operations such as torch.ops.mylib.op, got {op!r}")
        if not REWRITTEN.isdisjoint(found) and not any(TABLE.get(o, UNKNOWN).rule for o in found):
            raise RuleError(
                f"no rule ever meets {op}: relprop writes it as other operations first (a batch norm as a part of the "
                "layer in front of it or as a product and a sum, a fused operation as its parts). "
                "print(lrp.plan(x)) shows those that are left: give one of them a rule."
            )
        overloads += found

    def decorate(thing: Any) -> Any:
        if isinstance(thing, type) and issubclass(thing, Rule):
            rule: Rule = thing()
        elif isinstance(thing, Rule):
            rule = thing
        elif callable(thing):
            rule = FunctionRule(thing)
        else:
            raise TypeError(f"rule_for decorates a Rule or a function (call, message) -> message, got {thing!r}")
        for op in overloads:  # what is known of an operation does not depend on who explains it
            TABLE[op] = replace(TABLE.get(op, UNKNOWN), kind=kind, rule=rule, own=True)
        _versions[0] += 1
        return thing

    return decorate


@dataclass(frozen=True)
class FunctionRule(Rule):
    """A rule given as a function ``(call, message) -> message(s)``."""

    function: Callable[[Call, Message], Any]

    def __str__(self) -> str:
        return getattr(self.function, "__name__", "function")

    def form(self, step: Step) -> Form:
        return Form(True, True)

    def saves(self, step: Step) -> set[Node]:
        return {step.node, *step.node.all_input_nodes}

    def backward(self, call: Call, message: Message) -> Messages:
        sent = self.function(call, message)
        messages = [sent] if isinstance(sent, Message) else list(sent)
        if len(messages) != len(call.active):
            raise ValueError(
                f"the rule of {operation(call.node)} returned {len(messages)} messages for {len(call.active)} inputs"
            )
        return messages
