"""Values that depend on parameters alone: folded and modified weights, computed anew when a parameter changes."""

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
        self._values: list[Tensor] | None = None

    def current(self, values: dict[Node, Any]) -> dict[Any, Any]:
        """The store as it is valid for these parameters."""
        tensors = [values[n] for n in self.parameters]
        state = tuple((t.data_ptr(), t._version, t.dtype, t.shape) for t in tensors)
        now = checksum(tensors)
        before = self._values
        same = before is not None and len(now) == len(before) and all(map(torch.equal, now, before))
        if state != self._state or not same:
            self._store, self._state, self._values = {}, state, now
        return self._store


SMALL = 1 << 13
"""Parameters of fewer values are compared one by one, larger ones by the sum of their bits and some values."""


@torch.no_grad()
def checksum(tensors: list[Tensor]) -> list[Tensor]:
    """What changes when any value does: the sum of a tensor's bits, and some of its values, as sums know no order."""
    parts: list[Tensor] = []
    values: dict[Any, list[Tensor]] = {}
    for t in tensors:
        flat, n = _in_memory_order(t).reshape(-1), t.numel()
        some = values.setdefault((t.dtype, t.device), [])
        if n < SMALL:
            some.append(flat)
            continue
        step = 8 // t.element_size()
        start = -t.storage_offset() % step
        end = start + (n - start) // step * step
        parts.append(flat[start:end].view(torch.int64).sum())
        some += [flat[:: n // 64], *(flat[i:j] for i, j in ((0, start), (end, n)) if i < j)]
    parts += [torch.cat(some) for some in values.values()]
    parts.append(torch.tensor([n for t in tensors for n in t.stride()]))
    return parts


def _in_memory_order(t: Tensor) -> Tensor:
    """The same values as they lie in memory, so that none has to be copied to read them in a row."""
    return t if t.is_contiguous() else t.permute(sorted(range(t.ndim), key=t.stride, reverse=True))
