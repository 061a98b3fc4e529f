"""Softmax and attention.

AttnLRP (Achtibat et al., ICML 2024): the softmax by its Taylor expansion (Prop. 3.1), whose message is its gradient;
the products Q Kᵀ and A V by halves (Prop. 3.3). Around a fused kernel that makes a quarter of the kernel's own gradient
for queries and keys, and a half for values. CP-LRP (Ali et al. 2022) holds the attention weights constant: all
relevance goes to the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.facts import KEEPS, NONNEGATIVE
from ..graph.ops import written_softmax
from .base import Step
from .gradient import Gradient
from .message import NOTHING, Form
from .table import register

__all__ = ["CPLRP", "FUSED", "SOFTMAX", "AttnLRP", "Softmax"]

aten = torch.ops.aten

FUSED = {aten.scaled_dot_product_attention.default}
SOFTMAX = {aten.softmax.int, aten._softmax.default, aten._safe_softmax.default}


@dataclass(frozen=True)
class Softmax(Gradient):
    """Softmax by its first-order expansion: R_i = x_i (R'_i - s_i Σ_j R'_j) from R' of its output (AttnLRP, Prop. 3.1).

    It does not conserve: what is left of the expansion is booked as its remainder.

    When to use: attention that is written out; the default of every softmax inside of a network.
    """

    # Nothing is to be done: the message is the plain gradient. With R'_j = s_j c_j, and ∂s_j/∂x_i = s_j (δ_ij - s_i),
    #
    #     R_i = x_i (s_i c_i - s_i Σ_j s_j c_j) = x_i Σ_j c_j ∂s_j/∂x_i
    #
    # so the coefficient of x_i is Σ_j c_j ∂s_j/∂x_i, and no s is divided by.

    def __str__(self) -> str:
        return "Softmax()"


@dataclass(frozen=True)
class AttnLRP(Gradient):
    """Fused attention by AttnLRP: softmax by its expansion, both products by halves (Prop. 3.1 and 3.3).

    When to use: fused attention of transformers; the default there.
    """

    def __str__(self) -> str:
        return "AttnLRP()"

    def supports(self, step: Step) -> str | None:
        return None if step.node.target in FUSED else "it is meant for scaled_dot_product_attention"

    def factor(self, step: Step, node: Node) -> float:
        q, k, v, mask = _inputs(step.node)
        weights_active = any(n in step.active for n in (q, k, mask))
        half = 0.5 if weights_active and v in step.active else 1.0
        if node is v and node not in (q, k):
            return half
        both = q in step.active and k in step.active
        return half * (0.5 if both and node in (q, k) else 1.0)


@dataclass(frozen=True)
class CPLRP(Gradient):
    """Fused attention by CP-LRP: the attention weights are constants, all relevance goes to the values.

    When to use: fused attention, when relevance shall keep to what tokens say and not to where the model looks.
    """

    linear: bool = True

    def __str__(self) -> str:
        return "CPLRP()"

    def supports(self, step: Step) -> str | None:
        return None if step.node.target in FUSED else "it is meant for scaled_dot_product_attention"

    def carries(self, step: Step, node: Node) -> bool:
        return node is _inputs(step.node)[2]

    def constants(self, step: Step) -> list[Node]:
        return []

    def form(self, step: Step) -> Form:
        return NOTHING if not step.active else super().form(step)


def _inputs(node: Node) -> tuple[Any, ...]:
    return tuple(argument(node, name) for name in ("query", "key", "value", "attn_mask"))


register("attention", AttnLRP(), *FUSED, random=("dropout_p",), fresh=True)
register("softmax", Softmax(), *SOFTMAX, fresh=True, sign=NONNEGATIVE)
register("softmax", Softmax(), aten.log_softmax.int, written_softmax, fresh=True)
register("logsumexp", Gradient(), aten.logsumexp.default, aten.logcumsumexp.default, fresh=True)
register(
    "logsumexp", Gradient(), aten.logaddexp.default, aten.logaddexp2.default, fresh=True, pointwise=True, sign=KEEPS
)
