"""Operators that call functions run as the Python that they stand for.

``torch.cond`` is an ``if``, ``while_loop`` a loop, ``map`` and ``scan`` go over the rows of a tensor, and
``flex_attention`` has a function for its scores. While a model is captured they are unrolled; if they look at values,
the model is recorded from one run, as one with an ordinary ``if`` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._higher_order_ops import utils
from torch._higher_order_ops.associative_scan import generic_associative_scan
from torch._higher_order_ops.flex_attention import math_attention
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram

operators = torch.ops.higher_order


def _cond(pred: Any, if_true: Callable[..., Any], if_false: Callable[..., Any], operands: Sequence[Any]) -> Any:
    return (if_true if pred else if_false)(*operands)


def _while(condition: Callable[..., Any], body: Callable[..., Any], carried: Sequence[Any], more: Sequence[Any]) -> Any:
    while condition(*carried, *more):
        carried = body(*carried, *more)
    return tuple(carried)


def _map(function: Callable[..., Any], xs: Sequence[Any], more: Sequence[Any]) -> Any:
    return _stacked([function(*rows, *more) for rows in zip(*xs, strict=True)])


def _scan(
    combine: Callable[..., Any], state: Sequence[Any], xs: Sequence[Any], additional_inputs: Sequence[Any]
) -> Any:
    results = []
    for rows in zip(*xs, strict=True):
        state, result = combine(*pytree.tree_leaves(state), *rows, *additional_inputs)
        results.append(result)
    return state, _stacked(results)


def _stacked(results: list[Any]) -> Any:
    return pytree.tree_map(lambda *rows: torch.stack(rows), results[0], *results[1:])


UNROLLED: dict[HigherOrderOperator, Callable[..., Any]] = {
    operators.cond: _cond,
    operators.while_loop: _while,
    operators.map_impl: _map,
    operators.scan: _scan,
    operators.associative_scan: generic_associative_scan,
    operators.flex_attention: math_attention,
}


def calls_functions(program: ExportedProgram) -> bool:
    """Whether a program holds such operators, which its user's export has left as they are."""
    return any(node.op == "call_function" and node.target in UNROLLED for node in program.graph.nodes)


@contextmanager
def unrolled() -> Iterator[None]:
    """Within it, these operators are Python; elsewhere torch compiles what they call."""
    called, compiled = HigherOrderOperator.__call__, utils._hop_compile_and_call

    def call(self: HigherOrderOperator, *args: Any, **kwargs: Any) -> Any:
        return UNROLLED[self](*args, **kwargs) if self in UNROLLED else called(self, *args, **kwargs)

    def run(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Any:
        return function(*args, **(kwargs or {}))

    HigherOrderOperator.__call__, utils._hop_compile_and_call = call, run  # type: ignore[method-assign]
    try:
        yield
    finally:
        HigherOrderOperator.__call__, utils._hop_compile_and_call = called, compiled  # type: ignore[method-assign]
