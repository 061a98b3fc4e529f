"""Integer inputs: a token's relevance is that of its embedding, summed over the embedding's dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.facts import facts
from ..graph.graph import Graph, calls
from .run import run_node

aten = torch.ops.aten

EMBEDDINGS = {aten.embedding.default}


def token_nodes(graph: Graph, placeholder: Node) -> tuple[Node, ...]:
    """Embeddings that an integer input indexes, as it is or rearranged."""
    found, moved = [], {placeholder}
    for node in graph.nodes:
        if not calls(node):
            continue
        if node.target in EMBEDDINGS:
            if node.args[1] in moved:
                found.append(node)
        elif _only_moves(node) and node.all_input_nodes and node.all_input_nodes[0] in moved:
            moved.add(node)
    return tuple(found)


def tokens(graph: Graph, placeholder: Node, embedding: Node, ids: Tensor, relevance: Tensor) -> Tensor:
    """The relevance of an embedding [..., D], as one value per token in the shape of the ids."""
    per_token = relevance.sum(-1).flatten()
    where: Tensor = _replay(
        graph,
        placeholder,
        embedding.args[1],
        torch.arange(ids.numel(), device=ids.device).reshape(ids.shape),
    )
    return per_token.new_zeros(ids.numel()).index_add(0, where.flatten(), per_token).reshape(ids.shape)


def _only_moves(node: Node) -> bool:
    known = facts(node)
    return known.kind == "structural" and getattr(known.rule, "moves", False)


def _replay(graph: Graph, placeholder: Node, node: Any, numbers: Tensor) -> Any:
    """Send the numbers of the positions the way that the ids went."""
    if node is placeholder:
        return numbers
    values: dict[Node, Any] = {}
    for n in node.all_input_nodes:
        values[n] = _replay(graph, placeholder, n, numbers)
    if node.target is torch.ops.aten._to_copy.default:
        return next(iter(values.values()))
    return run_node(node, values)
