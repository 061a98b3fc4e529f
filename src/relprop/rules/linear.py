"""The rules of linear operations: dense layers, convolutions, transposed convolutions (z_k = Σ_j a_j w_jk + b_k).

Every rule is the four steps of the general form (Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview",
§10.2) with its own ρ:

    R_j = Σ_k  a_j ρ(w_jk) / (ε + Σ_0,j a_j ρ(w_jk))  R_k

1. z_k = Σ_0,j a_j ρ(w_jk) + ε     2. s_k = R_k / z_k     3. c_j = Σ_k ρ(w_jk) s_k     4. R_j = a_j c_j

The last step is left to whoever asks for the relevance: c is what is sent. For signed inputs ρ depends on the sign of
a_j: ``by_sign`` takes one weight for positive and one for negative inputs. The bias is neuron 0; what it and the
stabiliser absorb is booked, or redistributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RuleError
from .base import Step
from .layers import layer_in
from .message import (
    Message,
    at_least,
    damped,
    plus,
    product,
    quotient,
    relative_scale,
    sign,
    stabilise,
    stabiliser,
    times,
    where_above,
)
from .neurons import LinearRule, Neurons, Weight, check_number


class Favour:
    """The weight that favours one sign: ρ(w) = p w + q |w| for inputs of at least zero, p w - q |w| for negative ones.

    w⁺ = (w + |w|) / 2 and w⁻ = (w - |w|) / 2, so that p = q = 1/2 is z⁺, and p = 1 + γ/2 with q = γ/2 is γ. Inputs of
    either sign take two products, one with w and one with |w|.
    """

    def __init__(self, neurons: Neurons, p: float, q: float):
        self.n, self.p, self.q = neurons, p, q

    def rho(self, w: Tensor) -> Tensor:
        """ρ(w) for inputs of at least zero, such as neuron 0."""
        return plus(w * self.p, w.abs(), self.q)

    @property
    def rho_w(self) -> Weight:
        return self.n.weight(("favour", self.p, self.q), self.rho)

    def q_size(self, w: Tensor) -> Tensor:
        """q |w|"""
        return times(w.abs(), self.q)

    @property
    def q_size_of_w(self) -> Weight:
        return self.n.weight(("size", self.q), self.q_size)

    def forward(self, epsilon: float) -> Tensor:
        """Σ_0,j a_j ρ(w_jk) + ε"""
        n, b = self.n, self.n.b
        of_bias = self.q_size if n.signed else self.rho
        offset = n.a.new_tensor(epsilon) if b is None else of_bias(b) + epsilon
        if not n.signed:
            return n.layer.forward_from(offset, n.a, self.rho_w())
        return plus(n.layer.forward_from(offset, n.a.abs(), self.q_size_of_w()), n.exact_z, self.p)

    def hand_back(self, both: Tensor, difference: Tensor, epsilon: float) -> Message:
        """The message of neurons that send s_up with this weight and s_down with the one that favours the other sign.

        (p w + q |w|) s_up + (p w - q |w|) s_down = p w (s_up + s_down) + q |w| (s_up - s_down) for inputs of at least
        zero, and with -q for negative ones. Sum and difference are given and used up; one tensor if there is no s_down.
        """
        n, b = self.n, self.n.b
        if b is not None:
            n.absorb("bias", lambda: both * (self.p * b) + difference * self.q_size(b))
        n.absorb("stabiliser", lambda: difference * epsilon)
        if n.signed:
            plain, q_size = n.transpose(both, n.w), n.transpose(difference, self.q_size_of_w())
            return Message(plus(times(n.a.sign(), q_size), plain, self.p))
        c = n.transpose(difference, self.rho_w())  # ρ+ (s_up - s_down) + 2 p w s_down
        if both is difference:
            return Message(c)
        return Message(plus(c, n.transpose(plus(both, difference, -1), n.w), self.p))


@dataclass(frozen=True)
class Epsilon(LinearRule):
    """LRP-ε: R_j = Σ_k z_jk / (z_k + ε sign z_k) R_k (Bach et al. 2015, Eq. 58).

    Args:
        epsilon: absorbs weak or contradictory relevance; 0 is LRP-0.
        relative: ε is a multiple of the layer's own scale, the root mean square of z in each sample
            (Montavon et al. 2019 use 0.25).

    Raises:
        RuleError: if epsilon is negative or not finite.
    """

    epsilon: float = 1e-6
    relative: bool = False
    sends_new = True

    def __post_init__(self) -> None:
        check_number(self, "epsilon", self.epsilon)

    @property
    def multiple_of_output(self) -> bool:  # type: ignore[override]
        return not self.relative  # the scale of a layer is that of z, of which relu(z) has but a part

    def saves(self, step: Step) -> set[Node]:
        exact = self.epsilon == 0 and not step.form.r and (step.bias != "zero" or _has_no_bias(step))
        return set() if exact else {step.node}

    def _epsilon(self, z: Tensor) -> Any:
        return (self.epsilon * relative_scale(z)).clamp(min=stabiliser(z.dtype)) if self.relative else self.epsilon

    def propagate(self, n: Neurons) -> Message:
        if n.call.node not in self.saves(n.call.step):
            s = n.message.c  # LRP-0: R / z is the coefficient itself
            assert s is not None
        elif self.epsilon == 0:
            z, relevance = n.z, n.relevance
            s = torch.where(z == 0, 0, relevance / torch.where(z == 0, 1, z))
            n.absorb("stabiliser", lambda: torch.where(z == 0, relevance, 0))
        else:
            z = n.z
            epsilon = self._epsilon(z)
            if n.message.r is None and n.message.c is not None and n.call.step.bias != "zero":
                s = damped(n.message.c, z, epsilon, n.call.step.output_is_relu)
            else:
                s = quotient(n.relevance, stabilise(z, epsilon))
            n.absorb("stabiliser", lambda: product(sign(z), s) * epsilon)
        n.absorb_bias(s, n.b)
        return Message(c=n.transpose(s, n.w))


@dataclass(frozen=True)
class LRP0(Epsilon):
    """LRP-0: R_j = Σ_k z_jk / z_k R_k (Bach et al. 2015, Eq. 56). On a ReLU network it is gradient x input."""

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.epsilon != 0 or self.relative:
            raise RuleError("LRP0 has no ε; use Epsilon(epsilon)")

    def __str__(self) -> str:
        return "LRP0()"


@dataclass(frozen=True)
class Gamma(LinearRule):
    """LRP-γ: R_j = Σ_k a_j (w_jk + γ w_jk⁺) / Σ_0,j a_j (w_jk + γ w_jk⁺) R_k (Montavon et al. 2019, §10.2.1).

    For inputs and outputs of either sign (Andéol et al. 2021): contributions of the sign of z_k are favoured.

    Args:
        gamma: how much; 0 is LRP-0, infinity LRP-z⁺.
        stabilizer: added to the denominator with its sign.

    Raises:
        RuleError: if a parameter is negative or not finite.
    """

    gamma: float = 0.25
    stabilizer: float = 1e-6
    multiple_of_output = modifies_weights = sends_new = True

    def __post_init__(self) -> None:
        check_number(self, "gamma", self.gamma)
        check_number(self, "stabilizer", self.stabilizer)

    def propagate(self, n: Neurons) -> Message:
        epsilon = self.stabilizer or stabiliser(n.w.dtype)
        favour = Favour(n, 1 + self.gamma / 2, self.gamma / 2)  # w + γ w⁺, and w + γ w⁻ for negative inputs
        z_up = favour.forward(epsilon)
        if not n.call.step.output_is_relu:  # where z is negative, it is z + γ z⁻ - ε, of this size
            z_up = plus(z_up, n.exact_z.clamp(max=0), -2 - self.gamma)
        difference = quotient(n.relevance, at_least(epsilon, z_up))
        s = difference if n.call.step.output_is_relu else times(sign(n.exact_z), difference)
        return favour.hand_back(s, difference, epsilon)


@dataclass(frozen=True)
class AlphaBeta(LinearRule):
    """LRP-αβ: R_j = Σ_k (α z_jk⁺ / z_k⁺ - β z_jk⁻ / z_k⁻) R_k with α - β = 1 (Bach et al. 2015, Eq. 60).

    Where all contributions of a neuron have one sign, that part gets all of its relevance.

    Args:
        alpha: weight of what speaks for the neuron.
        beta: weight of what speaks against it.
        stabilizer: added to each denominator with its sign.

    Raises:
        RuleError: if α - β is not 1, or a parameter is negative or not finite.
    """

    alpha: float = 2.0
    beta: float = 1.0
    stabilizer: float = 1e-6
    multiple_of_output = modifies_weights = sends_new = True

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "stabilizer"):
            check_number(self, name, getattr(self, name))
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise RuleError(f"{type(self).__name__}: alpha - beta must be 1, got {self.alpha} - {self.beta}")

    def propagate(self, n: Neurons) -> Message:
        epsilon = self.stabilizer or stabiliser(n.w.dtype)
        favour = Favour(n, 1 / 2, 1 / 2)  # w⁺, and w⁻ for negative inputs
        z = n.exact_z
        up_size = at_least(epsilon, favour.forward(epsilon))  # z⁺ + ε
        down_size = up_size - z  # -z⁻ + ε, since z = z⁺ + z⁻
        relevance = n.new_relevance
        has_down = _less_rounding(down_size, z, -1)
        down = where_above(epsilon, has_down, relevance, used_up=has_down)
        up = plus(relevance, down, self.beta)  # α - β = 1
        if n.call.step.output_is_relu:  # in front of a ReLU there is no relevance without z⁺
            down = times(down, self.beta)
        else:
            has_up = _less_rounding(up_size, z, 1)
            up = where_above(epsilon, has_up, up, used_up=up)
            both = where_above(epsilon, has_up, down, used_up=has_up)
            down = plus(times(both, self.alpha), down, -1)  # β where there are both, else z⁻ has it all
            n.absorb("stabiliser", lambda: n.relevance - up + down)  # there is neither
        s_up, s_down = quotient(up, up_size), quotient(down, at_least(epsilon, down_size))
        difference = plus(s_up, s_down, -1)
        return favour.hand_back(plus(times(s_down, 2), difference), difference, epsilon)


@dataclass(frozen=True)
class ZPlus(LinearRule):
    """LRP-z⁺: R_j = Σ_k z_jk⁺ / Σ_j z_jk⁺ R_k (Montavon et al. 2017); Excitation Backprop where a >= 0.

    It is α1β0, but a neuron that nothing speaks for keeps its relevance (booked as stabiliser), as in zennit. What is
    lost in the rounding of z counts as nothing: for signed inputs z⁺ is half of Σ a w + Σ |a||w|.

    Args:
        stabilizer: added to the denominator.
    """

    stabilizer: float = 1e-6
    multiple_of_output = modifies_weights = sends_new = True

    def __post_init__(self) -> None:
        check_number(self, "stabilizer", self.stabilizer)

    def propagate(self, n: Neurons) -> Message:
        epsilon = self.stabilizer or stabiliser(n.w.dtype)
        favour = Favour(n, 1 / 2, 1 / 2)  # w⁺, and w⁻ for negative inputs
        z, relevance = favour.forward(epsilon), n.relevance
        if n.signed and not n.call.step.output_is_relu:  # in front of a ReLU there is no relevance without z⁺
            has_up = _less_rounding(z, n.exact_z, 1)
            relevance = where_above(epsilon, has_up, relevance, used_up=has_up)
            n.absorb("stabiliser", lambda: n.relevance - relevance)
        s = quotient(relevance, at_least(epsilon, z))
        return favour.hand_back(s, s, epsilon)


def _less_rounding(part: Tensor, z: Tensor, direction: int) -> Tensor:
    """z⁺ (direction 1) or -z⁻ (-1), less what rounding makes of it where there is none: where z is the other part."""
    return torch.add(part, z, alpha=direction * 64 * torch.finfo(z.dtype).eps)


def _has_no_bias(step: Step) -> bool:
    layer = layer_in(step)
    return layer is None or layer.bias is None
