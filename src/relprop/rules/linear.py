"""The rules of linear operations: dense layers, convolutions, transposed convolutions (z_k = Σ_j a_j w_jk + b_k).

Every rule is the four steps of the general form (Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview",
§10.2) with its own ρ:

    R_j = Σ_k  a_j ρ(w_jk) / (ε + Σ_0,j a_j ρ(w_jk))  R_k

1. z_k = Σ_0,j a_j ρ(w_jk) + ε     2. s_k = R_k / z_k     3. c_j = Σ_k ρ(w_jk) s_k     4. R_j = a_j c_j

The last step is left to whoever asks for the relevance: c is what is sent. The bias is neuron 0; what it and the
stabiliser take is booked, or redistributed. For inputs and outputs of either sign γ, αβ and z⁺ say what they make of
the two parts of z = z⁺ + z⁻; split.py has the products. Inside of a call that nobody differentiates, fused.py computes
the same in less memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RuleError
from .base import Step
from .layers import layer_in
from .message import Message, product, relative_scale, sign, stabiliser
from .neurons import LinearRule, Neurons, check_number, positive
from .split import Shares, SplitRule


@dataclass(frozen=True)
class Epsilon(LinearRule):
    """LRP-ε: R_j = Σ_k z_jk / (z_k + ε sign z_k) R_k (Bach et al. 2015, Eq. 58).

    When to use: dense layers and transformers; a larger ε keeps fewer, stronger contributions and absorbs more.

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
        return set() if self.sends_what_arrives(step) else {step.node}

    def sends_what_arrives(self, step: Step) -> bool:
        """Whether s = R / z is the coefficient that arrives: LRP-0, unless z is not the output itself."""
        return self.epsilon == 0 and not step.form.r and (step.bias != "zero" or _has_no_bias(step))

    def stabiliser(self, z: Tensor) -> Tensor | float:
        """ε of every neuron."""
        if not self.relative:
            return self.epsilon
        scale = relative_scale(z)
        return torch.where(scale > 0, self.epsilon * scale, stabiliser(z.dtype))

    def propagate(self, n: Neurons) -> Message:
        if self.sends_what_arrives(n.call.step):
            s = n.message.c
            assert s is not None
        elif self.epsilon == 0:
            z, R = n.z, n.relevance
            s = torch.where(z == 0, 0, R / torch.where(z == 0, 1, z.conj()))
            n.absorb("stabiliser", lambda: torch.where(z == 0, R, 0))
        else:
            z, ε = n.z, self.stabiliser(n.z)
            s = n.share(z, ε)
            n.absorb("stabiliser", lambda: product(sign(z), s) * ε)
        n.absorb_bias(s, n.b)
        return Message(c=n.transpose(s, n.w))


@dataclass(frozen=True)
class LRP0(Epsilon):
    """LRP-0: R_j = Σ_k z_jk / z_k R_k (Bach et al. 2015, Eq. 56). On a ReLU network it is gradient x input.

    When to use: the layers next to the output, where sums are large and few; deeper it is as noisy as the gradient.
    """

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.epsilon != 0 or self.relative:
            raise RuleError("LRP0 has no ε; use Epsilon(epsilon)")

    def __str__(self) -> str:
        return "LRP0()"


@dataclass(frozen=True)
class Gamma(SplitRule):
    """LRP-γ: R_j = Σ_k a_j (w_jk + γ w_jk⁺) / Σ_0,j a_j (w_jk + γ w_jk⁺) R_k (Montavon et al. 2019, §10.2.1).

    For inputs and outputs of either sign, contributions of the sign of z_k are favoured (Andéol et al. 2021):
    R_j = Σ_k (z_jk + γ z_jk^±) / Σ_0,j (z_jk + γ z_jk^±) R_k, with ± the sign of z_k.

    When to use: convolutions with ReLU: less noise than LRP-ε, and still about the class.

    Args:
        gamma: how much; 0 is LRP-0, infinity LRP-z⁺.
        stabilizer: added to the denominator with its sign.

    Raises:
        RuleError: if a parameter is negative or not finite.
    """

    gamma: float = 0.25
    stabilizer: float = 1e-6
    multiple_of_output = True

    def rho(self, w: Tensor) -> Tensor:
        return w + self.gamma * positive(w)

    def is_general(self, n: Neurons) -> bool:
        return not n.signed and n.output_is_relu  # a >= 0 and z >= 0

    def shares(self, z: Tensor, up: Tensor, down: Tensor, R: Tensor, ε: float) -> Shares:
        γ, is_up = self.gamma, z >= 0
        s = R / torch.where(is_up, z + γ * up + ε, z + γ * down - ε)
        favoured = (1 + γ) * s
        return Shares(torch.where(is_up, favoured, s), torch.where(is_up, s, favoured), sign(z) * ε * s)


@dataclass(frozen=True)
class AlphaBeta(SplitRule):
    """LRP-αβ: R_j = Σ_k (α z_jk⁺ / z_k⁺ - β z_jk⁻ / z_k⁻) R_k with α - β = 1 (Bach et al. 2015, Eq. 60).

    Where all contributions of a neuron have one sign, that part gets all of its relevance.

    When to use: convolutions, when evidence against the class is wanted too; elsewhere it makes maps of all classes
    alike.

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
    multiple_of_output = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise RuleError(f"{type(self).__name__}: alpha - beta must be 1, got {self.alpha} - {self.beta}")

    def shares(self, z: Tensor, up: Tensor, down: Tensor, R: Tensor, ε: float) -> Shares:
        no_up, no_down = up == 0, down == 0
        s_up = torch.where(no_up, 0, torch.where(no_down, R, self.alpha * R)) / (up + ε)
        s_down = torch.where(no_down, 0, torch.where(no_up, R, -self.beta * R)) / (down - ε)
        return Shares(s_up, s_down, (s_up - s_down) * ε + torch.where(no_up & no_down, R, 0))


@dataclass(frozen=True)
class ZPlus(SplitRule):
    """LRP-z⁺: R_j = Σ_k z_jk⁺ / Σ_j z_jk⁺ R_k (Montavon et al. 2017); Excitation Backprop where a >= 0.

    It is α1β0, but a neuron that nothing speaks for keeps its relevance (booked as stabiliser), as in zennit.

    When to use: convolutions, for a robust map of where; in every layer it makes maps of all classes alike.

    Args:
        stabilizer: added to the denominator.
    """

    stabilizer: float = 1e-6
    multiple_of_output = True

    def rho(self, w: Tensor) -> Tensor:
        return positive(w)

    def is_general(self, n: Neurons) -> bool:
        return not n.signed  # a >= 0

    def shares(self, z: Tensor, up: Tensor, down: Tensor, R: Tensor, ε: float) -> Shares:
        s = torch.where(up > 0, R, 0) / (up + ε)
        return Shares(s, torch.zeros_like(s), torch.where(up > 0, s * ε, R))


def _has_no_bias(step: Step) -> bool:
    layer = layer_in(step)
    return layer is None or layer.bias is None


__all__ = ["LRP0", "AlphaBeta", "Epsilon", "Gamma", "LinearRule", "ZPlus", "check_number"]
