"""How torch calls recurrent layers and cells: which argument is what, and where steps, samples and layers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import arguments
from .message import Message
from .unrolled import Parameters

__all__ = ["CELLS", "LAYERS", "Signature"]

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


class Signature:
    """One call of a recurrent layer or cell.

    Inside, sequences are [T, B, ...], or [rows, ...] if they are packed, and states [layers * directions, B, ...]; a
    cell is a layer whose sequence has one step.
    """

    def __init__(self, node: Node):
        target: Any = node.target
        given = arguments(node)
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

    def parameters(self, values: list[Tensor]) -> list[Parameters]:
        """The values of the weights, for every layer in each of its directions."""
        size = len(values) // (self.layers * self.directions)
        found = []
        for i in range(0, len(values), size):
            w, u, *rest = values[i : i + size]
            b, d = (rest.pop(0), rest.pop(0)) if self.biased else (None, None)
            found.append(Parameters(w, u, b, d, *rest))
        return found

    def inside(self, x: Tensor) -> Tensor:
        """A sequence as the input has it -> [T, B, ...]."""
        return x[None] if self.is_cell else x.transpose(0, 1) if self.batch_first else x

    def outside(self, x: Tensor) -> Tensor:
        """[T, B, ...] -> a sequence as the input has it."""
        return x[0] if self.is_cell else x.transpose(0, 1) if self.batch_first else x

    def state_inside(self, state: Tensor) -> Tensor:
        """A state as the operation takes it -> [layers * directions, B, H]."""
        return state[None] if self.is_cell else state

    def state_outside(self, state: Tensor) -> Tensor:
        """[layers * directions, B, H] -> a state as the operation takes it."""
        return state[0] if self.is_cell else state

    def results(self, x: Tensor, states: list[Tensor]) -> Any:
        """What the operation returns: the sequence and the final states, or those of a cell alone."""
        if not self.is_cell:
            return (self.outside(x), *states)
        states = [s[0] for s in states]
        return tuple(states) if len(states) == 2 else states[0]

    def arriving(
        self, messages: dict[int, Message], accumulate: Callable[[Tensor], Tensor]
    ) -> tuple[Message, list[Message]]:
        """The messages to the sequence [T, B, H], and to the final states [layers * directions, B, H]."""
        results = [messages.get(i, Message()).each(accumulate) for i in range(1 + len(self.states))]
        if self.is_cell:
            return Message(), [m.each(self.state_inside) for m in results[:-1]]
        return results[0].each(self.inside), results[1:]
