"""What a selector is, and what it sees: the active operations of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch.fx import Node

from .graph.facts import facts
from .graph.graph import Graph, made_by, picks
from .rules.layers import layer_of

LINEAR_KINDS = ("dense", "convolution")


@dataclass
class Scope:
    """The active part of a graph, as selectors see it."""

    graph: Graph
    nodes: list[Node]
    """Active operations between the explained inputs and the output, in order."""
    kinds: dict[Node, str] = field(default_factory=dict)
    _matches: dict[Any, set[Node]] = field(default_factory=dict)
    _depths: dict[Node, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kinds = {n: self._kind(n) for n in self.nodes}

    def _kind(self, node: Node) -> str:
        layer = layer_of(node, lambda n: not isinstance(n, Node) or n in self.graph.constants)
        if layer is not None:
            return layer.kind
        return facts(node).kind

    def matches(self, selector: Selector) -> set[Node]:
        """All active operations that a selector matches."""
        if selector not in self._matches:
            self._matches[selector] = {n for n in self.nodes if selector.test(n, self)}
        return self._matches[selector]

    def without_before(self, chosen: set[Node], backwards: bool = False) -> set[Node]:
        """Those of the chosen nodes that have no chosen node before them (behind them, if backwards)."""
        order = list(reversed(self.nodes)) if backwards else self.nodes
        active = set(self.nodes)
        reached: set[Node] = set()
        for node in order:
            before = users_of(node) if backwards else map(made_by, node.all_input_nodes)
            if any(n in active and (n in reached or n in chosen) for n in before):
                reached.add(node)
        return chosen - reached

    def depth(self, node: Node) -> float:
        """Where a node is between input (0) and output (1), counted in linear operations on the longest path."""
        if not self._depths:
            count: dict[Node, int] = {}
            for n in self.nodes:
                made = [m for m in map(made_by, n.all_input_nodes) if m in count]
                count[n] = max((count[m] + (self.kinds[m] in LINEAR_KINDS) for m in made), default=0)
            last = max((count[n] for n in self.nodes if self.kinds[n] in LINEAR_KINDS), default=0)
            self._depths = {n: min(1.0, count[n] / last) if last else 0.0 for n in self.nodes}
        return self._depths[node]


def users_of(node: Node) -> Iterator[Node]:
    """The operations that use a result, or one of several results."""
    for user in node.users:
        yield from users_of(user) if picks(user) else [user]


@dataclass(frozen=True)
class Selector:
    """A condition on an operation. ``str()`` gives the expression that made it.

    The conditions here are functions of this file with some arguments filled in, so that a selector can be pickled.
    """

    name: str
    test: Callable[[Node, Scope], bool] = field(compare=False)

    def __str__(self) -> str:
        return self.name

    def __and__(self, other: Selector) -> Selector:
        return Selector(f"({self} & {other})", partial(_both, self, other))

    def __or__(self, other: Selector) -> Selector:
        return Selector(f"({self} | {other})", partial(_either, self, other))

    def __invert__(self) -> Selector:
        return Selector(f"~{self}", partial(_neither, self))


def _both(one: Selector, other: Selector, node: Node, scope: Scope) -> bool:
    return node in scope.matches(one) and node in scope.matches(other)


def _either(one: Selector, other: Selector, node: Node, scope: Scope) -> bool:
    return node in scope.matches(one) or node in scope.matches(other)


def _neither(one: Selector, node: Node, scope: Scope) -> bool:
    return node not in scope.matches(one)
