"""For which inputs, and for which state of the model, a captured graph holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..graph.graph import Graph


@dataclass
class Capture:
    """One captured graph and the input shapes it is valid for."""

    graph: Graph
    shapes: list[tuple[Any, ...] | None]
    example: list[Any]
    weights: list[Tensor] | None = None
    """Checksums of the parameters that a record was made with: they may have decided a branch."""

    serves_one: dict[frozenset[str], bool] = field(default_factory=dict)
    """Open sizes -> whether the graph also serves inputs for which just these are one."""

    def accepts(self, leaves: Sequence[Any], runs_alike: Callable[[Graph], bool] = lambda graph: True) -> bool:
        """Whether these inputs may run through this graph.

        Args:
            leaves: the inputs.
            runs_alike: whether the graph gives what the model gives. It is asked when an open size is one for the
                first time: what a model does for exactly one leaves no guard, since torch takes open sizes for larger.
        """
        if self.graph.recorded:
            return all(_same(x, y) for x, y in zip(self.example, leaves, strict=True))
        sizes: dict[str, int] = {}
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if shape is not None and not _fits(leaf.shape, shape, sizes):
                return False
        if not _guards_hold(self.shapes, sizes):
            return False
        ones = frozenset(name for name, size in sizes.items() if size == 1)
        if ones and ones not in self.serves_one:
            self.serves_one[ones] = runs_alike(self.graph)
        return not ones or self.serves_one[ones]


def signature(leaf: Any) -> Any:
    return (leaf.dtype, leaf.device, leaf.ndim) if isinstance(leaf, Tensor) else (type(leaf), leaf)


def shapes_of_leaves(leaves: Sequence[Any]) -> list[Any]:
    return [tuple(x.shape) if isinstance(x, Tensor) else x for x in leaves]


def captured_shape(node: Any) -> tuple[Any, ...] | None:
    return None if node is None else tuple(node.meta["val"].shape)


def _fits(actual: Sequence[int], captured: Sequence[Any], sizes: dict[str, int]) -> bool:
    """Whether a shape agrees with the captured one; symbols are bound at their first occurrence."""
    if len(actual) != len(captured):
        return False
    for n, dim in zip(actual, captured, strict=True):
        if isinstance(dim, int):
            if n != dim:
                return False
        elif dim.node.expr.is_Symbol:
            if sizes.setdefault(str(dim), n) != n:
                return False
            bounds = dim.node.shape_env.var_to_range[dim.node.expr]
            if (n < bounds.lower and n != 1) or n > bounds.upper:
                return False
        elif int(dim.node.expr.subs({s: sizes.get(str(s), 0) for s in dim.node.expr.free_symbols})) != n:
            return False
    return True


def _guards_hold(shapes: Sequence[Any], sizes: dict[str, int]) -> bool:
    """Whether the model, which may branch on sizes, would take the branches that it took at capture."""
    symbolic = [dim for shape in shapes if shape is not None for dim in shape if not isinstance(dim, int)]
    if not symbolic:
        return True
    guards = [guard.expr for guard in symbolic[0].node.shape_env.guards]
    return not any(guard.subs({s: sizes.get(str(s), s) for s in guard.free_symbols}) == False for guard in guards)  # noqa: E712


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor):
        return x.shape == y.shape and bool(torch.equal(x, y))
    return bool(x == y)
