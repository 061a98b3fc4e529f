"""An explanation as plain numbers and words: what is printed of it, and what ``--json`` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import table

if TYPE_CHECKING:
    from relprop.explanation import Explanation

    from .reading import Sample

_GUESSES = 5


def facts(explanation: Explanation, sample: int, shown: Sample) -> dict[str, Any]:
    """What is known of one sample."""
    return {
        "input": shown.name,
        "prediction": predictions(explanation, sample),
        "targets": [_target(part, sample) for part in explanation.parts],
    }


def predictions(explanation: Explanation, sample: int) -> list[dict[str, Any]]:
    """The classes with the largest scores, if the output is one score for each class."""
    from relprop.errors import TargetError
    from relprop.targets import scores

    try:
        z = scores(explanation.output)
    except TargetError:
        return []
    if z.ndim != 2 or z.shape[1] < 2:
        return []
    best = z[sample].double().topk(min(_GUESSES, z.shape[1]))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"class": explanation.class_name(i), "index": i, "score": value} for value, i in pairs]


def _target(part: Any, sample: int) -> dict[str, Any]:
    book = part.ledger
    seed, received = float(book.seed[sample]), float(book.received[sample])
    return {
        "target": part.name(sample),
        "value": float(part.value[sample]),
        "seed": seed,
        "received": {name: float(amount[sample]) for name, amount in book.inputs.items()},
        "absorbed": {reason: float(amount[sample]) for reason, amount in book.by_reason().items()},
        "residual": float(book.residual[sample]),
        "share": received / seed if seed else None,
    }


def overview(found: Sequence[dict[str, Any]]) -> str:
    """A line for each target of each sample."""
    rows = [("input", "target", "value", "reached the inputs")]
    for one in found:
        for target in one["targets"]:
            share = "" if target["share"] is None else f"{100 * target['share']:.3g} %"
            rows.append((_short(one["input"]), target["target"], f"{target['value']:.4g}", share))
    return table(rows, right=(2, 3))


def _short(name: str) -> str:
    return name if len(name) <= 50 else f"{name[:24]}…{name[-25:]}"
