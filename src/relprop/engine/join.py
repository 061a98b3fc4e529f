"""Answers to parts of a batch as one answer for all samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import InputError
from ..graph.graph import Graph, shape_of
from ..targets import Target
from .hidden import module_outputs
from .ledger import Ledger
from .question import Answer


@dataclass(frozen=True)
class Joining:
    """How parts of a batch become the whole."""

    graph: Graph
    """As it was captured for the whole."""
    split: Sequence[bool]
    """Whether each leaf of the inputs was split; the others are shared by all samples."""
    lengths: Sequence[int]
    """Number of samples of each part."""
    size: Any
    """Number of samples as it was captured: a number, or an open size."""

    def answer(self, parts: Sequence[Answer], target: Target, record: Sequence[str]) -> Answer:
        """One answer: what has samples is joined along them, and relevance of what all share is summed.

        Raises:
            InputError: if a hidden tensor or an output has the samples otherwise than as its first dimension.
        """
        first = parts[0]
        relevances = [self._relevance([part.relevances[i] for part in parts], own) for i, own in enumerate(self.split)]
        explained = [part.target for part in parts]
        per_sample = all(
            isinstance(t, Tensor) and t.shape == (n,) for t, n in zip(explained, self.lengths, strict=True)
        )
        ledgers = [part.ledger for part in parts if part.ledger is not None]
        nodes = module_outputs(self.graph, record)
        return replace(
            first,
            relevances=relevances,
            target=torch.cat(explained) if per_sample else target,
            value=torch.cat([part.value for part in parts]),
            ledger=Ledger.joined(ledgers) if ledgers else None,
            hidden={
                name: self._tensor([part.hidden[name] for part in parts], nodes[name], f"the output of {name!r}", True)
                for name in first.hidden
            },
            outputs=self._outputs(parts) if ledgers else first.outputs,
        )

    def _relevance(self, parts: list[Tensor | None], own: bool) -> Tensor | None:
        tensors = [x for x in parts if x is not None]
        if not tensors:
            return None
        return torch.cat(tensors) if own else sum(tensors[1:], tensors[0])

    def _outputs(self, parts: Sequence[Answer]) -> list[Any]:
        found = []
        for i, node in enumerate(self.graph.outputs):
            values = [part.outputs[i] for part in parts]
            is_tensor = isinstance(values[0], Tensor)
            found.append(self._tensor(values, node, f"output {i} of the model", False) if is_tensor else values[0])
        return found

    def _tensor(self, parts: list[Tensor], node: Any, what: str, adds: bool) -> Tensor:
        shape = shape_of(node) if isinstance(node, Node) else ()
        shared = not shape or (isinstance(shape[0], int) and not isinstance(self.size, int))
        if not shared and all(x.shape[:1] == (n,) for x, n in zip(parts, self.lengths, strict=True)):
            return torch.cat(parts)
        if shared and adds:
            return sum(parts[1:], parts[0])
        if shared and all(torch.equal(parts[0], x) for x in parts):
            return parts[0]
        raise InputError(
            f"{what}, of shape {tuple(parts[0].shape)} for {self.lengths[0]} samples, cannot be joined for "
            "micro_batch=: samples are not its first dimension. Explain all samples at once, or the parts one by one."
        )
