"""A run with a guard: values that are NaN or infinite, and have no say in what is explained, get and hand on nothing.

A row of attention that is masked altogether is NaN, as are missing numbers that the model fills. Their coefficient is
zero, but 0 * NaN is NaN, and one product later so is all the rest. Here whatever the reverse sweep reads has zeros in
those places: nothing but zeros is multiplied with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.fx import Node

from ..rules.base import Call, Context, Step
from ..rules.message import Message, finite, is_finite
from .checkpoint import Checkpointed
from .inbox import Parts
from .run import Run
from .schedule import Operation
from .watch import Watcher


class Guarded(Run):
    """A run whose reverse sweep reads zeros where a value is NaN or infinite."""

    guarded = True
    has_gaps = False
    """Whether there is such a value."""

    def _forward(self) -> None:
        self._closed: set[Node] = set()
        self.has_gaps = not all(map(is_finite, self.leaves))
        super()._forward()
        self._outputs = super().outputs
        self._close_gaps()

    def _execute(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            super()._execute([operation])
            self._closed.discard(operation.node)
            value = pytree.tree_leaves(self.values.get(operation.node))
            self.has_gaps = self.has_gaps or not all(map(is_finite, value))

    def _close_gaps(self) -> None:
        for node in self.values.keys() - self.plan.graph.constants - self._closed:
            self.values[node] = pytree.tree_map_only(Tensor, finite, self.values[node])
            self._closed.add(node)

    @property
    def outputs(self) -> list[Any]:
        return self._outputs

    def sweep(self, seeds: Mapping[Node, Message], watchers: Sequence[Watcher] = ()) -> dict[Node, Message]:
        found = super().sweep(seeds, [NoGaps(), *watchers])
        return {node: message.each(without_nan) for node, message in found.items()}

    def _reach(self, node: Node) -> None:
        super()._reach(node)
        self._close_gaps()

    def _call(self, step: Step, parts: Parts | None) -> Call:
        return super()._call(step, parts and {i: part.each(without_nan) for i, part in parts.items()})


class GuardedParts(Guarded, Checkpointed):
    """The same, part by part."""


class NoGaps(Watcher):
    """Lets nothing arrive that is NaN."""

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        return message.each(without_nan)


def without_nan(part: Tensor) -> Tensor:
    return torch.where(part.isnan(), 0, part)
