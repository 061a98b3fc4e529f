"""A captured model under one composite and bias policy: questions in, answers out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.graph import Graph, place
from ..rules.message import Message
from .embeddings import token_nodes, tokens
from .hidden import module_outputs
from .ledger import Ledger
from .plan import Plan
from .run import Run
from .seeds import Seed

SEEDS = ("output", "unit")


def nodes_of_mask(graph: Graph, mask: Mapping[str, Any]) -> list[tuple[Node, Any]]:
    return [(node, m) for path, m in mask.items() for node in module_outputs(graph, [path]).values()]


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


def open_ledger(run: Run, found: Seed, seeds: dict[Node, Message], graph: Graph, leaves: list[Any]) -> Ledger:
    run.batch = len(found.value)
    run.ledger = Ledger(found.value.detach().double() if found.value.device.type != "mps" else found.value.detach())
    started = torch.zeros_like(run.ledger.seed)
    for node, message in seeds.items():
        started = started + run.per_sample(message.relevance(run.values[node]), node)
    missing = run.ledger.seed - started
    if float(missing.abs().max()) > 1e-12 * float(run.ledger.seed.abs().max() + 1):
        run.ledger.book("target", next(iter(seeds)), missing)
    return run.ledger


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


def or_zeros(relevance: Tensor | None, value: Tensor) -> Tensor:
    return torch.zeros_like(value) if relevance is None else relevance


def _relevance_dtype(leaf: Tensor) -> torch.dtype:
    return leaf.dtype if leaf.dtype == torch.float64 else torch.float32
