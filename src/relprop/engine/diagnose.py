"""Where relevance grew out of proportion, or stopped being finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import warn
from ..graph.graph import is_float, place
from ..rules.base import Context, Messages, Step
from ..rules.message import Message
from .plan import Plan
from .run import Run
from .watch import Watcher

GROWTH = 1e4
"""Relevance that grows by more than this factor from output to input is out of hand."""
MISLEADING = 3.0
"""Inputs that receive more than this many times what is explained draw a picture of something else."""
LAYERS = ("dense", "convolution", "recurrent")
"""Kinds of operations with biases."""


def warn_of_growth(run: Run, seeds: dict[Node, Message], sent: list[Tensor | None], told: set[Plan]) -> None:
    """Warn if relevance is not finite or has grown out of proportion, and say where it began.

    What the reverse sweep freed is needed to tell, so it costs another run: paid only if all is not well, and once for
    each plan, which is added to those that were told of.
    """
    size = sum(float(r.detach().abs().sum()) for r in sent if r is not None)
    # not the explained value: of two outputs that are compared it may be next to nothing
    start = sum(float(m.relevance(run.values[node]).detach().abs().sum()) for node, m in seeds.items())
    if size <= MISLEADING * start or (size == 0 and start == 0):
        return
    if size <= GROWTH * start:
        if run.plan not in told and (misled := _misleading(run, seeds, sent, start)):
            told.add(run.plan)
            warn(misled)
        return
    reason: str | None = "relevance is not finite, or has grown out of proportion: see the first such warning."
    if run.plan not in told:
        told.add(run.plan)
        reason = diagnose(run.again(), seeds, max(start, 1e-30))
    if reason:
        warn(reason)


# ---------------------------------------------------------------------------------------------------------------------
# Inputs that receive more than is explained
# ---------------------------------------------------------------------------------------------------------------------


class Gains(Watcher):
    """What every operation hands on beyond what reaches it: the opposite of what its biases and stabilisers take."""

    def __init__(self) -> None:
        self.found: dict[Node, float] = {}
        self.steps: dict[Node, Step] = {}

    @property
    def last_layer(self) -> Node | None:
        """The layer that the output comes from."""
        return next((n for n, step in self.steps.items() if step.kind in LAYERS), None)

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        self._add(step.node, message, run.values.get(step.output), -1)
        self.steps[step.node] = step
        return message

    def is_picked(self, node: Node, message: Message, run: Context) -> Message:
        self._add(node.args[0], message, run.values.get(node), -1)  # type: ignore[arg-type]
        return message

    def is_sent(self, step: Step, sent: Messages, run: Context) -> None:
        for node, message in zip(step.active, sent, strict=True):
            self._add(step.node, message, run.values.get(node), 1)

    def _add(self, node: Node, message: Message, value: Tensor | None, sign: int) -> None:
        if message:
            self.found[node] = self.found.get(node, 0.0) + sign * _total(message.relevance(value))


def _misleading(run: Run, seeds: dict[Node, Message], sent: list[Tensor | None], start: float) -> str | None:
    """What to say if the inputs receive far more than is explained, and something else far less than nothing.

    Also where contributions of both signs are large, what all inputs receive is no more than what is explained. An
    output that is next to nothing, since its own terms cancel, is no reason: that is so of the smallest of many
    outputs, and of a last layer whose bias speaks against all of its inputs.
    """
    outputs = [x.detach().abs() for x in run.outputs if isinstance(x, Tensor) and x.is_floating_point() and x.numel()]
    largest = max((float(_by_sample(torch.amax, x, run).sum()) for x in outputs), default=0.0)
    received = [_by_sample(torch.sum, r.detach(), run) for r in sent if r is not None]
    if len({r.shape for r in received}) > 1:  # not every input has samples
        received = [r.sum() for r in received]
    size = float(sum(received).abs().sum())  # type: ignore[union-attr]
    if not size > MISLEADING * max(start, largest):
        return None
    gains = Gains()
    run.again().sweep(seeds, [gains])
    node = max(gains.found, key=lambda n: abs(gains.found[n]), default=None)
    if node is None or node is gains.last_layer:
        return None
    rule = gains.steps[node].rule
    remedy = 'bias="absorb" lets biases keep their share' if run.plan.bias == "zero" else "A larger ε there helps"
    return (
        f"inputs receive {100 * size / start:.0f} % of the relevance that is explained, and biases or stabilisers "
        f"the opposite of what is too much: most of it at {place(node)}, where {rule} hands on "
        f"{100 * gains.found[node] / start:+.0f} %. The picture is not that of the output. {remedy}, or "
        "another composite does; explain(...).ledger shows where relevance goes."
    )


def _by_sample(reduce: Callable[..., Tensor], x: Tensor, run: Run) -> Tensor:
    """[B] from [B, ...]; a single number where samples do not come first. Nothing is copied, whatever the layout."""
    first = int(bool(run.batch) and x.ndim > 0 and len(x) == run.batch)
    return reduce(x, dim=tuple(range(first, x.ndim))) if x.ndim > first else x


def _total(relevance: Tensor) -> float:
    total = relevance.detach().sum()
    return float(total.real if total.is_complex() else total)


# ---------------------------------------------------------------------------------------------------------------------
# Relevance out of hand
# ---------------------------------------------------------------------------------------------------------------------


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
