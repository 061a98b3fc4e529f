"""One recurrent layer in one direction in one run: torch's kernel runs it, what happens in its steps is computed here.

A kernel returns h_t and nothing else. All that enters a step follows from h_t-1 and x_t, so it is computed for all
steps at once; only an LSTM's cell states have to be followed from step to step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..graph.kernels import linear
from .time import Packed, Together

__all__ = ["Parameters", "Unrolled"]


class Parameters(NamedTuple):
    """The parameters of one layer in one direction."""

    w: Tensor
    """W, which x_t is multiplied by: torch's weight_ih."""
    u: Tensor
    """U, which h_t-1 is multiplied by: torch's weight_hh."""
    b: Tensor | None = None
    """The bias beside W: torch's bias_ih."""
    d: Tensor | None = None
    """The bias beside U: torch's bias_hh."""
    p: Tensor | None = None
    """P of a projected LSTM: torch's weight_hr."""


class Unrolled:
    """One layer in one direction, in the order in which its steps are taken.

    Args:
        kernel: torch.lstm, torch.gru, torch.rnn_tanh or torch.rnn_relu.
        x: the sequence, [T, B, ...], or [rows, ...] if it is packed.
        states: the initial states, [B, ...].
        parameters: of this layer and direction.
        steps: how the steps lie in x.
        backwards: whether the last step is taken first.
        accumulate: gives a value the precision of relevance.
    """

    def __init__(
        self,
        kernel: Callable[..., Any],
        x: Tensor,
        states: list[Tensor],
        parameters: Parameters,
        steps: Together | Packed,
        backwards: bool,
        accumulate: Callable[[Tensor], Tensor],
    ):
        self.kernel, self.parameters, self.steps, self.backwards = kernel, parameters, steps, backwards
        self._x, self._states, self.accumulate = self.in_time(x), states, accumulate
        hidden: Any = [s[None] for s in states] if kernel is torch.lstm else states[0][None]
        given = [w for w in parameters if w is not None]
        self._h, *final = steps.run(kernel, self._x, hidden, given, parameters.b is not None, 1, 0.0, False, False)
        self._b, self._d = (None if x is None else accumulate(x) for x in (parameters.b, parameters.d))
        self.final = [s[0] for s in final]
        """The states after the last step, [B, ...]."""
        self.output = self.in_time(self._h)
        """h_t, in the order of the input."""

    def in_time(self, x: Tensor) -> Tensor:
        """A sequence in the order in which steps are taken, and back in the order of the input."""
        return self.steps.backwards(x) if self.backwards else x

    def apart(self, x: Tensor | None) -> Any:
        """A sequence step by step; None in every step where there is none."""
        return [None] * self.steps.number if x is None else self.steps.apart(x)

    def w(self, rows: slice = slice(None)) -> Tensor:
        """W in the precision of relevance, or rows of it."""
        return self.accumulate(self.parameters.w[rows])

    def u(self, rows: slice = slice(None)) -> Tensor:
        """U in the precision of relevance, or rows of it."""
        return self.accumulate(self.parameters.u[rows])

    def biases(self, count: int) -> list[tuple[Tensor | None, Tensor | None]]:
        """b and d of each of so many gates."""
        if self._b is None or self._d is None:
            return [(None, None)] * count
        return list(zip(self._b.chunk(count), self._d.chunk(count), strict=True))

    @property
    def h(self) -> Tensor:
        """h_t"""
        return self.accumulate(self._h)

    @property
    def h_before(self) -> Tensor:
        """h_t-1"""
        return self.steps.before(self.accumulate(self._states[0]), self.h)

    @property
    def from_x(self) -> Tensor:
        """W x_t + b, of all gates"""
        return linear(self.accumulate(self._x), self.w(), self._b)

    @property
    def from_h(self) -> Tensor:
        """U h_t-1 + d, of all gates"""
        return linear(self.h_before, self.u(), self._d)

    def cell_states(self, f: Tensor, enter: Tensor) -> tuple[Tensor, Tensor]:
        """c_t-1 and c_t = f ⊙ c_t-1 + enter"""
        steps, initial = self.steps, self.accumulate(self._states[1])
        after: list[Tensor] = []
        for f_t, enter_t in zip(steps.apart(f), steps.apart(enter), strict=True):
            after.append(torch.addcmul(enter_t, f_t, steps.onward(after[-1] if after else initial, f_t)))
        c = steps.joined(after)
        return steps.before(initial, c), c
