"""What a reader should look at before a map is believed."""

from __future__ import annotations

from torch import Tensor

from ..view.page import Check
from .explained import Explained
from .facts import guesses, percent


def checks_of(part: Explained, sample: int, relevance: Tensor, is_image: bool, is_text: bool) -> list[Check]:
    """Checks of one target of one sample.

    Args:
        part: an explanation of one target.
        sample: which one.
        relevance: of the input that is drawn, of this sample.
        is_image: whether it is [C, H, W].
        is_text: whether it has one value, or one vector, per token.
    """
    ledger, size = part.ledger, float(relevance.double().abs().sum())
    seed, residual = float(ledger.seed[sample]), float(ledger.residual[sample])
    found = [_reached(float(ledger.received[sample]), seed), _growth(size, seed)]
    off = abs(residual) / (abs(seed) or 1.0)
    found.append(
        Check(
            "residual of the books",
            percent(off),
            "what no account can explain; more than rounding is a bug",
            off < 1e-3,
        )
    )
    if seed < 0:
        meaning = "the explained value is below zero, and so is most relevance: blue is what it is made of"
        found.append(Check("sign of the value", f"{seed:.4g}", meaning, False))
    best = guesses(part.output, sample, 1)
    if best and isinstance(part.target, Tensor) and part.target.ndim == 1:
        chosen = int(part.target[sample])
        meaning = (
            "the explained class is the predicted one" if chosen == best[0].index else "another class was explained"
        )
        found.append(Check("predicted class", part.class_name(best[0].index), meaning, chosen == best[0].index))
    if is_text and size and len(relevance):
        share = float(relevance[0].double().abs().sum()) / size
        few = share < max(0.25, 2 / len(relevance))
        found.append(
            Check("|relevance| of the first token", percent(share), "much of it there is often an attention sink", few)
        )
    if is_image and size:
        found.append(_frame(relevance, size))
    return found


def _reached(received: float, seed: float) -> Check:
    share = received / seed if seed else 0.0
    meaning = "how much of the value reached the inputs"
    if abs(share) < 0.05:
        meaning = "the map explains less than 5 % of the value; who took the rest stands below; bias= chooses"
    elif share < 0:
        meaning = "the inputs received the opposite of the value, and sinks more than all: see below"
    elif share > 3:
        meaning = "the inputs received several times the value, and sinks the opposite: see below"
    return Check("share that reached the inputs", percent(share), meaning, 0.05 <= share <= 3)


def _growth(size: float, seed: float) -> Check:
    growth = size / abs(seed) if seed else float("inf")
    meaning = "Σ|relevance| over |value|: much more than 1 is what cancels, or divisions by small sums"
    return Check("growth", f"{growth:.3g}", meaning, growth < 100)


def _frame(relevance: Tensor, size: float) -> Check:
    """Relevance in the outer tenth of an image, against the tenth's part of its area."""
    h, w = relevance.shape[-2:]
    top, left = max(1, h // 10), max(1, w // 10)
    inner = relevance.double().abs()[..., top : h - top, left : w - left]
    share = 1 - float(inner.sum()) / size
    area = 1 - (h - 2 * top) * (w - 2 * left) / (h * w)
    meaning = f"the outer tenth of each side, {percent(area)} of the area; far more there is often padding"
    return Check("|relevance| in the frame", percent(share), meaning, share < 2 * area)
