"""What an explanation can be told by: digests of the model, the plan, the inputs and everything that came out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.digest import digest
from ..engine.ledger import Ledger
from .explained import Explained


def digests_of(explanation: Explained, model: str | None = None) -> dict[str, str]:
    """SHA-256 of each. That of the model is of its parameters as they are now; "" where they are not known any more.

    Args:
        explanation: whatever its plan is, the live one or the one that was kept as text.
        model: its digest, if it is known already.
    """
    return {
        "model": explanation.plan.model_digest if model is None else model,
        "plan": plan_digest(str(explanation.plan)),
        "inputs": digest(explanation.inputs),
        "relevance": digest(explanation.relevance),
        "output": digest(explanation.output),
        "value": digest(explanation.value),
        "ledger": digest([written(book) for book in explanation.ledgers]),
    }


def plan_digest(text: str) -> str:
    """Of operations and rules, wherever the source of the model lies: the last column of the table does not count."""
    title, _, table = text.partition("\n")
    end = table.partition("\n")[0].find("source")
    rows = [line[:end].rstrip() if end > 0 else line for line in table.split("\n") if line.strip("-")]
    return digest([title, *rows])


def written(book: Ledger) -> Mapping[str, Any]:
    """A ledger as plain values, which a file can hold."""
    return {
        "seed": book.seed,
        "inputs": book.inputs,
        "sinks": [[reason, node, amount] for (reason, node), amount in book.sinks.items()],
        "shared": sorted(book.shared),
        "start": book.start,
    }
