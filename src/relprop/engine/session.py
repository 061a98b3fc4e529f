"""A captured model under one composite and bias policy: questions in, answers out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.graph import Graph
from ..rules.message import Message
from .hidden import module_outputs
from .ledger import Ledger
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


def or_zeros(relevance: Tensor | None, value: Tensor) -> Tensor:
    return torch.zeros_like(value) if relevance is None else relevance
