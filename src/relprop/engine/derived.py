"""Values that depend on parameters alone: folded and modified weights, computed anew when a parameter changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.checksum import Checksum, places, strided
from ..graph.constants import from_parameters
from ..graph.graph import Graph, Values, caller, calls


class Derived:
    """A store that empties itself when a parameter was replaced or changed.

    torch counts in-place changes, but not those made through ``.data``: all bits are added up and compared, too, which
    takes a small part of the time that making the weights anew would.
    """

    def __init__(self, graph: Graph, weights: Iterable[Node]):
        fixed = from_parameters(graph)
        self.nodes: dict[Node, Callable[[Values], Any]] = {n: caller(n) for n in graph.nodes if n in fixed and calls(n)}
        """Operations on parameters alone, in order, and how they run."""
        used = {n for node in self.nodes for n in node.all_input_nodes} | set(weights)
        self.parameters = [n for n in graph.parameters if n in used]
        self._has_sparse = any(n.meta["val"].layout != torch.strided for n in self.parameters)
        self._store: dict[Any, Any] = {}
        self._state: tuple[Any, ...] | None = None
        self._values: list[Tensor] | None = None
        self._sum: Checksum | None = None

    def current(self, values: dict[Node, Any]) -> dict[Any, Any]:
        """The store as it is valid for these parameters."""
        tensors = [values[n] for n in self.parameters]
        tensors = strided(tensors) if self._has_sparse else tensors
        state = tuple(t._version for t in tensors)
        if self._sum is None or self._sum.where != places(tensors):
            self._sum, self._values = Checksum(tensors), None
        now, before = self._sum.now(), self._values
        same = before is not None and len(now) == len(before) and all(map(torch.equal, now, before))
        if state != self._state or not same:
            self._store, self._state, self._values = {}, state, now
        return self._store
