"""The ledger: relevance is money, and every penny is accounted for.

Per sample: seed = what the explained inputs received + what each sink absorbed. Sinks are booked by the rules, each
computed on its own, so that the residual tells whether the books balance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.graph import describe, module_path

MEANING = {
    "bias": "absorbed by biases",
    "stabiliser": "absorbed by stabilisers (ε)",
    "parameter": "kept by parameters that act as inputs (class token, position embedding)",
    "input": "kept by inputs that are not explained",
    "stopped": "on stopped paths (gates, attention weights, statistics)",
    "conversion": "lost where relevance was divided by a vanishing activation",
    "remainder": "not explained by a first-order expansion (softmax)",
    "constant": "kept by fixed numbers",
    "masked": "removed by mask=",
    "target": "not explained by the target function, which is not linear in the output",
}


@dataclass
class Ledger:
    """Where relevance went, per sample.

    Attributes:
        seed: relevance at the start, [B].
        received: relevance of all explained inputs, [B].
        inputs: the same for each input by name, [B] each.
        shared: names of inputs without a dimension for samples. Their relevance is not made sample by sample, so that
            each is booked an equal part of it, and the books balance for all samples together.
        sinks: (reason, node) -> what was absorbed there, [B]; a node's name is ``module (operation)``.
    """

    seed: Tensor
    inputs: dict[str, Tensor] = field(default_factory=dict)
    sinks: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    start: str = ""
    """What relevance started at, where it is not the output itself."""

    @classmethod
    def joined(cls, parts: Sequence[Ledger]) -> Ledger:
        """The books of all samples, from those of some at a time. A sink that a part has not absorbed nothing there."""

        def along(books: Sequence[dict[Any, Tensor]]) -> dict[Any, Tensor]:
            names = dict.fromkeys(name for book in books for name in book)
            pairs = list(zip(books, parts, strict=True))
            return {n: torch.cat([b[n] if n in b else torch.zeros_like(part.seed) for b, part in pairs]) for n in names}

        return cls(
            seed=torch.cat([part.seed for part in parts]),
            inputs=along([part.inputs for part in parts]),
            sinks=along([part.sinks for part in parts]),
            shared=set().union(*(part.shared for part in parts)),
            start=parts[0].start,
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Ledger:
        """The same books with another tensor in the place of each: of some samples, or on another device."""
        return replace(
            self,
            seed=change(self.seed),
            inputs={name: change(amount) for name, amount in self.inputs.items()},
            sinks={key: change(amount) for key, amount in self.sinks.items()},
            shared=set(self.shared),
        )

    @property
    def received(self) -> Tensor:
        return sum(self.inputs.values(), torch.zeros_like(self.seed))

    @property
    def absorbed(self) -> Tensor:
        """The sum of all sinks, [B]."""
        return sum(self.sinks.values(), torch.zeros_like(self.seed))

    @property
    def residual(self) -> Tensor:
        """seed - received - absorbed, [B]: zero but for rounding. Where samples share an account, in equal parts."""
        difference = self._difference
        return difference.sum().expand_as(difference) / len(difference) if self.mixed else difference

    @property
    def mixed(self) -> bool:
        """Whether the books balance for all samples together, and not for each.

        Then the model mixed samples, or cut them in a way that could not be followed: what a sink absorbed is right in
        the sum, and not for single samples.
        """
        difference, size = self._difference, float(self.seed.abs().sum() + self.absorbed.abs().sum())
        largest = float(difference.abs().max())
        return largest > 1e-6 * size and float(difference.sum().abs()) < 1e-3 * largest

    @property
    def _difference(self) -> Tensor:
        return self.seed - self.received - self.absorbed

    def by_reason(self) -> dict[str, Tensor]:
        """What was absorbed for each reason, [B] each."""
        reasons: dict[str, Tensor] = {}
        for (reason, _), amount in self.sinks.items():
            reasons[reason] = reasons[reason] + amount if reason in reasons else amount
        return reasons

    by_kind = by_reason
    """Its name before."""

    def book(self, reason: str, node: Node, amount: Tensor) -> None:
        key = (reason, f"{describe(node)}" + (f" #{node.name}" if module_path(node) else ""))
        self.sinks[key] = self.sinks[key] + amount if key in self.sinks else amount

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def table(self, largest: int = 8) -> str:
        """The books as text, averaged over samples, with the largest sinks by name."""
        total = self.seed.sum().item()

        def line(name: str, amount: Tensor, indent: int = 0) -> str:
            value = amount.sum().item()
            share = f"{100 * value / total:8.1f} %" if total else " " * 10
            return f"{'  ' * indent}{name:<{72 - 2 * indent}}{value:>14.6g}{share}"

        samples = len(self.seed)
        lines = [f"ledger of {samples} sample{'s' if samples > 1 else ''}" + (" (summed)" if samples > 1 else "")]
        lines.append(line(f"seed ({self.start})" if self.start else "seed", self.seed))
        for name, amount in self.inputs.items():
            lines.append(line(f"received by {name}" + " (shared by all samples)" * (name in self.shared), amount, 1))
        for reason, amount in sorted(self.by_reason().items(), key=lambda item: -item[1].abs().sum().item()):
            lines.append(line(MEANING.get(reason, reason), amount, 1))
        lines.append(line("residual", self.residual, 1))
        if self.mixed:
            lines.append("the accounts of single samples could not be told apart: the books balance for all together")
        sinks = sorted(self.sinks.items(), key=lambda item: -item[1].abs().sum().item())[:largest]
        if sinks:
            lines.append("largest sinks")
            lines += [line(f"{reason}: {node.partition(' #')[0]}", amount, 1) for (reason, node), amount in sinks]
        return "\n".join(lines)
