"""An explanation as plain values, which a file can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

from ..engine.ledger import Ledger
from ..engine.plan import PrintedPlan
from ..errors import FileError
from ..targets import name_of
from .digests import digests_of, written
from .explained import Explained


def content_of(explanation: Explained) -> dict[str, Any]:
    """Everything as tensors, numbers and text: of the plan its table, of functions their names."""
    plan, apart = explanation.plan, ("plan", "ledger", "target")
    return {
        **{f.name: getattr(explanation, f.name) for f in fields(explanation) if f.name not in apart},
        "target": pytree.tree_map(lambda t: name_of(t) if callable(t) else t, explanation.target),
        "several": explanation.several,
        "ledgers": [written(book) for book in explanation.ledgers],
        "plan": {
            "text": str(plan),
            "input_names": list(plan.input_names),
            "convolved": sorted(plan.convolved),
            "table_rows": dict(plan.table_rows),
            "model_digest": plan.model_digest,
        },
        "digests": digests_of(explanation),
    }


def fields_of(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of an explanation, from what :func:`content_of` made of it.

    Raises:
        FileError: if something is missing or of another kind; ``where`` names the file.
    """
    try:
        rest = {name: value for name, value in content.items() if name not in ("plan", "ledgers", "several", "digests")}
        plan = PrintedPlan(**{**content["plan"], "convolved": set(content["plan"]["convolved"])})
        ledgers = [_read(book) for book in content["ledgers"]]
        found = {**rest, "plan": plan, "ledger": ledgers if content["several"] else ledgers[0]}
        known = {f.name for f in fields(Explained)}
        if found.keys() != known:
            raise ValueError(f"its fields are {', '.join(sorted(found))}")
        if not isinstance(found["value"], Tensor) or not found["value"].ndim:
            raise ValueError("value is no tensor [B]")
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(f"{where!r} lacks what an explanation has ({type(error).__name__}: {error})") from error


def _read(book: Mapping[str, Any]) -> Ledger:
    sinks = {(reason, node): amount for reason, node, amount in book["sinks"]}
    if not all(isinstance(x, Tensor) for x in (book["seed"], *book["inputs"].values(), *sinks.values())):
        raise TypeError("the ledger holds something else than tensors")
    return Ledger(book["seed"], dict(book["inputs"]), sinks, set(book["shared"]), str(book["start"]))
