"""How relevance is shared inside of a recurrent cell: who takes a product, and what a sum or a linear layer divides by.

In a product gate ⊙ signal, such as i ⊙ g of an LSTM, the gate only scales the signal. With z for what enters the
nonlinearity of either, the gate takes

    "all"     R_gate = 0                                         LRP-all: the signal takes all (Arras et al. 2017)
    "prop"    R_gate = z_gate / (z_gate + z_signal) R            LRP-prop (Ding et al. 2017)
    "abs"     R_gate = |z_gate| / (|z_gate| + |z_signal|) R      LRP-abs (Arras et al. 2019)
    "half"    R_gate = R / 2                                     LRP-half (Arjona-Medina et al. 2019)

and the signal what is left. Sums and linear layers share relevance by LRP-ε.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from .message import sign, stabilise

__all__ = ["GATES", "Denominator", "Gate", "GatePolicy", "Product"]

Value = TypeVar("Value", Tensor, Tensor | None)

GATES = ("all", "prop", "abs", "half")


class Product(NamedTuple):
    """gate ⊙ signal."""

    part: Tensor | float | None
    """What part of its relevance the gate takes; None for nothing."""

    def gate(self, x: Value) -> Value:
        """What the gate takes of x."""
        return x if x is None else x * (0.0 if self.part is None else self.part)

    def signal(self, x: Value) -> Value:
        """What the signal takes of x."""
        return x if x is None or self.part is None else (1 - self.part) * x


class Denominator(NamedTuple):
    """z + ε sign z, by which relevance is divided."""

    z: Tensor
    slack: Tensor | None
    """ε sign z; None where ε = 0."""

    def under(self, x: Tensor | float, limit: Tensor | float = 1.0) -> Tensor:
        """x / (z + ε sign z); where ε = 0, x / z has this limit at z = 0."""
        if self.slack is not None:
            return x / (self.z + self.slack)
        zero = self.z == 0
        return torch.where(zero, limit, x / torch.where(zero, 1, self.z))


class Gate(NamedTuple):
    """The neurons of one gate, or of the signal: rows of the linear layer a = W x_t + U h_t-1 + b."""

    a: Denominator
    bias: Tensor | None
    share: Tensor
    """s_a = R(a) / (a + ε sign a) from s of the sum. An output gate's is from the coefficient of h_t ..."""
    r_share: Tensor | None = None
    """... and this one from its r."""

    @property
    def slack(self) -> Tensor | None:
        return self.a.slack


@dataclass(frozen=True)
class GatePolicy:
    """One choice of rules for a cell.

    Args:
        gates: who takes the relevance of a product.
        epsilon: ε of sums and linear layers.
        bias: what becomes of biases and stabilisers: the bias policy.
        relevance: whether relevance arrives that is no multiple of h_t. It is divided by z also where ε = 0.
        tiny: keeps a denominator from being zero where nothing else does.
    """

    gates: str
    epsilon: float
    bias: str
    relevance: bool
    tiny: float

    @property
    def gated(self) -> bool:
        """Whether gates get relevance."""
        return self.gates != "all"

    @property
    def redistributes(self) -> bool:
        return self.bias == "redistribute"

    def product(self, z_gate: Tensor, z_signal: Tensor) -> Product:
        """How gate and signal share the relevance of their product."""
        match self.gates:
            case "all":
                return Product(None)
            case "half":
                return Product(0.5)
            case "abs":
                return Product(z_gate.abs() / (z_gate.abs() + z_signal.abs() + self.tiny))
            case _:
                return Product(z_gate / stabilise(z_gate + z_signal, self.tiny))

    def sum(self, z: Tensor) -> Denominator:
        """What the relevance of a sum is divided by."""
        return self._denominator(z, self.epsilon or (self.tiny if self.relevance else 0.0))

    def half(self, total: Denominator) -> Tensor | None:
        """What each summand of a sum of two gets besides: half of ε sign z, where that is redistributed."""
        return total.slack / 2 if self.redistributes and total.slack is not None else None

    def inverse(self, z: Denominator) -> Tensor | None:
        """1 / (z + ε sign z), for relevance that is no multiple of z; None if there is none."""
        return 1 / (z.z + z.slack) if self.relevance and z.slack is not None else None

    def gate(self, a: Tensor, b: Tensor | None, relevance: Tensor, limit: Tensor | float | None = None) -> Gate:
        """Neurons with output a and bias b.

        Args:
            relevance: theirs, from s of the sum.
            limit: of relevance / a where a is zero; None if there is none.
        """
        if self.bias == "zero" and b is not None:
            a, b, limit = a - b, None, None
        z = self._denominator(a, self.epsilon or (self.tiny if limit is None else 0.0))
        return Gate(z, b, z.under(relevance, 0.0 if limit is None else limit))

    def _denominator(self, z: Tensor, epsilon: float) -> Denominator:
        return Denominator(z, epsilon * sign(z) if epsilon else None)
