"""What an explanation tells in words: the target, the prediction, the share that reached the input, the books."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..engine.ledger import MEANING, Ledger
from ..errors import TargetError
from ..targets import Titled, name_of, scores


def short(target: Any, sample: int | None = None, classes: Sequence[str] | None = None) -> str:
    """A target in a few words, of all samples or of one."""
    if classes is not None and (numbers := _numbers(target, sample)):
        names = [classes[i] if -len(classes) <= i < len(classes) else str(i) for i in numbers]
        return names[0] if len(set(names)) == 1 else f"[{', '.join(names)}]"
    name = name_of(target, sample)
    if classes is not None and isinstance(target, Titled):
        name = _CLASS.sub(lambda m: classes[int(m[1])] if int(m[1]) < len(classes) else m[0], name)
    return name if callable(target) or isinstance(target, str) else f"target {name}"


_CLASS = re.compile(r"\bclass (\d+)\b")


def _numbers(target: Any, sample: int | None) -> list[int]:
    """The classes that a target names by their numbers."""
    if isinstance(target, int) and not isinstance(target, bool):
        return [target]
    if not isinstance(target, Tensor) or target.ndim > 1 or target.dtype.is_floating_point:
        return []
    chosen = target.reshape(-1)
    if sample is not None and len(chosen) > 1:
        return [int(chosen[sample])]
    return chosen.tolist() if len(chosen) <= 8 else []  # more would fill the line


def widths(output: Any) -> int | None:
    """How many classes an output [B, C] has a score for."""
    try:
        z = scores(output)
    except TargetError:
        return None
    return z.shape[1] if z.ndim == 2 else None


def picklable(target: Any) -> Any:
    """Of a function its name, unless it can be pickled itself."""
    return name_of(target) if callable(target) and not isinstance(target, Titled) else target


def percent(share: float) -> str:
    """A share in per cent, with as many digits as say something."""
    size = abs(100 * share)
    return (
        f"{100 * share:.0f} %" if size >= 9.95 else f"{100 * share:.2g} %" if size >= 0.01 or not size else "< 0.01 %"
    )


def share_of(ledger: Ledger, sample: int, name: str | None = None) -> str | None:
    """How much of the value reached the explained inputs, or one of them; None where the value is zero."""
    seed = float(ledger.seed[sample])
    received = ledger.received if name is None else ledger.inputs.get(name, ledger.received)
    return percent(float(received[sample]) / seed) if seed else None


@dataclass(frozen=True)
class Guess:
    """A class that the model thinks of, with its score and its probability."""

    index: int
    score: float
    probability: float | None


def guesses(output: Any, sample: int, most: int = 5) -> list[Guess]:
    """The classes with the largest scores, if the output is one score a class, [B, C].

    Where the scores are no probabilities already, their softmax is given beside them.
    """
    try:
        z = scores(output)
    except TargetError:
        return []
    if z.ndim != 2 or z.shape[1] < 2 or not -len(z) <= sample < len(z):
        return []
    row = z[sample].detach().double().cpu()
    is_probability = bool((row >= 0).all()) and abs(float(row.sum()) - 1) < 1e-3
    p = row if is_probability else row.softmax(0)
    best = row.topk(min(most, len(row)))
    return [Guess(i, float(v), float(p[i])) for v, i in zip(best.values, best.indices.tolist(), strict=True)]


def books(ledger: Ledger) -> list[str]:
    """The ledger in three lines: what there was, what the inputs received, and who has the rest."""
    seed, samples = float(ledger.seed.sum()), len(ledger.seed)

    def told(amount: Tensor | float) -> str:
        value = float(amount.sum()) if isinstance(amount, Tensor) else amount
        return f"{value:.6g}" + (f" ({percent(value / seed)})" if seed else "")

    received = ", ".join(f"{name} {told(amount)}" for name, amount in ledger.inputs.items())
    kinds = sorted(ledger.by_reason().items(), key=lambda item: -float(item[1].abs().sum()))
    rest = [f"{reason} {told(amount)}" for reason, amount in kinds]
    start = f" ({ledger.start})" if ledger.start else ""
    return [
        f"ledger of {samples} sample{'s, summed' if samples > 1 else ''}: seed{start} {seed:.6g}",
        f"  received by {received}" if received else "  received by no input",
        "  absorbed by " + ", ".join([*rest, f"residual {told(ledger.residual)}"]),
    ]


def accounts(ledger: Ledger, sample: int) -> list[tuple[str, float]]:
    """Who received or absorbed how much of one sample: inputs first, then sinks by reason, then what is left."""
    kinds = sorted(ledger.by_reason().items(), key=lambda item: -abs(float(item[1][sample])))
    return [
        *((f"received by {name}", float(amount[sample])) for name, amount in ledger.inputs.items()),
        *((MEANING.get(reason, reason), float(amount[sample])) for reason, amount in kinds),
        ("residual", float(ledger.residual[sample])),
    ]


def target_of(target: Any, index: slice, count: int) -> Any:
    """A target, of some of the samples: what holds an index for each holds those of some."""
    if isinstance(target, Tensor):
        return target[index] if target.ndim and len(target) == count else target
    if isinstance(target, (tuple, list)):
        return type(target)(target_of(t, index, count) for t in target)
    if isinstance(target, Titled):
        return target.make(*(target_of(a, index, count) for a in target.arguments.values()))
    return target


def moved(x: Any, where: Sequence[Any], options: dict[str, Any]) -> Any:
    """Tensors as ``Tensor.to`` moves them; a number type is for floating-point tensors only."""
    if not isinstance(x, Tensor):
        return x
    if x.dtype.is_floating_point:
        return x.to(*where, **options)
    places = [w for w in where if not isinstance(w, torch.dtype)]
    rest = {name: value for name, value in options.items() if name != "dtype"}
    return x.to(*places, **rest) if places or rest else x
