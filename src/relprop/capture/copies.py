"""Copies of what a user hands in: a model that writes to its arguments writes to these."""

from __future__ import annotations

import copyreg
from collections import deque
from copy import deepcopy
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _Plainly(TorchFunctionMode):
    """Within it, deepcopy copies the values of a tensor that was computed too, which torch itself refuses."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*args, **(kwargs or {}))


def copied(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Positional and named arguments that share nothing with those of the user."""
    with torch.no_grad(), _Plainly():
        memo: dict[int, Any] = {}
        return tuple(_copy(x, memo) for x in args), {name: _copy(x, memo) for name, x in kwargs.items()}


def _copy(x: Any, memo: dict[int, Any]) -> Any:
    try:
        return deepcopy(x, memo)
    except Exception:  # a lock, an open file: nobody can copy these, and a model does not change them
        return x


def same_value(x: Any, y: Any) -> bool:
    """Whether an object and the copy that was made of another one hold the same values, as far as one can tell."""
    return _same(x, y, set())


PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
ATOMS = (type, Enum, FunctionType, BuiltinFunctionType, ModuleType)


def _same(x: Any, y: Any, seen: set[tuple[int, int]]) -> bool:
    if type(x) is not type(y):
        return False
    if isinstance(x, Tensor):
        return x.dtype == y.dtype and x.device == y.device and x.shape == y.shape and bool(torch.equal(x, y))
    if isinstance(x, np.ndarray):
        return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
    if isinstance(x, PLAIN):
        return bool(x == y) or (x != x and y != y)  # NaN is what it was
    if isinstance(x, ATOMS):
        return x is y
    if (id(x), id(y)) in seen:  # in a circle
        return True
    seen.add((id(x), id(y)))
    if isinstance(x, (set, frozenset)):
        return x == y
    inside, others = _inside(x), _inside(y)
    if inside is None or others is None or (x is y and not isinstance(x, tuple)):  # not known, or no copy
        return False
    return len(inside) == len(others) and all(_same(a, b, seen) for a, b in zip(inside, others, strict=True))


def _inside(x: Any) -> list[Any] | None:
    """What an object consists of; None if that is not known."""
    attributes = getattr(x, "__dict__", None)
    slots = copyreg._slotnames(type(x))  # type: ignore[attr-defined]
    if isinstance(x, dict):
        found = [*x.keys(), *x.values()]
    elif isinstance(x, (list, tuple, deque)):
        found = list(x)
    elif (attributes is not None or slots) and getattr(type(x), "__reduce__", None) is object.__reduce__:
        found = []
    else:
        return None
    return [*found, *(v for item in (attributes or {}).items() for v in item), *(getattr(x, s, None) for s in slots)]
