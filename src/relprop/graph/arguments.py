"""Reading a call: every argument by its name, however it was passed, with its default from the operation's signature.

Captured calls leave out what equals its default, and a default need not be None or zero.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch.fx import Node

REQUIRED = object()
"""Stands for the default of an argument that has none."""


@cache
def signature(operation: Any) -> dict[str, tuple[int, Any]]:
    """Every argument of an operation: name -> its place and its default."""
    if isinstance(operation, torch._ops.OpOverload):
        schema = operation._schema.arguments
        defaults = {a.name: a.default_value if a.has_default_value() else REQUIRED for a in schema}
    else:  # an operation of our own, or Python's
        parameters = inspect.signature(operation).parameters.values()
        defaults = {p.name: REQUIRED if p.default is p.empty else p.default for p in parameters}
    return {name: (place, default) for place, (name, default) in enumerate(defaults.items())}


def argument(node: Node, name: str | int) -> Any:
    """One argument of a call by its name, or by its place where operations have different names for it.

    Raises:
        KeyError: if the operation has no argument of that name.
        TypeError: if the call lacks it.
    """
    declared = signature(node.target)
    name = name if isinstance(name, str) else list(declared)[name]
    return _value(node, name, *declared[name])


def arguments(node: Node) -> dict[str, Any]:
    """All arguments of a call by their names, in their order."""
    return {name: _value(node, name, *declared) for name, declared in signature(node.target).items()}


def _value(node: Node, name: str, place: int, default: Any) -> Any:
    value = node.args[place] if place < len(node.args) else node.kwargs.get(name, default)
    if value is REQUIRED:
        raise TypeError(f"{node.target} is called without its argument {name!r}")
    return value
