"""The formulas of linear.py once more, each in the memory of what was computed before.

A fresh tensor of a layer's size takes longer than what is computed in it, so this is what runs where nobody
differentiates or traces a call. Nothing depends on it: without this file every number is the same.

Where inputs may be negative, twice z⁺ is Σ |z_jk| + z, and half of s⁺ and of s⁻ is what is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import TWINS
from .elementwise import Identity
from .linear import AlphaBeta, Epsilon, Gamma, ZPlus
from .message import Message, sign, stabiliser
from .neurons import Neurons, negative, positive
from .pooling import Stabilised
from .split import SplitRule

aten = torch.ops.aten
ROUNDING = 64
"""Times the machine precision: a part of z that is smaller than this, next to the other part, is empty."""


def twin_of(rule: type) -> Callable[[Any], Any]:
    """The function takes the place of the rule's own."""

    def register(twin: Any) -> Any:
        TWINS[rule] = twin
        return twin

    return register


# ---------------------------------------------------------------------------------------------------------------------
# The rules
# ---------------------------------------------------------------------------------------------------------------------


@twin_of(Epsilon)
def epsilon(rule: Epsilon, n: Neurons) -> Message:
    c = n.message.c
    if rule.epsilon == 0 or c is None or n.message.r is not None or n.call.step.bias == "zero" or n.z.is_complex():
        return rule.propagate(n)
    z = n.z
    ε = rule.stabiliser(z)
    s = damped(c, z, ε, n.output_is_relu)
    if n.absorbs:
        n.absorb("stabiliser", lambda: s * sign(z) * ε)
        n.absorb_bias(s, n.b)
    return Message(c=n.transpose(s, n.w))


@twin_of(Stabilised)
def stabilised(rule: Stabilised, z: Tensor, message: Message, nonnegative: bool) -> Tensor:
    if message.c is None or message.r is not None or z.is_complex():
        return rule.share(z, message, nonnegative)
    return damped(message.c, z, rule.epsilon(z), nonnegative)


@twin_of(Identity)
def identity(ratio: Tensor, c: Tensor) -> Tensor:
    """f(x)/x, which was made for this alone, times c."""
    return ratio.mul_(c) if ratio.dtype == c.dtype and ratio.shape == c.shape else ratio * c


@twin_of(Gamma)
def gamma(rule: Gamma, n: Neurons) -> Message:
    if rule.is_general(n):
        return four_steps(rule, n)
    if rule.gamma == 0:
        return rule.propagate(n)
    γ, z = rule.gamma, n.exact_z
    if n.signed:  # |z + γ z^±| + ε is γ/2 (Σ |z_jk| + (1 + 2/γ) |z|) + ε
        ε, k = 2 / γ * stabiliser_of(rule, n), 1 + 2 / γ
        d = size_of(n, ε).add_(z if n.output_is_relu else z.abs(), alpha=k)
    else:  # it is γ z⁺ + z + ε, and where z is negative γ (z⁺ - z) - z + ε
        ε, k = 1 / γ * stabiliser_of(rule, n), -1 - 1 / γ
        d = up_of(n, ε).add_(z, alpha=1 / γ).add_(negative(z), alpha=-1 - 2 / γ)
    difference = torch.div(n.relevance, d.clamp_(min=ε), out=d)
    n.absorb("stabiliser", lambda: difference * ε)
    if n.signed:
        return hand_back(n, difference, difference if n.output_is_relu else sign_of(z).mul_(difference), k)
    # s⁻ is k times the difference where z is negative, else 1/γ times
    return hand_back(n, difference, aten.leaky_relu_backward(difference, -z, 1 / (γ * k), False), k)


@twin_of(AlphaBeta)
def alpha_beta(rule: AlphaBeta, n: Neurons) -> Message:
    z, two = n.exact_z, 2 if n.signed else 1
    ε, rounding = two * stabiliser_of(rule, n), two * ROUNDING * torch.finfo(z.dtype).eps
    up = (size_of(n, ε).add_(z) if n.signed else up_of(n, ε)).clamp_(min=ε)
    down = torch.sub(up, z, alpha=two)
    relevance, is_down = n.relevance, torch.sub(down, z, alpha=rounding)
    of_down = only_above(ε, is_down, relevance, out=is_down)
    is_new = n.message.c is not None  # else it is what arrived, which others may hold
    of_up = torch.add(relevance, of_down, alpha=rule.beta, out=relevance if is_new else None)  # α = 1 + β
    if n.output_is_relu:  # z is positive where there is relevance: something speaks for it
        of_down.mul_(rule.beta)
    else:
        is_up = torch.add(up, z, alpha=rounding)
        of_up = only_above(ε, is_up, of_up, out=of_up)
        both = only_above(ε, is_up, of_down, out=is_up)
        of_down = both.mul_(rule.alpha).sub_(of_down)  # β where there are both parts, else -1
        n.absorb("stabiliser", lambda: n.relevance - of_up + of_down)  # there is neither
    s_up, s_down = torch.div(of_up, up, out=up), torch.div(of_down, down.clamp_(min=ε), out=down)
    rest = s_up + s_down if n.signed else s_down
    difference = s_up.sub_(s_down)
    n.absorb("stabiliser", lambda: difference * ε)
    return hand_back(n, difference, rest)


@twin_of(ZPlus)
def z_plus(rule: ZPlus, n: Neurons) -> Message:
    if rule.is_general(n):
        return four_steps(rule, n)
    z, ε, relevance = n.exact_z, 2 * stabiliser_of(rule, n), n.relevance
    up = size_of(n, ε).add_(z)
    if not n.output_is_relu:
        is_up = torch.add(up, z, alpha=2 * ROUNDING * torch.finfo(z.dtype).eps)
        relevance = only_above(ε, is_up, relevance, out=is_up)
        n.absorb("stabiliser", lambda: n.relevance - relevance)
    s = torch.div(relevance, up.clamp_(min=ε), out=up)
    n.absorb("stabiliser", lambda: s * ε)
    return hand_back(n, s, s)


# ---------------------------------------------------------------------------------------------------------------------
# What they are made of
# ---------------------------------------------------------------------------------------------------------------------


def stabiliser_of(rule: SplitRule, n: Neurons) -> float:
    return rule.stabilizer or stabiliser(n.w.dtype)


def damped(c: Tensor, z: Tensor, ε: float | Tensor, nonnegative: bool) -> Tensor:
    """R / (z + ε sign z) for R = c z, which is c |z| / (|z| + ε)."""
    size = z if nonnegative else z.abs()
    if isinstance(ε, Tensor) or size is z:
        share = size + ε
        return torch.div(size, share, out=share).mul_(c)
    # c / (1 + ε / |z|) needs no second tensor
    torch.div(torch.scalar_tensor(ε, dtype=z.dtype), size, out=size)
    return torch.div(c, size.add_(1), out=size)


def four_steps(rule: Gamma | ZPlus, n: Neurons) -> Message:
    """The general form, as in split.py."""
    ε, w, b = stabiliser_of(rule, n), n.weight(("rho", rule), rule.rho), None if n.b is None else rule.rho(n.b)
    z = started(n, n.a, w, b, ε).clamp_(min=ε)
    s = torch.div(n.relevance, z, out=z)
    n.absorb_bias(s, b)
    n.absorb("stabiliser", lambda: s * ε)
    return Message(c=n.transpose(s, w))


def size_of(n: Neurons, ε: float) -> Tensor:
    """Σ_0,j |z_jk| + ε"""
    return started(n, n.a.abs(), n.weight("size", torch.abs), None if n.b is None else n.b.abs(), ε)


def up_of(n: Neurons, ε: float) -> Tensor:
    """z_k⁺ + ε for inputs of at least zero."""
    return started(n, n.a, n.weight("positive", positive), None if n.b is None else positive(n.b), ε)


def started(n: Neurons, a: Tensor, w: Tensor, b: Tensor | None, ε: float) -> Tensor:
    """Σ_j a_j w_jk + b_k + ε, in one operation."""
    return n.layer.forward_from(a.new_tensor(ε) if b is None else b + ε, a, w)


def only_above(low: float, x: Tensor, relevance: Tensor, out: Tensor) -> Tensor:
    """The relevance where x exceeds a number, else zero."""
    kept: Tensor = aten.threshold_backward.grad_input(relevance, x, low, grad_input=out)
    return kept


def sign_of(z: Tensor) -> Tensor:
    """As :func:`sign`."""
    return torch.sign(z).add_(0.5).sign_()


def hand_back(n: Neurons, difference: Tensor, rest: Tensor, k: float = 1) -> Message:
    """c_j = Σ_k w_jk⁺ s⁺_k + w_jk⁻ s⁻_k, from the difference s⁺ - s⁻ and from what k times the rest is.

    That is s⁻ for inputs of at least zero, and s⁺ + s⁻ for those of either sign.
    """
    b, modify = n.b, torch.abs if n.signed else positive
    if b is not None:
        n.absorb("bias", lambda: difference * modify(b) + rest * (k * b))
    c = n.transpose(difference, n.weight("size" if n.signed else "positive", modify))
    if n.signed:
        c.mul_(n.a.sign())
    return Message(c=c.add_(n.transpose(rest, n.w), alpha=k))
