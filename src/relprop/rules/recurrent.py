"""LSTM, GRU and RNN, layers and cells: relevance through time (Arras et al. 2017, 2019).

A gate only scales its signal: the signal takes all relevance of their product, the gate none ("LRP-all"). What is left
of a cell are sums, explained by LRP-ε, and a tanh, which passes relevance on unchanged. For the LSTM, in step t:

    h_t = o ⊙ tanh(c_t)                   R(c_t) += R(h_t)
    c_t = f ⊙ c_t-1 + i ⊙ g               R(c_t-1) = f ⊙ c_t-1 / (c_t + ε sign c_t) R(c_t), and the rest for g
    g   = tanh(W x_t + U h_t-1 + b + b')  LRP-ε to x_t and h_t-1, as one linear layer with both biases

A GRU's sum is h_t = (1 - z) ⊙ n + z ⊙ h_t-1, its linear layer the one inside n = tanh(W x_t + b + r ⊙ (U h_t-1 + b')).
An RNN is a linear layer and its nonlinearity.

Here is how torch calls a layer, and how layers and directions are chained; one layer's equations are in cells.py, and
how the steps of a sequence lie in memory, packed or not, in steps.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import RuleError
from .base import Call, Messages, Rule, Step
from .cells import Sweep, Unrolled, Weights
from .message import COEFFICIENT, RELEVANCE, Form, Message
from .neurons import check_number
from .table import register
from .time import Packed, Together

aten = torch.ops.aten

LAYERS: dict[Any, Callable[..., Any]] = {
    aten.lstm.input: torch.lstm,
    aten.lstm.data: torch.lstm,
    aten.gru.input: torch.gru,
    aten.gru.data: torch.gru,
    aten.rnn_tanh.input: torch.rnn_tanh,
    aten.rnn_tanh.data: torch.rnn_tanh,
    aten.rnn_relu.input: torch.rnn_relu,
    aten.rnn_relu.data: torch.rnn_relu,
}
CELLS: dict[Any, Callable[..., Any]] = {
    aten.lstm_cell.default: torch.lstm,
    aten.gru_cell.default: torch.gru,
    aten.rnn_tanh_cell.default: torch.rnn_tanh,
    aten.rnn_relu_cell.default: torch.rnn_relu,
}
GATES = ("all", "prop", "abs", "half")


@dataclass(frozen=True)
class Recurrent(Rule):
    """Relevance through an LSTM, GRU or RNN: layers and cells, any number of layers, both directions.

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
        return "its weights depend on the input" if set(Operation(step.node).weights) & set(step.active) else None

    def form(self, step: Step) -> Form:
        return COEFFICIENT | (RELEVANCE if step.bias == "redistribute" else Form())

    def saves(self, step: Step) -> set[Node]:
        return {n for n in Operation(step.node).variables if n not in step.active} if step.accounting else set()

    def forward(self, call: Call) -> Any:
        operation = Operation(call.node)
        x = operation.steps_first(call.value(operation.x))
        states = [operation.stacked(call.value(n)) for n in operation.states]
        weights = operation.grouped([call.value(w) for w in operation.weights])
        steps = Together(x) if operation.sizes is None else Packed(call.value(operation.sizes), x.device)
        layers: list[list[Unrolled]] = []
        for first in range(0, len(weights), operation.directions):
            layer = []
            for direction, w in enumerate(weights[first : first + operation.directions]):
                initial = [s[first + direction] for s in states]
                entering = _in_time(x, direction, steps)
                layer.append(Unrolled(operation.kernel, entering, initial, w, call.context.accumulate, steps))
            layers.append(layer)
            x = torch.cat([_in_time(run.h, direction, steps) for direction, run in enumerate(layer)], -1)
        call.saved["layers"], call.saved["steps"] = layers, steps
        final = zip(*(run.final for layer in layers for run in layer), strict=True)
        return operation.results(x, [torch.stack(parts) for parts in final])

    def backward(self, call: Call, message: Message) -> Messages:
        operation, steps = Operation(call.node), call.saved["steps"]
        above, finals = operation.arriving(call.messages or {0: message}, call.context.accumulate)
        initial: list[list[Message]] = []
        for number, layer in reversed(list(enumerate(call.saved["layers"]))):
            width, below, states = layer[0].h.shape[-1], Message(), []
            for direction, run in enumerate(layer):
                columns = slice(direction * width, (direction + 1) * width)
                index = number * operation.directions + direction
                sweep = Sweep(run, self.epsilon, self.gates, call.step)
                to_x, to_states = sweep.back(
                    Message(*(None if m is None else _in_time(m[..., columns], direction, steps) for m in above)),
                    [Message(*(None if m is None else m[index] for m in final)) for final in finals],
                )
                below = below.plus(Message(*(None if m is None else _in_time(m, direction, steps) for m in to_x)))
                states.append(to_states)
                if call.step.accounting:
                    for kind, amount in sweep.absorbed():
                        self._book(call, operation, kind, amount)
            initial = states + initial
            above = below
        sent = {n: Message() for n in operation.variables}
        for node, m in [(operation.x, above), *zip(operation.states, _stack(initial), strict=True)]:
            if node in call.active:
                shaped = operation.outside if node is operation.x else operation.unstacked
                sent[node] = sent[node].plus(_each(m, shaped))
            elif m and call.step.accounting:
                value = call.context.accumulate(call.value(node))
                value = operation.steps_first(value) if node is operation.x else operation.stacked(value)
                kept = m.relevance(value)
                kept = kept if node is operation.x else steps.placed(kept)
                self._book(call, operation, call.context.reason_for(node), kept)
        return [sent[node] for node in call.active]

    def _book(self, call: Call, operation: Operation, kind: str, amount: Tensor) -> None:
        """Amounts come as sequences, or [layers, B, ...]: with the samples where the input has them."""
        call.book(kind, lambda: operation.outside(amount), node=operation.x)


class Operation:
    """How torch calls a recurrent layer or cell, and where the time steps, samples and layers are."""

    def __init__(self, node: Node):
        target: Any = node.target
        given = {a.name: a.default_value for a in target._schema.arguments}
        given.update(zip(given, node.args, strict=False))
        given.update(node.kwargs)
        self.is_cell = target in CELLS
        self.kernel = (CELLS if self.is_cell else LAYERS)[target]
        self.sizes: Node | None = given.get("batch_sizes")
        """How many samples take each step, if the sequence is packed."""
        self.x: Node = given["input"] if self.sizes is None else given["data"]
        self.states: list[Node] = list(given["hx"]) if isinstance(given["hx"], (list, tuple)) else [given["hx"]]
        self.batch_first = given.get("batch_first", False)
        self.layers = given.get("num_layers", 1)
        self.directions = 2 if given.get("bidirectional") else 1
        if self.is_cell:
            self.weights = [given[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if given[name] is not None]
            self.biased = given["b_ih"] is not None
        else:
            self.weights, self.biased = list(given["params"]), given["has_biases"]

    @property
    def variables(self) -> list[Node]:
        return [self.x, *self.states]

    @property
    def is_lstm(self) -> bool:
        return self.kernel is torch.lstm

    def grouped(self, values: list[Tensor]) -> list[Weights]:
        """The values of the weights, for every layer and direction."""
        size = len(values) // (self.layers * self.directions)
        found = []
        for i in range(0, len(values), size):
            ih, hh, *rest = values[i : i + size]
            biases = (rest.pop(0), rest.pop(0)) if self.biased else (None, None)
            found.append(Weights(ih, hh, *biases, *rest))
        return found

    def steps_first(self, x: Tensor) -> Tensor:
        """[T, B, ...] from the shape of the input, or [rows, ...] if it is packed."""
        return x[None] if self.is_cell else x.transpose(0, 1) if self.batch_first else x

    def outside(self, x: Tensor) -> Tensor:
        """The shape of the input from [T, B, ...]."""
        return x[0] if self.is_cell else x.transpose(0, 1) if self.batch_first else x

    def stacked(self, state: Tensor) -> Tensor:
        """[layers, B, H] from the shape of a state."""
        return state[None] if self.is_cell else state

    def unstacked(self, state: Tensor) -> Tensor:
        return state[0] if self.is_cell else state

    def results(self, x: Tensor, states: list[Tensor]) -> Any:
        """What the operation returns."""
        if self.is_cell:
            return tuple(s[0] for s in states) if self.is_lstm else states[0][0]
        return (x.transpose(0, 1) if self.batch_first else x, *states)

    def arriving(
        self, messages: dict[int, Message], accumulate: Callable[[Tensor], Tensor]
    ) -> tuple[Message, list[Message]]:
        """The messages to the sequence [T, B, H], and to the final states [layers, B, H]."""
        results = [_each(messages.get(i, Message()), accumulate) for i in range(1 + len(self.states))]
        if self.is_cell:
            return Message(), [_each(m, self.stacked) for m in results[:-1]]
        return _each(results[0], self.steps_first), results[1:]


def _in_time(x: Tensor, direction: int, steps: Together | Packed) -> Tensor:
    """Steps in the order of a direction, and back."""
    return steps.backwards(x) if direction else x


def _each(message: Message, change: Callable[[Tensor], Tensor]) -> Message:
    """Both parts of a message, changed in the same way."""
    return Message(*(None if m is None else change(m) for m in message))


def _stack(messages: list[list[Message]]) -> list[Message]:
    """The messages to each state, [layers, B, H], from those of every layer to its states."""

    def joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
        return None if parts[0] is None else torch.stack(parts)  # type: ignore[arg-type]

    return [Message(*map(joined, zip(*state, strict=True))) for state in zip(*messages, strict=True)]


register("recurrent", Recurrent(), *LAYERS, *CELLS)
