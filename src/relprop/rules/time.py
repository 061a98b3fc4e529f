"""How the steps of a sequence lie in memory, and which samples take them: together, or packed.

A packed sequence has the samples with the most steps first and is [rows, ...]: the first step of every sample, then the
second step of those that have one, and so on. In every step the samples that take it are the first so and so many, so
going back in time, samples come in at the end, in the step that is their last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Together:
    """Samples of one length: [T, B, ...]."""

    def __init__(self, x: Tensor):
        self.number = x.shape[0]

    def run(self, kernel: Callable[..., Any], x: Tensor, *rest: Any) -> Any:
        """Call torch's kernel."""
        return kernel(x, *rest, False)

    def apart(self, x: Tensor) -> Sequence[Tensor]:
        """Step by step."""
        return x.unbind()

    def joined(self, steps: list[Tensor]) -> Tensor:
        return torch.stack(steps)

    def backwards(self, x: Tensor) -> Tensor:
        """Last step first."""
        return x.flip(0)

    def before(self, initial: Tensor, x: Tensor) -> Tensor:
        """The value one step before."""
        return torch.cat([initial[None], x[:-1]])

    def first(self, x: Tensor) -> Tensor:
        """The value in every sample's first step."""
        return x[0]

    def last(self, x: Tensor | None) -> Tensor | None:
        """The value in every sample's last step."""
        return None if x is None else x[-1]

    def placed(self, amount: Tensor) -> Tensor:
        """What initial states keep, [layers, B, ...], with the samples where sequences have them."""
        return amount

    def onward(self, state: Tensor, step: Tensor) -> Tensor:
        """The state of those samples that take this step."""
        return state

    def ending(self, t: int, states: list[Any], ends: list[Any]) -> list[Any]:
        """Going back in time: what the states receive in step t. Whose last step this is comes in from the end."""
        return ends if t == self.number - 1 else states


class Packed:
    """Samples of lengths of their own: [rows, ...].

    Args:
        batch_sizes: how many samples take each step.
    """

    def __init__(self, batch_sizes: Tensor, device: torch.device):
        self.batch_sizes, self.sizes = batch_sizes, batch_sizes.tolist()
        self.number = len(self.sizes)
        start = batch_sizes.cumsum(0) - batch_sizes
        step = torch.arange(self.number).repeat_interleave(batch_sizes)
        sample = torch.arange(len(step)) - start[step]
        last = sample.bincount()[sample] - 1
        self._mirrored = (start[last - step] + sample).to(device)
        self._last = (start[last] + sample)[: self.sizes[0]].to(device)
        # behind the initial states, [B], all rows of step t are start[t] + B
        self._before = torch.where(step == 0, sample, start[step - 1] + self.sizes[0] + sample).to(device)

    def run(self, kernel: Callable[..., Any], x: Tensor, *rest: Any) -> Any:
        return kernel(x, self.batch_sizes, *rest)

    def apart(self, x: Tensor) -> Sequence[Tensor]:
        return x.split(self.sizes)

    def joined(self, steps: list[Tensor]) -> Tensor:
        return torch.cat(steps)

    def backwards(self, x: Tensor) -> Tensor:
        """Every sample in itself: each begins with the step that was its last."""
        return x[self._mirrored]

    def before(self, initial: Tensor, x: Tensor) -> Tensor:
        return torch.cat([initial, x])[self._before]

    def first(self, x: Tensor) -> Tensor:
        return x[: self.sizes[0]]

    def last(self, x: Tensor | None) -> Tensor | None:
        return None if x is None else x[self._last]

    def placed(self, amount: Tensor) -> Tensor:
        """In the rows of the first step."""
        rows = amount.transpose(0, 1).flatten(1)
        return torch.cat([rows, rows.new_zeros(len(self._before) - len(rows), rows.shape[1])])

    def onward(self, state: Tensor, step: Tensor) -> Tensor:
        return state[: len(step)]

    def ending(self, t: int, states: list[Any], ends: list[Any]) -> list[Any]:
        known = self.sizes[t + 1] if t + 1 < self.number else 0
        if self.sizes[t] == known:
            return states
        return [_below(x, end, slice(known, self.sizes[t])) for x, end in zip(states, ends, strict=True)]


def _below(x: Tensor | None, end: Tensor | None, rows: slice) -> Tensor | None:
    """x with rows of ``end`` below it; None stands for zeros."""
    if x is None and end is None:
        return None
    if end is None:
        assert x is not None
        return torch.nn.functional.pad(x, (0, 0, 0, rows.stop - rows.start))
    above = end.new_zeros(rows.start, end.shape[1]) if x is None else x.expand(-1, end.shape[1])
    return torch.cat([above, end[rows]])
