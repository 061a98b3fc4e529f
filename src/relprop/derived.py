"""Values that depend on parameters alone: folded and modified weights. Computed once, and anew when a parameter changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .graph import Graph, calls

SAMPLES = 1024
"""How many numbers of each parameter are compared; a tensor no larger than that is compared as a whole."""


class Derived:
    """A store that empties itself when a parameter was replaced or changed.

    torch counts in-place changes, but not those made through ``.data``: evenly spread values are compared, too.
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
        self._sample: Tensor | None = None

    def current(self, values: dict[Node, Any]) -> dict[Any, Any]:
        """The store as it is valid for these parameters."""
        tensors = [values[n] for n in self.parameters]
        state = tuple((t.data_ptr(), t._version, t.dtype, t.shape) for t in tensors)
        sample = _sample(tensors)
        if state != self._state or sample is None or self._sample is None or not torch.equal(sample, self._sample):
            self._store, self._state, self._sample = {}, state, sample
        return self._store


def _sample(tensors: list[Tensor]) -> Tensor | None:
    spread = [t.detach().reshape(-1)[:: max(1, t.numel() // SAMPLES)] for t in tensors if t.is_floating_point()]
    if not spread:
        return torch.zeros(0)
    if len({(t.device, t.dtype) for t in spread}) > 1:
        spread = [t.double().cpu() for t in spread]
    return torch.cat(spread)
