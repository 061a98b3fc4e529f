"""The relevance of rows, shared among those who chose them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .lookups import Lookup
from .owners import Layers
from .run import Run


@dataclass(frozen=True)
class Shares:
    """Who owns which part of the rows of one look-up."""

    owners: Tensor
    """[K, ...] The owners in every place, in a shape that broadcasts to that of the rows; zero is nobody."""
    parts: Tensor
    """[K, ...] The part of each, zero for nobody; all parts of a place that has owners make one."""
    spans: dict[int, tuple[slice, torch.Size]]
    """Position of an input -> which owners are its elements, and its shape."""

    def of_inputs(self, relevance: Tensor) -> dict[int, Tensor]:
        """The relevance of rows, as relevance of the inputs that chose them."""
        rows = relevance.sum_to_size(self.owners.shape[1:])
        count = max(span.stop for span, _ in self.spans.values())
        found = rows.new_zeros(count).index_add(0, self.owners.flatten(), (rows * self.parts).flatten())
        return {i: found[span].reshape(shape) for i, (span, shape) in self.spans.items()}

    def of_input(self, i: int) -> Tensor:
        """What part of every row an input owns."""
        span, _ = self.spans[i]
        own = (self.owners >= span.start) & (self.owners < span.stop)
        return torch.where(own, self.parts, 0).sum(0)

    def of_nobody(self) -> Tensor:
        """What part of every row is the model's: all or nothing."""
        return 1 - self.parts.sum(0)


def shares_of(node: Node, lookup: Lookup, run: Run) -> Shares:
    """Follow owners from the inputs to a look-up."""
    owners: dict[Node, Any] = {}
    spans, start = {}, 1
    for i in sorted(lookup.inputs):
        placeholder, leaf = run.plan.graph.inputs[i], run.leaves[i]
        assert placeholder is not None
        spans[i] = slice(start, start + leaf.numel()), leaf.shape
        owners[placeholder] = [torch.arange(start, start + leaf.numel(), device=leaf.device).reshape(leaf.shape)]
        start += leaf.numel()
    for step, way in lookup.path:
        owners[step] = way.carry(step, owners, run)
    return Shares(*_equal_parts(owners[node], run.accumulate(run.values[node]).dtype), spans)


def _equal_parts(layers: Layers, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Owners in every place, each once, and the part of each."""
    owners = torch.stack(torch.broadcast_tensors(*layers))
    if len(layers) == 1:
        return owners, (owners > 0).to(dtype)
    owners = owners.sort(0).values
    repeated = torch.cat([torch.zeros_like(owners[:1], dtype=torch.bool), owners[1:] == owners[:-1]])
    counts = (owners > 0) & ~repeated
    return owners, counts.to(dtype) / counts.sum(0).clamp(min=1)
