"""z = z⁺ + z⁻: what speaks for a neuron and what speaks against it, and rules that treat the two differently.

    R_j = Σ_k z_jk⁺ s⁺_k + z_jk⁻ s⁻_k         z_jk = a_j w_jk, and the bias is one of the contributions

The factors s⁺ and s⁻ depend on z_k, z_k⁺, z_k⁻ and R_k alone, so that such a rule is a function of four tensors. It is
the whole rule: how z is split and relevance handed back, in as few products as there can be, is the same for all.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from .message import Message, stabiliser
from .neurons import Neurons, RealRule, check_number, negative, positive


class Parts(NamedTuple):
    """A neuron's output z, and the sums z⁺ and z⁻ of its positive and of its negative contributions."""

    z: Tensor
    up: Tensor
    down: Tensor


class Shares(NamedTuple):
    """What a neuron hands back: s⁺ times what speaks for it, s⁻ times what speaks against it."""

    up: Tensor
    down: Tensor
    kept: Tensor
    """The rest of its relevance, R - s⁺ z⁺ - s⁻ z⁻, which the stabiliser takes."""


class SplitRule(RealRule):
    """A rule of linear operations that says only what s⁺ and s⁻ are."""

    stabilizer: float = 1e-6
    modifies_weights = sends_new = True

    def __post_init__(self) -> None:
        for field in fields(self):
            check_number(self, field.name, getattr(self, field.name))

    def shares(self, z: Tensor, up: Tensor, down: Tensor, R: Tensor, ε: float) -> Shares:
        """s⁺ and s⁻ of every neuron.

        Args:
            z: z_k
            up: z_k⁺, at least zero.
            down: z_k⁻, at most zero.
            R: R_k
            ε: the stabiliser, a number above zero.
        """
        raise NotImplementedError

    def rho(self, w: Tensor) -> Tensor:
        """ρ(w) of the general form, where there is one."""
        raise NotImplementedError

    def is_general(self, n: Neurons) -> bool:
        """Whether the rule is Σ a ρ(w) / Σ_0,j a ρ(w) here: a single weight takes fewer products than a split."""
        return False

    def propagate(self, n: Neurons) -> Message:
        ε = self.stabilizer or stabiliser(n.w.dtype)
        if self.is_general(n):
            return four_steps(n, self, ε)
        shares = self.shares(*split(n), n.relevance, ε)
        n.absorb("stabiliser", lambda: shares.kept)
        return hand_back(n, shares)


def four_steps(n: Neurons, rule: SplitRule, ε: float) -> Message:
    """The general form for inputs of at least zero (Montavon et al. 2019, §10.2)."""
    w, b = n.weight(("rho", rule), rule.rho), None if n.b is None else rule.rho(n.b)
    z = n.forward(n.a, w, b).clamp(min=0) + ε
    s = n.relevance / z
    n.absorb_bias(s, b)
    n.absorb("stabiliser", lambda: s * ε)
    return Message(c=n.transpose(s, w))


def split(n: Neurons) -> Parts:
    """z⁺ and z⁻, by one product more than z.

    For inputs of at least zero, z⁺ is the product with w⁺. For others |z_jk| = |a_j| |w_jk| = z_jk⁺ - z_jk⁻ helps.
    """
    z, b = n.exact_z, n.b
    if n.signed:
        size = n.forward(n.a.abs(), n.weight("size", torch.abs), None if b is None else b.abs())
        up, down = (size + z) / 2, (z - size) / 2
    else:
        up = n.forward(n.a, n.weight("positive", positive), None if b is None else positive(b))
        down = z - up
        size = up - down
    nothing = 64 * torch.finfo(z.dtype).eps * size  # a part below this is an error of rounding: it is empty
    return Parts(z, torch.where(up > nothing, up, 0), torch.where(down < -nothing, down, 0))


def hand_back(n: Neurons, shares: Shares) -> Message:
    """c_j = Σ_k w_jk⁺ s⁺_k + w_jk⁻ s⁻_k for inputs of at least zero; for others s⁺ and s⁻ change places."""
    up, down, _ = shares
    if n.b is not None:
        n.absorb("bias", lambda: positive(n.b) * up + negative(n.b) * down)  # type: ignore[arg-type]
    if n.signed:  # w⁺ = (w + |w|) / 2, w⁻ = (w - |w|) / 2
        plain = n.transpose((up + down) / 2, n.w)
        size = n.transpose((up - down) / 2, n.weight("size", torch.abs))
        return Message(c=plain + n.a.sign() * size)
    return Message(c=n.transpose(down, n.w) + n.transpose(up - down, n.weight("positive", positive)))  # w⁻ = w - w⁺
