"""One linear operation in one run, as its rule sees it: a, w, b, z, and the two maps between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RuleError
from .base import Call, Messages, Rule, Step
from .layers import Layer, layer_in
from .message import COEFFICIENT, RELEVANCE, Form, Message, product, share


def positive(x: Tensor) -> Tensor:
    """x⁺ = max(x, 0)"""
    return x.clamp(min=0)


def negative(x: Tensor) -> Tensor:
    """x⁻ = min(x, 0)"""
    return x.clamp(max=0)


class Neurons:
    """One linear operation in one run: its input a, output z, weight w and bias b, and the two maps between them."""

    def __init__(self, call: Call, layer: Layer, relevance: Message):
        self.call, self.layer, self.message = call, layer, relevance
        self.accumulate = call.context.accumulate
        self.absorbed: dict[str, Tensor] = {}

    @property
    def a(self) -> Tensor:
        return self.accumulate(self.call.value(self.layer.x))

    @property
    def w(self) -> Tensor:
        return self.accumulate(self.call.value(self.layer.weight))

    @property
    def b(self) -> Tensor | None:
        """The bias, or None where there is none or the policy removes it."""
        if self.layer.bias is None or self.call.step.bias == "zero":
            return None
        return self._bias()

    @property
    def z(self) -> Tensor:
        """Σ_j a_j w_jk (+ b_k, unless the policy removes the bias)."""
        return self.accumulate(self.call.saved["z"]) if "z" in self.call.saved else self.output

    @cached_property
    def exact_z(self) -> Tensor:
        """z in the precision of relevance, for rules that subtract it: models in half precision round their outputs."""
        if self.call.output.dtype == self.z.dtype:
            return self.z
        return self.layer.run(self.a, self.w, self.b)

    @property
    def output(self) -> Tensor:
        return self.accumulate(self.call.output)

    @property
    def signed(self) -> bool:
        """Whether an input may be negative."""
        return self.layer.x not in self.call.step.nonnegative

    @property
    def output_is_relu(self) -> bool:
        """Whether relu(z) stands for z, since relevance is zero where z is negative."""
        return self.call.step.output_is_relu

    def _bias(self) -> Tensor:
        return self.layer.spread_bias(self.accumulate(self.call.value(self.layer.bias)))

    # -- the relevance that arrives -----------------------------------------------------------------------------------

    @property
    def relevance(self) -> Tensor:
        """R_k"""
        return self.message.relevance(self.output if self.message.c is not None else None)

    def share(self, z: Tensor, epsilon: float | Tensor) -> Tensor:
        """s_k = R_k / (z_k + ε sign z_k)"""
        is_output = self.call.step.bias != "zero"  # else z is the output without its bias
        return share(self.message if is_output else Message(r=self.relevance), z, epsilon)

    # -- the two maps -------------------------------------------------------------------------------------------------

    def forward(self, a: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """Σ_j a_j w_jk (+ b_k)"""
        return self.layer.run(a, w, b)

    def transpose(self, s: Tensor, w: Tensor) -> Tensor:
        """Σ_k w_jk s_k"""
        return self.layer.transpose(s, w.conj() if w.is_complex() else w, self.call.shape(self.layer.x))

    def weight(self, key: Any, modify: Callable[[Tensor], Tensor]) -> Tensor:
        """A modified weight ρ(w), made when it is first needed and kept until the parameters change.

        Args:
            key: tells this weight from others that the same rule makes of w.
            modify: makes it.
        """
        rule = self.call.step.rule
        if not rule.modifies_weights:
            return modify(self.w)
        return self.call.context.derived((self.layer.weight, type(rule), key), lambda: modify(self.w))

    # -- what is absorbed ---------------------------------------------------------------------------------------------

    @property
    def absorbs(self) -> bool:
        """Whether anybody asks for what is absorbed."""
        return self.call.context.keeps_books or self.call.step.bias == "redistribute"

    def absorb(self, kind: str, amount: Callable[[], Tensor]) -> None:
        """Book what neuron 0 or the stabiliser takes, or keep it to be redistributed."""
        if self.call.step.bias == "redistribute":
            value = amount()
            self.absorbed[kind] = self.absorbed[kind] + value if kind in self.absorbed else value
        else:
            self.call.book(kind, amount)

    def absorb_bias(self, s: Tensor, b: Tensor | None) -> None:
        if b is not None:
            self.absorb("bias", lambda: product(b, s))

    def redistributed(self) -> Tensor | None:
        """An equal part of what was absorbed for each input that is connected: (b_k + ε sign z_k) / N_k s_k."""
        if not self.absorbed:
            return None
        ones = torch.ones_like(self.w)
        connections = self.forward(self.call.context.like(self.layer.x).fill_(1), ones)
        lonely = connections == 0  # a window that lies in the padding altogether
        for kind, amount in self.absorbed.items():
            self.call.book(kind, lambda a=amount: torch.where(lonely, a, 0))  # type: ignore[misc]
        total = sum(self.absorbed.values())
        spread = self.transpose(torch.where(lonely, 0, total / connections), ones)
        return spread.real if spread.is_complex() else spread


@dataclass(frozen=True)
class LinearRule(Rule):
    """A rule for operations z = W a + b with a constant weight."""

    def supports(self, step: Step) -> str | None:
        if layer_in(step) is None:
            return "it is defined for linear operations with a constant weight"
        return None

    def look_up(self, step: Step) -> Layer | None:
        return layer_in(step)

    def form(self, step: Step) -> Form:
        return COEFFICIENT | (RELEVANCE if step.bias == "redistribute" else Form())

    def saves(self, step: Step) -> set[Node]:
        return {step.node, *step.active}

    def forward(self, call: Call) -> Any:
        layer: Layer = call.step.known.bind(call)
        a, w, b = call.value(layer.x), call.value(layer.weight), call.value(layer.bias)
        if b is None:
            return layer.run(a, w, None)
        if call.step.bias != "zero":
            return layer.run(a, w, layer.spread_bias(b))
        # z without bias cannot be had from z with bias: the difference of the two would be rounding where z is zero
        z = call.saved["z"] = layer.forward(a, w)
        return z + layer.spread_bias(b)

    def backward(self, call: Call, message: Message) -> Messages:
        layer: Layer = call.step.known.bind(call)
        neurons = Neurons(call, layer, message)
        propagate = self.in_place(call) or type(self).propagate
        sent = propagate(self, neurons)
        spread = neurons.redistributed()
        return [sent if spread is None else sent.plus(Message(r=spread))]

    def propagate(self, n: Neurons) -> Message:
        """The message to the input."""
        raise NotImplementedError


@dataclass(frozen=True)
class RealRule(LinearRule):
    """A rule that asks for the signs of numbers, or for bounds."""

    def supports(self, step: Step) -> str | None:
        if (complaint := super().supports(step)) is not None:
            return complaint
        is_complex = step.node.meta["val"].dtype.is_complex
        return (
            "complex numbers have no sign and no bounds; Epsilon and LRP0 are defined for them" if is_complex else None
        )


# ---------------------------------------------------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------------------------------------------------


def check_number(rule: Rule, name: str, value: Any) -> None:
    """Raise unless a rule's parameter is a finite number of at least zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise RuleError(f"{type(rule).__name__}: {name} must be a finite number >= 0, got {value!r}")
