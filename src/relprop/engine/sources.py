"""Where relevance is read: the explained inputs, or the embeddings of those that are integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import InputError
from ..graph.graph import Graph, is_float, place
from ..rules.message import Message
from .ids import token_nodes, tokens
from .ledger import Ledger
from .plan import Plan
from .run import Run


def sources_of(graph: Graph, chosen: Sequence[int], wrt: Any) -> list[Node]:
    """The nodes at which the relevance of the chosen inputs is read.

    Raises:
        InputError: if there is none.
    """
    sources: list[Node] = []
    for i in chosen:
        node = graph.inputs[i]
        assert node is not None
        sources += [node] if is_float(node) else list(token_nodes(graph, node))
    if not sources:
        raise InputError(
            "nothing to explain: no input is a floating-point tensor or indexes an embedding (inputs: "
            f"{', '.join(graph.input_names) or 'none'}{', wrt: ' + repr(wrt) if wrt is not None else ''})."
        )
    return sources


def relevances_of(
    plan: Plan, run: Run, messages: dict[Node, Message], ledger: Ledger | None = None
) -> list[Tensor | None]:
    """Relevance of every leaf of the inputs."""
    graph, leaves = plan.graph, run.leaves
    results: list[Tensor | None] = [None] * len(leaves)
    for i, node in enumerate(graph.inputs):
        if node is None:
            continue
        explained = [node] if node in plan.sources else [n for n in token_nodes(graph, node) if n in plan.sources]
        if not explained:
            continue
        total = torch.zeros_like(leaves[i], dtype=_relevance_dtype(leaves[i]))
        for source in explained:
            message = messages.get(source)
            if message is None:
                continue
            relevance = message.relevance(run.accumulate(run.values[source]))
            if ledger is not None:
                name = graph.input_names[i] if len(explained) == 1 else f"{graph.input_names[i]} via {place(source)}"
                amount = run.per_sample(relevance, source)
                if run.is_shared(source):
                    ledger.shared.add(name)
                ledger.inputs[name] = ledger.inputs.get(name, torch.zeros_like(amount)) + amount
            total = total + (relevance if source is node else tokens(graph, node, source, leaves[i], relevance))
        if ledger is not None and not any(s in messages for s in explained):
            ledger.inputs[graph.input_names[i]] = torch.zeros_like(ledger.seed)
        results[i] = total
    return results


def _relevance_dtype(leaf: Tensor) -> torch.dtype:
    return leaf.dtype if leaf.dtype == torch.float64 else torch.float32
