"""Faithfulness: how the output falls when what a map calls relevant is taken away first, and last."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .model import Judge
from .replacements import Fill
from .samples import Sample

Curves = list[list[list[float]]]
"""[most relevant first, least relevant first][measure][step]."""


def order_of(relevance: Tensor, generator: torch.Generator) -> Tensor:
    """Units from the most to the least relevant, [units]; of equals, chance decides."""
    shuffled = torch.randperm(len(relevance), generator=generator)
    return shuffled[relevance[shuffled].argsort(descending=True, stable=True)]


def counts_of(units: int, steps: int) -> Tensor:
    """How many units are flipped at every step, from none to all."""
    return torch.linspace(0, units, min(steps, units) + 1, dtype=torch.float64).round().long()


def flipped(order: Tensor, steps: int) -> Tensor:
    """What is flipped at every step, [2 x (steps + 1), units]: the most relevant first, then the least."""
    rank, counts = order.argsort(), counts_of(len(order), steps)[:, None]
    return torch.cat([rank < counts, rank >= len(order) - counts])


def curves(
    judge: Judge, sample: Sample, labels: Tensor, order: Tensor, ways: Mapping[str, Fill], steps: int
) -> dict[str, Curves]:
    """The output at every step, for every replacement.

    Args:
        judge: the model.
        sample: of which the versions are made.
        labels: the unit of every value, or -1.
        order: the units, from the most relevant.
        ways: the replacements.
        steps: so many points, evenly over the units.
    """
    chosen = flipped(order, steps)
    padded = torch.cat([chosen, chosen.new_zeros(len(chosen), 1)], 1)  # the unit -1 is never flipped
    found: dict[str, Curves] = {}
    for name, fill in ways.items():
        parts = [
            judge.measured(sample, fill(sample, rows[:, labels.reshape(-1)].reshape(-1, *labels.shape)))
            for rows in padded.split(judge.micro_batch)
        ]
        both = torch.cat(parts).reshape(2, -1, parts[0].shape[1])
        found[name] = both.movedim(2, 1).tolist()
    return found


def area_under(curve: Tensor) -> Tensor:
    """Mean of curves [..., steps + 1] over the share that is flipped, by the trapezium rule."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[-1] - 1), dim=-1)


def area_between(both: Tensor) -> Tensor:
    """Least minus most relevant first, of curves [2, ..., steps + 1]: the symmetric relevance gain of Blücher et al."""
    return area_under(both[1]) - area_under(both[0])
