"""Values that depend on parameters alone: folded and modified weights. Computed once, and anew when a parameter changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .graph import Graph, calls

class Derived:
    """A store that empties itself when a parameter was replaced or changed.

    torch counts in-place changes, but not those made through ``.data``: all bits are added up and compared, too, which
    takes a small part of the time that making the weights anew would.
    """

    def __init__(self, graph: Graph, weights: Iterable[Node]):
        inputs = {n for n in graph.inputs if n is not None}
        fixed: set[Node] = set(graph.parameters)
        self.nodes: list[Node] = []
        for node in graph.nodes:
            if calls(node) and all(n in fixed for n in node.all_input_nodes) and node not in inputs:
                fixed.add(node)
                self.nodes.append(node)
        used = {n for node in self.nodes for n in node.all_input_nodes} | set(weights)
        self.parameters = [n for n in graph.parameters if n in used]
        self._store: dict[Any, Any] = {}
        self._state: tuple[Any, ...] | None = None
        self._sum: Tensor | None = None

    def current(self, values: dict[Node, Any]) -> dict[Any, Any]:
        """The store as it is valid for these parameters."""
        tensors = [values[n] for n in self.parameters]
        state = tuple((t.data_ptr(), t._version, t.dtype, t.shape) for t in tensors)
        total = _checksum(tensors)
        if state != self._state or self._sum is None or not torch.equal(total, self._sum):
            self._store, self._state, self._sum = {}, state, total
        return self._store


def _checksum(tensors: list[Tensor]) -> Tensor:
    """The bits of every tensor as integers, added up; and a few values by position, since a sum does not know order."""
    sums = []
    for t in tensors:
        flat = t.detach().reshape(-1)
        if flat.is_complex() or flat.dtype == torch.bool:
            flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat.byte()
        step = 8 // flat.element_size()
        whole = len(flat) // step * step if flat.storage_offset() % step == 0 else 0
        sums.append(flat[:whole].view(torch.int64).sum())
        sums.append(flat[whole:].double().sum().view(torch.int64))
        sums.append(flat[:: max(1, len(flat) // 16)].double().cumsum(0).sum().view(torch.int64))
    return torch.stack([s.cpu() for s in sums]) if sums else torch.zeros(0, dtype=torch.int64)
