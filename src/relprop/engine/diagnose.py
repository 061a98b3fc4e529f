"""Where relevance grew out of proportion, or stopped being finite."""

from __future__ import annotations

import math

from torch import Tensor
from torch.fx import Node

from ..errors import warn
from ..graph.graph import is_float, place
from ..rules.base import Context, Step
from ..rules.message import Message
from .plan import Plan
from .run import Run
from .watch import Watcher


def warn_of_growth(run: Run, seeds: dict[Node, Message], sent: list[Tensor | None], told: set[Plan]) -> None:
    """Warn if relevance is not finite or has grown out of proportion, and say where it began.

    What the reverse sweep freed is needed to tell, so it costs another run: paid only if all is not well, and once for
    each plan, which is added to those that were told of.
    """
    size = sum(float(r.detach().abs().sum()) for r in sent if r is not None)
    # not the explained value: of two outputs that are compared it may be next to nothing
    start = sum(float(m.relevance(run.values[node]).detach().abs().sum()) for node, m in seeds.items())
    if size <= GROWTH * start or (size == 0 and start == 0):
        return
    reason: str | None = "relevance is not finite, or has grown out of proportion: see the first such warning."
    if run.plan not in told:
        told.add(run.plan)
        reason = diagnose(Run(run.plan, run.leaves, retain=True, hold=True, batch=run.batch), seeds, max(start, 1e-30))
    if reason:
        warn(reason)


GROWTH = 1e4
"""Relevance that grows by more than this factor from output to input is worth a warning."""


class Sizes(Watcher):
    """Σ|R| at the output of every operation, from the last one to the first."""

    def __init__(self) -> None:
        self.found: list[tuple[Node, Tensor]] = []

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        if message and (message.c is None or step.output in run.values):
            self.found.append((step.node, message.relevance(run.values.get(step.output)).abs().sum()))
        return message


def diagnose(run: Run, seeds: dict[Node, Message], seed_size: float) -> str | None:
    """Sweep once more and name the first operation at which relevance stops being finite, or grows too much."""
    sizes = Sizes()
    received = run.sweep(seeds, [sizes])
    arrived = [(node, message.relevance(run.values.get(node)).abs().sum()) for node, message in received.items()]
    grown = None
    for node, amount in sizes.found + arrived:
        size = float(amount)
        here = f"input {node.name}" if node.op == "placeholder" else f"the output of {place(node)}"
        if not math.isfinite(size):
            return f"relevance is not finite at {here}. {_statistics(run, node)}"
        if grown is None and size > GROWTH * seed_size:
            grown = (
                f"relevance has grown to {size:.3g} at {here}, {size / seed_size:.3g} times what it started with. "
                f"{_statistics(run, node)}"
            )
    return grown


def _statistics(run: Run, node: Node) -> str:
    """What the operations behind a node divide by."""
    for user in node.users:
        value = run.values.get(user)
        if isinstance(value, Tensor) and is_float(user):
            z = value.detach().abs().double()
            return (
                f"The next operation divides by the output of {place(user)}: |z| is at least {z.min():.3g}, "
                f"{z.median():.3g} in the median, {z.max():.3g} at most. A larger ε or γ there helps."
            )
    return "A larger ε or γ in the rules behind it helps."
