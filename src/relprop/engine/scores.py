"""The score behind a final softmax or sigmoid, where the relevance of a class starts.

A probability says how a class compares with the others, and hardly moves where the model is sure; the score in front of
it is what speaks for the class (Bach et al. 2015 and every introduction since explain it). A target function still gets
the model's own output, and so explains the probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.facts import facts
from ..graph.graph import Graph, describe, is_float

aten = torch.ops.aten

SQUASHING = {
    *(aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default),
    *(aten.sigmoid.default, aten.log_sigmoid.default),
}
"""Operations that make probabilities, or their logarithms, of scores."""


@dataclass(frozen=True)
class Score:
    """What the last operation of a model makes a probability of."""

    position: int
    """Of the probabilities among the leaves of the output."""
    node: Node
    """The score."""
    squashing: Node
    views: tuple[Node, ...]
    """What rearranges the probabilities before they are the output."""

    def __str__(self) -> str:
        return f"the score in front of {describe(self.squashing)}"

    def shown(self, values: Mapping[Node, Any]) -> Tensor:
        """The score as the output shows the probabilities."""
        return self._rearranged(values[self.node], values)

    def pulled_back(self, c: Tensor, values: Mapping[Node, Any]) -> Tensor:
        """A coefficient in the shape of the output as one of the score."""
        if not self.views:
            return c
        with torch.enable_grad():
            score = torch.zeros_like(values[self.node], dtype=c.dtype, requires_grad=True)
            (pulled,) = torch.autograd.grad(self._rearranged(score, values), score, c)
        return pulled

    def _rearranged(self, score: Tensor, values: Mapping[Node, Any]) -> Tensor:
        made: dict[Node, Any] = {self.squashing: score}
        for view in self.views:
            args, kwargs = torch.fx.node.map_arg(
                (view.args, view.kwargs), lambda n: made[n] if n in made else values[n]
            )
            made[view] = view.target(*args, **kwargs)  # type: ignore[operator]
        return made[self.views[-1]] if self.views else score


def score_behind(graph: Graph, position: int) -> Score | None:
    """The score behind an output, or None if no softmax or sigmoid is the last that happens to it."""
    node, views = graph.outputs[position], list[Node]()
    while isinstance(node, Node) and _rearranges(node):
        views.insert(0, node)
        node = node.args[0]
    if not isinstance(node, Node):
        return None
    squashing = node
    if node.target is aten.log.default and isinstance(node.args[0], Node) and node.args[0].target in SQUASHING:
        node = node.args[0]
    score = node.args[0] if node.target in SQUASHING else None
    if not isinstance(score, Node) or not is_float(score) or score in graph.constants:
        return None
    return Score(position, score, squashing, tuple(views))


def _rearranges(node: Node) -> bool:
    """Whether an operation only shows values in another shape, as ``squeeze`` does."""
    return facts(node).back is not None and node.all_input_nodes == [node.args[0]]
