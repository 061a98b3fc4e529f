"""LSTM, GRU and RNN, layers and cells: relevance through time (Arras et al. 2017, 2019).

A gate only scales its signal: the signal takes all relevance of their product, the gate none ("LRP-all"). What is left
of a cell are sums and linear layers, explained by LRP-ε, and a tanh, which passes relevance on unchanged.

Here is how layers and directions are chained. The equations of one layer are in cells.py, who takes the relevance of a
product in gates.py, how torch calls a layer in signature.py, what a run computes in unrolled.py, and how the steps of a
sequence lie in memory, packed or not, in time.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RuleError
from .base import Call, Messages, Rule, Step
from .cells import EQUATIONS, Recursion
from .gates import GATES, GatePolicy
from .message import COEFFICIENT, RELEVANCE, Form, Message, stabiliser
from .neurons import check_number
from .signature import CELLS, LAYERS, Signature
from .table import register
from .time import Packed, Together
from .unrolled import Unrolled

__all__ = ["Recurrent"]


@dataclass(frozen=True)
class Recurrent(Rule):
    """Relevance through an LSTM, GRU or RNN: layers and cells, any number of layers, both directions.

    When to use: LSTM, GRU and RNN; the default there. ``gates="all"`` is what most papers mean.

    Args:
        epsilon: ε of the sums and linear layers; 0 is LRP-0 (Arras et al. take 0.001).
        gates: who takes the relevance of a product of gate and signal. "all": the signal (LRP-all, Arras et al. 2017);
            "prop": both, in proportion to z, what enters their nonlinearity (LRP-prop, Ding et al. 2017); "abs": in
            proportion to ``|z|`` (LRP-abs); "half": one half each (LRP-half, Arjona-Medina et al. 2019).

    Raises:
        RuleError: if epsilon is negative or not finite, or gates none of these.
    """

    epsilon: float = 0.0
    gates: str = "all"

    def __post_init__(self) -> None:
        check_number(self, "epsilon", self.epsilon)
        if self.gates not in GATES:
            raise RuleError(f"Recurrent: gates must be one of {', '.join(map(repr, GATES))}, got {self.gates!r}")

    def supports(self, step: Step) -> str | None:
        if step.node.target not in LAYERS and step.node.target not in CELLS:
            return "it is meant for LSTM, GRU and RNN layers and cells"
        return "its weights depend on the input" if set(step.known.weights) & set(step.active) else None

    def look_up(self, step: Step) -> Signature:
        return Signature(step.node)

    def form(self, step: Step) -> Form:
        return COEFFICIENT | (RELEVANCE if step.bias == "redistribute" else Form())

    def saves(self, step: Step) -> set[Node]:
        return {n for n in step.known.variables if n not in step.active} if step.accounting else set()

    def forward(self, call: Call) -> Any:
        op, accumulate = call.step.known, call.context.accumulate
        x = op.inside(call.value(op.x))
        states = [op.state_inside(call.value(n)) for n in op.states]
        steps = Together(x) if op.sizes is None else Packed(call.value(op.sizes), x.device)
        parameters = op.parameters([call.value(w) for w in op.weights])
        runs: list[Unrolled] = []  # layer by layer, each in its directions
        while len(runs) < len(parameters):
            for backwards in (False, True)[: op.directions]:
                initial = [s[len(runs)] for s in states]
                runs.append(Unrolled(op.kernel, x, initial, parameters[len(runs)], steps, backwards, accumulate))
            x = torch.cat([run.output for run in runs[-op.directions :]], -1)
        call.saved["runs"], call.saved["steps"] = runs, steps
        return op.results(x, [torch.stack(final) for final in zip(*(run.final for run in runs), strict=True)])

    def backward(self, call: Call, message: Message) -> Messages:
        op = call.step.known
        above, finals = op.arriving(call.messages or {0: message}, call.context.accumulate)
        recursions = self._recursions(call)
        initial: list[list[Message]] = [[]] * len(recursions)
        for first in reversed(range(0, len(recursions), op.directions)):  # from the highest layer down
            below = Message()
            for i, part in enumerate(_side_by_side(above, op.directions), first):
                to_x, initial[i] = recursions[i].back(part, [_number(i, final) for final in finals])
                below = below.plus(to_x)
                for reason, amount in recursions[i].absorbed() if call.step.accounting else ():
                    self._book(call, reason, amount)
            above = below
        return self._sent(call, above, [_stack(messages) for messages in zip(*initial, strict=True)])

    def _recursions(self, call: Call) -> list[Recursion]:
        """The way back through every layer and direction: the same for all targets that are explained."""
        if "recursions" not in call.saved:
            bias, runs = call.step.bias, call.saved["runs"]
            relevance = bias == "redistribute" or call.step.form.r
            policy = GatePolicy(self.gates, self.epsilon, bias, relevance, stabiliser(runs[0].h.dtype))
            call.saved["recursions"] = [EQUATIONS[run.kernel](run, policy) for run in runs]
        recursions: list[Recursion] = call.saved["recursions"]
        return recursions

    def _sent(self, call: Call, to_x: Message, to_states: list[Message]) -> Messages:
        """The messages to what is explained. What any other input gets is booked: the share of a constant."""
        op, steps, accumulate = call.step.known, call.saved["steps"], call.context.accumulate
        sent = {node: Message() for node in op.variables}
        for node, message in zip(op.variables, [to_x, *to_states], strict=True):
            inside, outside = (op.inside, op.outside) if node is op.x else (op.state_inside, op.state_outside)
            if node in call.active:
                sent[node] = sent[node].plus(message.each(outside))
            elif message and call.step.accounting:
                kept = message.relevance(inside(accumulate(call.value(node))))
                self._book(call, call.context.reason_for(node), kept if node is op.x else steps.placed(kept))
        return [sent[node] for node in call.active]

    def _book(self, call: Call, reason: str, amount: Tensor) -> None:
        """Amounts come as sequences: with the samples where the input has them."""
        op = call.step.known
        call.book(reason, lambda: op.outside(amount), node=op.x)


def _side_by_side(message: Message, count: int) -> list[Message]:
    """The message to the output of each direction, whose features lie side by side."""
    parts = [[None] * count if x is None else x.chunk(count, -1) for x in message]
    return [Message(c, r) for c, r in zip(*parts, strict=True)]


def _number(i: int, message: Message) -> Message:
    """The message to the state of one layer and direction."""
    return message.each(lambda x: x[i])


def _stack(messages: tuple[Message, ...]) -> Message:
    """The messages to a state, [layers * directions, B, H], from those of every layer and direction."""
    return Message(*(None if parts[0] is None else torch.stack(parts) for parts in zip(*messages, strict=True)))


register("recurrent", Recurrent(), *LAYERS, fresh=True, random=("dropout", "train"))
register("recurrent", Recurrent(), *CELLS, fresh=True)
