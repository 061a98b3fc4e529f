"""Which operations relevance can reach, and which only hold constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from ..graph.facts import facts
from ..graph.graph import Graph, calls, holds_numbers, made_by
from ..rules.base import Rule, Stop
from ..scope import Scope

# ---------------------------------------------------------------------------------------------------------------------
# Activity
# ---------------------------------------------------------------------------------------------------------------------


def dependent_nodes(graph: Graph, sources: Iterable[Node]) -> set[Node]:
    found = set(sources)
    for node in graph.nodes:
        if calls(node) and any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def active_nodes(graph: Graph, sources: Iterable[Node]) -> set[Node]:
    """Nodes that relevance can reach, as automatic differentiation has it: statistics and integers are constants."""
    active = set(sources)
    for node in graph.nodes:
        if node in active or not calls(node) or facts(node).stopped:
            continue
        if any(n in active for n in node.all_input_nodes) and _carries_values(node):
            active.add(node)
    return active


def _carries_values(node: Node) -> bool:
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return any(isinstance(v, torch.Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex) for v in value)
    return holds_numbers(node)


def ancestors(roots: list[Node]) -> set[Node]:
    found, stack = set(roots), list(roots)
    while stack:
        for n in stack.pop().all_input_nodes:
            if n not in found:
                found.add(n)
                stack.append(n)
    return found


def stopped_nodes(scope: Scope, chosen: dict[Any, tuple[Rule, str]], active: set[Node]) -> set[Node]:
    """Nodes whose value comes from stopped ones alone, whatever is done with them (routing weights are normalised)."""
    stopped: set[Node] = set()
    for node in scope.nodes:
        if node not in chosen:
            continue
        before = [n for n in map(made_by, node.all_input_nodes) if n in active]
        if isinstance(chosen[node][0], Stop) or (before and all(n in stopped for n in before)):
            stopped.add(node)
    return stopped
