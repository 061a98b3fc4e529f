"""Rules for the first layer, whose inputs have bounds, or none: z^B, w², flat."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RelevanceWarning, RuleError
from ..graph.graph import place
from .base import Call, Step
from .message import RELEVANCE, Form, Message, sign, stabiliser
from .neurons import Neurons, RealRule, check_number, negative, positive


@dataclass(frozen=True)
class InputRule(RealRule):
    """A rule whose relevance does not vanish where the input does: it sends relevance itself."""

    stabilizer: float = 1e-6
    multiple_of_output = True

    def __post_init__(self) -> None:
        check_number(self, "stabilizer", self.stabilizer)

    def form(self, step: Step) -> Form:
        return RELEVANCE

    def saves(self, step: Step) -> set[Node]:
        return {step.node} if step.form.c else set()

    def share(self, n: Neurons, z: Tensor) -> Tensor:
        """s = R / z, stabilised."""
        ε = sign(z) * (self.stabilizer or stabiliser(z.dtype))
        s = n.relevance / (z + ε)
        n.absorb("stabiliser", lambda: s * ε)
        return s


@dataclass(frozen=True)
class ZBox(InputRule):
    """LRP-z^B for inputs within known bounds, such as pixels (Montavon et al. 2017, "Deep Taylor", Table 1).

    R_j = Σ_k (a_j w_jk - l_j w_jk⁺ - h_j w_jk⁻) / Σ_j (a_j w_jk - l_j w_jk⁺ - h_j w_jk⁻) R_k; the bias cancels.

    When to use: the first layer, for pixels and other inputs of which the bounds are known.

    Args:
        low: smallest possible value of the input: a number, one per channel, or a tensor in the input's shape.
        high: largest possible value.
        stabilizer: added to the denominator with its sign.

    Raises:
        RuleError: if low exceeds high anywhere.
    """

    low: Any = -3.0
    high: Any = 3.0
    modifies_weights = True

    def __init__(self, low: Any = -3.0, high: Any = 3.0, stabilizer: float = 1e-6):
        for name, value in (("low", _bound(low)), ("high", _bound(high)), ("stabilizer", stabilizer)):
            object.__setattr__(self, name, value)
        self.__post_init__()
        low, high = torch.as_tensor(self.low), torch.as_tensor(self.high)
        if not bool((low <= high).all()):
            raise RuleError("ZBox: low must not exceed high")

    def __str__(self) -> str:
        return f"ZBox({_short(self.low)}, {_short(self.high)})"

    @classmethod
    def from_normalization(
        cls, mean: Sequence[float], std: Sequence[float], low: float = 0.0, high: float = 1.0, stabilizer: float = 1e-6
    ) -> ZBox:
        """The bounds of pixels in [low, high] after ``(pixel - mean) / std``, per channel."""
        mu, sigma = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(std, dtype=torch.float64)
        if not bool((sigma > 0).all()):
            raise RuleError(f"ZBox.from_normalization: std must be positive, got {list(std)}")
        return cls(tuple(((low - mu) / sigma).tolist()), tuple(((high - mu) / sigma).tolist()), stabilizer)

    def saves(self, step: Step) -> set[Node]:
        return {*super().saves(step), *step.active}

    def propagate(self, n: Neurons) -> Message:
        a, w = n.a, n.w
        low, high = expand_bound(self.low, a), expand_bound(self.high, a)
        _check_bounds(n.call, a, low, high)
        up, down = n.weight("positive", positive), n.weight("negative", negative)
        if _same_for_all(self.low, a) and _same_for_all(self.high, a):  # one sample is enough
            lowest, highest = (n.forward(expand_bound(v, a[:1]), m) for v, m in ((self.low, up), (self.high, down)))
        else:
            lowest, highest = n.forward(low, up), n.forward(high, down)
        s = self.share(n, n.forward(a, w) - lowest - highest)
        c, c_up = n.transpose(s, w), n.transpose(s, up)
        return Message(r=a * c - low * c_up - high * (c - c_up))  # w = w⁺ + w⁻


@dataclass(frozen=True)
class WSquare(InputRule):
    """LRP-w²: R_j = Σ_k w_jk² / Σ_j w_jk² R_k, for unbounded inputs (Montavon et al. 2017); no bias.

    When to use: the first layer, for inputs without bounds, zero or not.
    """

    def propagate(self, n: Neurons) -> Message:
        return _spread(self, n, n.w.square())


@dataclass(frozen=True)
class Flat(InputRule):
    """LRP-flat: every connected input gets the same (Lapuschkin et al. 2019); padding is no input.

    When to use: the first layer, to see where and not which pixels; it hides what the layer itself computes.
    """

    def propagate(self, n: Neurons) -> Message:
        return _spread(self, n, torch.ones_like(n.w))


def _check_bounds(call: Call, a: Tensor, low: Tensor, high: Tensor) -> None:
    """z^B promises non-negative denominators only for inputs within its bounds."""
    if call.context.is_traced:
        return
    tolerance = 1e-4 * (high - low).abs().max()
    if bool(((a < low - tolerance) | (a > high + tolerance)).any()):
        warnings.warn(
            f"inputs of {place(call.node)} are in [{a.min():.4g}, {a.max():.4g}], outside the bounds of the z^B rule "
            f"[{low.min():.4g}, {high.max():.4g}]: give the rule the bounds of your data "
            "(relprop.rules.ZBox.from_normalization(mean, std)).",
            RelevanceWarning,
            stacklevel=2,
        )


def _spread(rule: InputRule, n: Neurons, w: Tensor) -> Message:
    ones = n.call.context.like(n.layer.x).fill_(1)
    return Message(r=n.transpose(rule.share(n, n.forward(ones, w)), w))


def expand_bound(bound: Any, a: Tensor) -> Tensor:
    """A number, a value per channel or a whole tensor, in the shape of the input."""
    values = torch.as_tensor(bound, dtype=a.dtype, device=a.device)
    if values.ndim == 1 and a.ndim > 2 and len(values) == a.shape[1]:
        values = values.reshape(-1, *[1] * (a.ndim - 2))
    try:
        return values.expand_as(a)
    except RuntimeError:
        raise RuleError(
            f"ZBox: bounds of shape {tuple(values.shape)} do not fit an input of shape {tuple(a.shape)}; give a "
            "number, one value per channel, or a tensor of the input's shape"
        ) from None


def _same_for_all(bound: Any, a: Tensor) -> bool:
    return not isinstance(bound, Tensor) or bound.ndim < a.ndim or bound.shape[0] == 1


def _bound(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return (
        f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else "(" + ", ".join(f"{v:.3g}" for v in value) + ")"
    )
