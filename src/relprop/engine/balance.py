"""Whether the books balance. If they do not there is a bug, in a rule or in relprop, and it is told where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import warn
from ..rules.message import Message
from .ledger import Ledger
from .plan import Plan
from .run import Run
from .trace import follow
from .watch import Watcher

DOUBLE, SINGLE = 1e-9, 1e-4
"""Beyond this share of what moves, a residual is no rounding."""


def warn_of_residual(
    run: Run, seeds: Mapping[Node, Message], ledger: Ledger, watchers: Sequence[Watcher], told: set[Plan]
) -> None:
    """Warn if a ledger does not balance, naming the operation that neither hands on nor books what reaches it.

    Telling it costs another run: paid only if a residual is larger than rounding, and once for each plan.

    Args:
        run: that is accounted for.
        seeds: where it started.
        ledger: its books.
        watchers: those that change relevance on its way (masks).
        told: plans that somebody was told of; this one is added.
    """
    if run.plan in told or not len(ledger.seed):
        return
    residual, moved = float(ledger.residual.abs().max()), float(ledger.seed.abs().max())
    if residual <= DOUBLE * moved or residual <= (tolerance := _tolerance(run.plan)) * moved:
        return
    amounts = [ledger.seed, *ledger.inputs.values(), *ledger.sinks.values()]
    moved = float(torch.stack([a.abs().max() for a in amounts]).max())
    if residual <= tolerance * moved:
        return
    told.add(run.plan)
    worst = follow(run.again(), seeds, watchers).worst
    size = max(worst.size_out, worst.size_in)
    if abs(worst.missing) > tolerance * size:  # else large numbers that cancel
        warn(
            f"the ledger does not balance: {residual:.3g} of {moved:.3g} is neither received nor booked. It is lost at "
            f"{worst.place}, where {worst.rule} receives {worst.out:.6g}, hands on {worst.sent:.6g} and books "
            f"{sum(worst.booked.values()):.6g}. {_reason(tolerance)}"
            "print(lrp.trace(x, target)) shows every operation."
        )


def _reason(tolerance: float) -> str:
    rounding = "" if tolerance == DOUBLE else "It may be rounding: model.double() tells. "
    return rounding + "A rule of your own has to book what it keeps; else it is a bug of relprop: please report it. "


def _tolerance(plan: Plan) -> float:
    """What rounding may leave, by the least precise number on the way."""
    dtypes = {value.dtype for n in plan.steps if isinstance(value := n.meta.get("val"), Tensor)}
    least = max((torch.finfo(t).eps for t in dtypes if t.is_floating_point or t.is_complex), default=0.0)
    single = torch.finfo(torch.float32).eps
    return DOUBLE if least < single and plan.graph.exact else max(SINGLE, 32 * least)
