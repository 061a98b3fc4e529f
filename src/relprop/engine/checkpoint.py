"""Recomputation: what the way back needs is computed once more, a part of the network at a time.

A plain run holds what all N operations leave for the way back. Here the operations are cut into about √N parts.
Forward, only what enters each part is held; on the way back, each part is run again when relevance arrives at it.
Memory grows with √N instead of N, for one more forward run (Chen et al. 2016, "Training Deep Nets with Sublinear Memory
Cost").
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.graph import calls
from .plan import Plan
from .run import Run
from .schedule import Operation, operations_of


@dataclass
class Part:
    """Operations that are run again together."""

    nodes: list[Node] = field(default_factory=list)
    entering: set[Node] = field(default_factory=set)
    """What they take from parts before."""


class Checkpointed(Run):
    """A run that holds only what enters the parts of the network."""

    def _forward(self) -> None:
        plan, schedule = self.plan, self.plan.schedule
        self.values.update(self._constants)
        self._parts = parts_of(plan)
        self._number = {node: i for i, part in enumerate(self._parts) for node in part.nodes}
        self._held: list[dict[Node, Any]] = []
        # outputs, what is recorded and where relevance is read stay, and what no operation here made
        self._staying = {n for n in plan.graph.nodes if not calls(n)}.union(
            (o for o in plan.graph.outputs if isinstance(o, Node)),
            plan.roots,
            plan.sources,
            schedule.keep,
            self._constants,
        )
        self._holding = self._operations(self._staying | schedule.saved)
        freeing = self._operations(self._staying)
        for part in self._parts:
            self._held.append({n: self.values[n] for n in part.entering})
            self._now = len(self._held) - 1
            is_last = part is self._parts[-1]
            self._execute([(self._holding if is_last else freeing)[n] for n in part.nodes])
            if not is_last:
                for node in part.nodes:
                    self.calls.pop(node, None)

    def _operations(self, staying: Set[Node]) -> dict[Node, Operation]:
        schedule = self.plan.schedule
        found = operations_of(schedule.order, self.plan.steps, schedule.in_order, staying)
        return {operation.node: operation for operation in found}

    def _reach(self, node: Node) -> None:
        number = self._number[node]
        if number == self._now:
            return
        self._now, values = number, self.values
        for n in [n for n in values if n not in self._staying]:
            del values[n]
        values.update(self._held[number])
        if not self.retain:
            self._held[number] = {}
        self._execute([self._holding[n] for n in self._parts[number].nodes])


def parts_of(plan: Plan) -> list[Part]:
    """Parts that leave about equally much for the way back."""
    sizes = [_size(node) if node in plan.steps else 0 for node in plan.schedule.order]
    most = sum(sizes) / max(1, math.isqrt(len(plan.steps)))
    joined = _joined(plan)
    parts, size = [Part()], 0.0
    for position, node in enumerate(plan.schedule.order):
        if size >= most and position not in joined:
            parts.append(Part())
            size = 0
        parts[-1].nodes.append(node)
        size += sizes[position]
    for part in parts:
        own = set(part.nodes)
        part.entering = {n for node in part.nodes for n in node.all_input_nodes if calls(n) and n not in own}
    return parts


def _joined(plan: Plan) -> set[int]:
    """Positions where no part may begin: between an activation and what it may overwrite, or whose output it holds."""
    position = {node: i for i, node in enumerate(plan.schedule.order)}
    found: set[int] = set()
    for step in plan.steps.values():
        if step.kind == "activation":
            found.update(
                range(min(position.get(n, position[step.node]) for n in step.active) + 1, position[step.node] + 1)
            )
    return found


def _size(node: Node) -> float:
    """Number of values, with the sizes seen at capture for those that are open."""
    value = node.meta.get("val")
    tensors = [v for v in (value if isinstance(value, (tuple, list)) else [value]) if isinstance(v, Tensor)]
    return float(sum(math.prod(d if isinstance(d, int) else _hint(d) for d in t.shape) for t in tensors))


def _hint(size: Any) -> int:
    hint = size.node.hint if isinstance(size, torch.SymInt) else size
    return hint if isinstance(hint, int) else 1
