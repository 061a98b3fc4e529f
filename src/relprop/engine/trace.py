"""Where relevance goes, operation by operation: what reached its output, what it handed on, and what it booked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.graph import module_path, operation, place, source_line
from ..rules.base import Context, Messages, Step
from ..rules.message import Form, Message
from .ledger import Ledger
from .plan import Plan, rule_name, table
from .run import Run
from .watch import Watcher


@dataclass(frozen=True)
class Row:
    """One operation of a trace. Sums are over everything, the samples too."""

    node: Node
    rule: str
    """Class and parameters."""
    form: str
    """Of the message that arrived: "c" for a coefficient (R = a c), "r" for relevance itself."""
    flags: str
    """What the rule was told of the operation."""
    size_out: float
    """Σ|R| at the output."""
    size_in: float
    """Σ|R| that was handed on."""
    out: float
    """ΣR at the output."""
    sent: float
    """ΣR that was handed on."""
    booked: Mapping[str, float]
    """Reason -> ΣR that was booked."""

    @property
    def missing(self) -> float:
        """ΣR that reached the output and was neither handed on nor booked: rounding, or there is a bug."""
        return self.out - self.sent - sum(self.booked.values())

    @property
    def place(self) -> str:
        """Module, operation and source line."""
        return place(self.node)


@dataclass(frozen=True)
class Trace:
    """All operations on the way back, in the order of execution. ``print`` it."""

    rows: tuple[Row, ...]
    seed: float
    """Σ|R| where relevance started."""

    @property
    def worst(self) -> Row:
        """The operation whose books balance least, in proportion to what moved through it."""
        return max(self.rows, key=lambda row: abs(row.missing) / max(row.size_out, row.size_in, self.seed, 1e-300))

    def __str__(self) -> str:
        head = ("node", "operation", "module", "rule", "form", "flags", "Σ|R| out", "Σ|R| in", "ΣR out", "ΣR in")
        rows: list[tuple[str, ...]] = [(*head, "booked", "missing", "source")]
        for row in self.rows:
            booked = ", ".join(f"{reason} {amount:.4g}" for reason, amount in row.booked.items() if amount)
            sums = (f"{x:.4g}" for x in (row.size_out, row.size_in, row.out, row.sent))
            missing = f"{row.missing:.2g}" if abs(row.missing) > 1e-6 * max(row.size_out, row.size_in) else ""
            node = row.node
            where = (node.name, operation(node), module_path(node), row.rule, row.form, row.flags)
            rows.append((*where, *sums, booked, missing, source_line(node)))
        return table(rows, right=(6, 7, 8, 9, 11))

    __repr__ = __str__


@dataclass
class Account(Ledger):
    """A ledger of one operation after the other."""

    latest: dict[str, float] = field(default_factory=dict)

    def book(self, reason: str, node: Node, amount: Tensor) -> None:
        self.latest[reason] = self.latest.get(reason, 0.0) + float(amount.sum())


class Tracer(Watcher):
    """Writes down every operation of a run that holds all of its values."""

    def __init__(self, plan: Plan, account: Account):
        self.plan, self.account = plan, account
        self.rows: list[Row] = []
        self._arrived = (0.0, 0.0)

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        self.account.latest = {}
        found = [message.relevance(self._value(step.node, run))] if message else []
        parts: Mapping[int, Message] = run.calls[step.node].messages if step.node in run.calls else {}  # type: ignore[attr-defined]
        found += [part.relevance(run.values[step.node][i]) for i, part in parts.items() if part]
        self._arrived = _sums(found)
        return message

    def is_sent(self, step: Step, messages: Messages, run: Context) -> None:
        pairs = zip(step.active, messages, strict=True)
        size_in, sent = _sums([m.relevance(self._value(node, run)) for node, m in pairs if m])
        size_out, out = self._arrived
        flags = [f"nonnegative: {', '.join(n.name for n in step.nonnegative)}"] if step.nonnegative else []
        flags += ["output is ReLU"] if step.output_is_relu else []
        booked = dict(self.account.latest)
        form = _letters(step.form)
        self.rows.append(
            Row(step.node, rule_name(step.rule), form, "; ".join(flags), size_out, size_in, out, sent, booked)
        )

    def _value(self, node: Node, run: Context) -> Any:
        """The value that relevance of a node is of: where a ReLU's output stands for its input, that."""
        step = self.plan.steps.get(node)
        value = run.values[node if step is None else step.output]
        return run.accumulate(value) if isinstance(value, Tensor) else value


def follow(run: Run, seeds: Mapping[Node, Message], watchers: Sequence[Watcher] = ()) -> Trace:
    """The trace of a run that holds all of its values.

    Args:
        run: made with ``hold=True``, of a plan that keeps books.
        seeds: where relevance starts.
        watchers: those that change relevance on its way (masks).
    """
    account = run.ledger = Account(torch.zeros(run.batch or 1))
    tracer = Tracer(run.plan, account)
    run.sweep(dict(seeds), [*watchers, tracer])
    size = sum(float(m.relevance(run.values[n]).detach().abs().sum()) for n, m in seeds.items())
    return Trace(tuple(reversed(tracer.rows)), size)


def _letters(form: Form) -> str:
    return "+".join(letter for letter, has in (("c", form.c), ("r", form.r)) if has)


def _sums(relevances: Sequence[Tensor]) -> tuple[float, float]:
    """Σ|R| and ΣR."""
    exact = [torch.view_as_real(r)[..., 0] if r.is_complex() else r for r in (r.detach() for r in relevances)]
    exact = [r.double() if r.device.type != "mps" else r for r in exact]
    return sum(float(r.abs().sum()) for r in exact), sum(float(r.sum()) for r in exact)
