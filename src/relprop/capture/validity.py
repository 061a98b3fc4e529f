"""For which inputs, and for which state of the model, a captured graph holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..graph.graph import Graph, calls
from .copies import same_value
from .state import State


@dataclass
class Capture:
    """One captured graph, and what it is valid for."""

    graph: Graph
    shapes: list[tuple[Any, ...] | None]
    example: list[Any]
    """The inputs: shapes of tensors (their values for a graph that looked at them), and copies of everything else."""
    state: State | None
    """What the model was besides its parameters and buffers; None for an exported program, which does not change."""
    weights: list[Tensor] | None = None
    """Checksums of the parameters that a record was made with: they may have decided a branch."""
    used: int = 0
    """When it was used last."""

    idle: set[str] = field(default_factory=set)
    """What changed of the model before, and another capture gave the same graph: calls are counted, say."""
    is_doubted: bool = False
    """Whether something of that has changed since the graph was compared with the model."""
    serves: dict[frozenset[str], bool] = field(default_factory=dict)
    """Open sizes -> whether the graph gives what the model gives for inputs for which just these are one.

    What a model does for exactly one leaves no guard, since torch takes open sizes for larger.
    """

    @property
    def is_open(self) -> bool:
        """Whether sizes were left open."""
        return any(not isinstance(n, int) for shape in self.shapes if shape is not None for n in shape)

    def accepts(self, leaves: Sequence[Any]) -> bool:
        """Whether these inputs may run through this graph."""
        return all(map(_same_input, self.example, leaves)) and self.fits(leaves)

    def fits(self, leaves: Sequence[Any]) -> bool:
        """Whether tensors of these sizes may run through it."""
        sizes = self._sizes(leaves)
        return sizes is not None and self.serves.get(_ones(sizes), True)

    def is_confirmed(self, leaves: Sequence[Any]) -> bool:
        """Whether the graph is known to give what the model gives, for inputs like these."""
        sizes, watched = self._sizes(leaves), self.state is None or self.state.reach.complete
        return sizes is not None and watched and not self.is_doubted and _ones(sizes) in self.serves

    def confirm(self, leaves: Sequence[Any]) -> None:
        """For inputs like these the graph gives what the model gives."""
        self.is_doubted, self.serves[_ones(self._sizes(leaves) or {})] = False, True

    def refuse(self, leaves: Sequence[Any]) -> None:
        """For inputs like these it does not."""
        self.serves[_ones(self._sizes(leaves) or {})] = False

    def refused(self, leaves: Sequence[Any]) -> bool:
        """Whether that was found out."""
        sizes = self._sizes(leaves)
        return sizes is not None and not self.serves.get(_ones(sizes), True)

    def changes(self) -> set[str]:
        """What has changed of the model since the graph was made."""
        return set() if self.state is None else self.state.changes()

    def doubt(self, state: State | None) -> None:
        """Something has changed, but it may not matter."""
        self.state, self.is_doubted = state, True
        self.serves = {ones: known for ones, known in self.serves.items() if not known}

    def _sizes(self, leaves: Sequence[Any]) -> dict[str, int] | None:
        """The open sizes, or None if the inputs have sizes that the graph is not for."""
        sizes: dict[str, int] = {}
        dims: list[tuple[int, Any]] = []
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if shape is not None and len(leaf.shape) != len(shape):
                return None
            dims += [] if shape is None else zip(leaf.shape, shape, strict=True)
        fits = all(_fits(n, dim, sizes) for n, dim in dims) and all(_follows(n, dim, sizes) for n, dim in dims)
        return sizes if fits and _guards_hold(self.shapes, sizes) else None


def _ones(sizes: dict[str, int]) -> frozenset[str]:
    return frozenset(name for name, size in sizes.items() if size == 1)


def kind_of(leaf: Any) -> Any:
    """What an input must have in common with the one of a capture."""
    return (type(leaf), leaf.dtype, leaf.device, leaf.layout, leaf.ndim) if isinstance(leaf, Tensor) else type(leaf)


def captured_shape(node: Any) -> tuple[Any, ...] | None:
    return None if node is None else tuple(node.meta["val"].shape)


def _same_input(example: Any, leaf: Any) -> bool:
    if isinstance(leaf, Tensor) and isinstance(example, tuple):  # its shape, which is looked at with all others
        return True
    return same_value(example, leaf)


def _fits(n: int, dim: Any, sizes: dict[str, int]) -> bool:
    """Whether a size agrees with the captured one; a symbol is bound at its first occurrence."""
    if isinstance(dim, int):
        return n == dim
    if not dim.node.expr.is_Symbol:
        return True  # which is seen when all symbols are bound
    if sizes.setdefault(str(dim), n) != n:
        return False
    bounds = dim.node.shape_env.var_to_range[dim.node.expr]
    return not ((n < bounds.lower and n != 1) or n > bounds.upper)


def _follows(n: int, dim: Any, sizes: dict[str, int]) -> bool:
    """Whether a size is what the captured one, such as 2 s + 1, says; if it says what a symbol is, that is bound."""
    if isinstance(dim, int) or dim.node.expr.is_Symbol:
        return True
    size = dim.node.expr.subs({s: sizes[str(s)] for s in dim.node.expr.free_symbols if str(s) in sizes})
    if len(size.free_symbols) == 1:
        (symbol,) = size.free_symbols
        start, step = size.subs(symbol, 0), size.coeff(symbol)
        if size != step * symbol + start or step == 0 or (n - start) % step:
            return False
        sizes[str(symbol)] = int((n - start) / step)
        return True
    return bool(size == n)


def _guards_hold(shapes: Sequence[Any], sizes: dict[str, int]) -> bool:
    """Whether the model, which may branch on sizes, would take the branches that it took at capture."""
    symbolic = [dim for shape in shapes if shape is not None for dim in shape if not isinstance(dim, int)]
    if not symbolic:
        return True
    guards = [guard.expr for guard in symbolic[0].node.shape_env.guards]
    return not any(guard.subs({s: sizes.get(str(s), s) for s in guard.free_symbols}) == False for guard in guards)  # noqa: E712


def same_graph(one: Graph, other: Graph) -> bool:
    """Whether two captures are the same: node by node, in what they are valid for, and in their constants."""
    try:
        names = [list(graph.parameters.values()) for graph in (one, other)]
        if names[0] != names[1] or _form(one) != _form(other):
            return False
        pairs = ((one.lookup(name), other.lookup(name)) for name in names[0])
        return all(x is y or same_value(x, y) for x, y in pairs)
    except Exception:  # an argument that cannot be compared
        return False


def _form(graph: Graph) -> Any:
    """All that makes a graph what it is but the values of its constants."""
    places = {node: i for i, node in enumerate(graph.nodes)}

    def placed(x: Any) -> Any:
        return torch.fx.node.map_arg(x, lambda node: ("node", places[node]))

    nodes = [(n.target, placed((n.args, n.kwargs)), _described(n.meta.get("val"))) for n in graph.nodes if calls(n)]
    inputs = [placed(n) for n in graph.inputs]
    sizes = [dim for n in graph.inputs if n is not None for dim in captured_shape(n) or () if not isinstance(dim, int)]
    environment = sizes[0].node.shape_env if sizes else None
    valid = (environment and [str(g.expr) for g in environment.guards], environment and str(environment.var_to_range))
    return nodes, inputs, [placed(n) for n in graph.parameters], placed(graph.outputs), valid, graph.input_names


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.device, str(tuple(value.shape))
    return tuple(map(_described, value)) if isinstance(value, (tuple, list)) else type(value)
