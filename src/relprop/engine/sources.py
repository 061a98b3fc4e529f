"""Where relevance is read: the inputs that are explained, and the rows that their values choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import InputError
from ..graph.graph import Graph, calls, is_float, place
from ..rules.message import Message
from .ledger import Ledger
from .lookups import lookups
from .plan import Plan
from .question import Wrt
from .run import Run
from .shares import Shares, shares_of

aten = torch.ops.aten

COUNTS = {aten.cumsum.default, aten.cumprod.default, aten.scatter_add.default, aten.index_add.default}
"""Operations that count, as positions are counted: what comes out is nobody's."""


def sources_of(graph: Graph, chosen: Sequence[int], wrt: Wrt) -> dict[Node, tuple[int, ...]]:
    """The nodes at which relevance is read -> positions of the explained inputs that it belongs to.

    Args:
        graph: of the model.
        chosen: positions of the inputs to explain.
        wrt: as it was given; None if the inputs were chosen by what they are.

    Raises:
        InputError: if there is none, or if it cannot be told which values of an input chose what.
    """
    for i, node in enumerate(graph.inputs):
        if node is not None and not is_float(node) and (wrt is None or i in chosen):
            _refuse_lost(graph, i)
    sources: dict[Node, tuple[int, ...]] = {}
    for i in chosen:
        placeholder = graph.inputs[i]
        assert placeholder is not None
        if is_float(placeholder):
            sources[placeholder] = (i,)
        for node, lookup in lookups(graph).rows.items():
            if i in lookup.inputs:
                sources[node] = (*sources.get(node, ()), i)
    if not sources:
        named = zip(graph.input_names, graph.inputs, strict=True)
        came = ", ".join(f"{name} of {n.meta['val'].dtype}" if n is not None else name for name, n in named)
        raise InputError(
            "nothing to explain: no input is a floating-point tensor, or chooses rows of an embedding or another table "
            f"(inputs: {came or 'none'}{', wrt: ' + repr(wrt) if wrt is not None else ''}). If the integers of one are "
            "values to compute with, such as the bytes of an image, give it as floating-point numbers: x.float()."
        )
    return sources


def _refuse_lost(graph: Graph, i: int) -> None:
    """Raise if an input chooses rows, but none of which it can be told who chose them."""
    found = lookups(graph)
    if any(i in lookup.inputs for lookup in found.rows.values()):
        return
    for node, origin in found.missed.items():
        if i in origin.inputs and origin.lost is not None and _mixes_ids(origin.lost, graph):
            raise InputError(
                f"input {graph.input_names[i]!r} chooses rows of {place(node)}, but which of its values chose which "
                f"row cannot be followed through {place(origin.lost)}. Do this to the ids before the model is called, "
                "or name the inputs to explain instead: wrt=[...]."
            )


def _mixes_ids(node: Node, graph: Graph) -> bool:
    """Whether an operation makes ids of ids; counts, and choices that a network makes itself, are nobody's."""
    values = [n.meta.get("val") for n in node.all_input_nodes if n not in graph.constants]
    ids = all(isinstance(v, Tensor) and not v.dtype.is_floating_point and v.dtype != torch.bool for v in values)
    return calls(node) and node.target not in COUNTS and ids


# ---------------------------------------------------------------------------------------------------------------------
# What arrives there
# ---------------------------------------------------------------------------------------------------------------------


def relevances_of(
    plan: Plan, run: Run, messages: Mapping[Node, Message], ledger: Ledger | None = None
) -> list[Tensor | None]:
    """Relevance of every leaf of the inputs; what each received is entered in the ledger."""
    graph, leaves = plan.graph, run.leaves
    found: dict[int, Tensor] = {}
    for i in (i for inputs in plan.sources.values() for i in inputs):
        leaf = leaves[i] if leaves[i].layout == torch.strided else leaves[i].to_dense()
        found[i] = torch.zeros_like(leaf, dtype=_relevance_dtype(leaf))
    for source, inputs in plan.sources.items():
        if source not in messages:
            continue
        relevance = messages[source].relevance(run.accumulate(run.values[source]))
        shares = None if source in graph.inputs else shares_of(source, lookups(graph).rows[source], run)
        received = {inputs[0]: relevance} if shares is None else shares.of_inputs(relevance)
        for i in inputs:
            found[i] = found[i] + received[i]
        if ledger is not None:
            _enter(ledger, run, source, relevance, received, shares)
    if ledger is not None:
        for i in found:
            if not any(source in messages for source, inputs in plan.sources.items() if i in inputs):
                ledger.inputs[graph.input_names[i]] = torch.zeros_like(ledger.seed)
    return [found.get(i) for i in range(len(leaves))]


def _enter(
    ledger: Ledger, run: Run, source: Node, relevance: Tensor, received: Mapping[int, Tensor], shares: Shares | None
) -> None:
    """Enter what arrived at one source: for each input, and what is nobody's."""
    plan, graph = run.plan, run.plan.graph
    for i, amount in received.items():
        shaped_as: Node = graph.inputs[i]  # type: ignore[assignment]
        if shares is not None and run.is_shared(shaped_as):  # its rows may be those of samples, though it has none
            shaped_as, amount = source, relevance * shares.of_input(i)
        if i not in plan.sources[source]:
            run.book("input", source, amount, shaped_as)
            continue
        own = run.per_sample(amount, shaped_as)
        several = shares is not None and sum(i in inputs for inputs in plan.sources.values()) > 1
        name = f"{graph.input_names[i]} via {place(source)}" if several else graph.input_names[i]
        ledger.inputs[name] = ledger.inputs[name] + own if name in ledger.inputs else own
        if run.is_shared(shaped_as):
            ledger.shared.add(name)
    if shares is not None and bool((nobody := relevance * shares.of_nobody()).any()):
        run.book("parameter", source, nobody, source)


def _relevance_dtype(leaf: Tensor) -> torch.dtype:
    return leaf.dtype if leaf.dtype == torch.float64 else torch.float32
