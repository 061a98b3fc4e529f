"""The least possible: how many products with its weight each linear operation needs, forward and back.

The output is one product, and one goes back, as the gradient of the input has it. LRP-0, ε, and the rules of attention
and norms need no more. Of an LSTM only the signal g sends relevance back (LRP-all): a quarter of each weight.

A rule that tells positive contributions from negative ones needs a second product forward:

    Σ a⁺w⁺ + a⁻w⁻ = (Σ a w + Σ |a||w|) / 2,

or simply Σ a w⁺ if no input is negative. z⁺, z⁻ and γ, for inputs of either sign, follow from these two sums. A second
one goes back, too, unless all that goes back meets one and the same weight: that is so if no input is negative and only
what speaks for a neuron gets relevance (z⁺, or γ in front of a ReLU). The bounds of z^B do not depend on the inputs, so
that their products need not be repeated; what goes back is wᵀs and w⁺ᵀs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from relprop import LRP, rules


def least(lrp: LRP, inputs: Tensor, composite: str) -> tuple[float, float]:
    """Products forward and back of a composite on a model."""
    forward = sum(len(weights) for _, weights in _layers(lrp.using("gradient"), inputs))  # also where no relevance goes
    back = 0.0
    for step, weights in _layers(lrp.using(composite or "gradient"), inputs):
        more, to_inputs = _products(step, weights)
        forward, back = forward + len(weights) * more, back + len(weights) * to_inputs
    return forward, back


def _layers(lrp: LRP, inputs: Tensor) -> Iterator[tuple[Any, list[Tensor]]]:
    """Every linear operation of a plan, and its weights: two for each layer of an LSTM."""
    for step in lrp.plan(inputs).steps.values():
        if step.kind in ("dense", "convolution", "recurrent"):
            values = [n.meta.get("val") for n in step.node.all_input_nodes if n not in step.active]
            weights = [w for w in values if isinstance(w, Tensor) and w.ndim > 1]
            yield step, [w for w in weights if w.ndim == 2] if step.kind == "recurrent" else weights


def _products(step: Any, weights: list[Tensor]) -> tuple[float, float]:
    """Forward, beside the model's own, and back."""
    match step.rule:
        case rules.ZBox():
            return 0, 2
        case rules.AlphaBeta():
            return 1, 2
        case rules.ZPlus():
            return 1, 1 if step.nonnegative else 2
        case rules.Gamma():
            return 1, 1 if step.nonnegative and step.output_is_relu else 2
        case rules.Recurrent(gates="all"):
            rows, width = weights[
                1
            ].shape  # of the hidden state's weight: one row of blocks for each gate and the signal
            return 0, width / rows
        case _:
            return 0, 1
