"""How the steps of a sequence lie in memory, and which samples take them: all together, or packed.

A packed sequence, [rows, ...], holds the first step of every sample, then the second step of those that have one, and
so on. The samples with the most steps come first, so those that take step t are always the first ``sizes[t]``: on the
way forward samples drop out behind them, on the way back they are added there, each in its last step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Packed", "Together"]


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

    def last(self, x: Tensor) -> Tensor:
        """The value in every sample's last step."""
        return x[-1]

    def at_last(self, x: Tensor) -> Tensor:
        """A sequence that has this value in every sample's last step, and zeros before."""
        return torch.nn.functional.pad(x[None], (0, 0, 0, 0, self.number - 1, 0))

    def placed(self, amount: Tensor) -> Tensor:
        """What initial states keep, [layers, B, ...], with the samples where sequences have them."""
        return amount

    def onward(self, state: Tensor, step: Tensor) -> Tensor:
        """The state of those samples that take this step."""
        return state

    def widened(self, t: int, x: Tensor | None, ends: Tensor | None = None) -> Tensor | None:
        """Values of step t + 1, on the way back to step t: those samples that end with step t are added to them.

        Args:
            x: None before the last step, and where there is nothing at all.
            ends: the values of every sample in its last step, [B, ...]; None for zeros.
        """
        return ends if x is None else x


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

    def last(self, x: Tensor) -> Tensor:
        return x[self._last]

    def at_last(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(self._before), *x.shape[1:]).index_copy(0, self._last, x)

    def placed(self, amount: Tensor) -> Tensor:
        """In the rows of the first step."""
        rows = amount.transpose(0, 1).flatten(1)
        return torch.cat([rows, rows.new_zeros(len(self._before) - len(rows), rows.shape[1])])

    def onward(self, state: Tensor, step: Tensor) -> Tensor:
        return state[: len(step)]

    def widened(self, t: int, x: Tensor | None, ends: Tensor | None = None) -> Tensor | None:
        size = self.sizes[t]
        if x is None:
            return None if ends is None else ends[:size]
        if size == len(x):
            return x
        added = x.new_zeros(size - len(x), x.shape[1]) if ends is None else ends[len(x) : size]
        return torch.cat([x, added])
