"""What a model says of changed samples: the number that is explained, and the probability of the class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TargetError
from ..targets import scores
from .samples import Sample


class Judge:
    """A model that is asked about many versions of one sample.

    Args:
        model: called as it is, without gradients, in its own mode.
        micro_batch: so many versions at a time.
    """

    def __init__(self, model: nn.Module, micro_batch: int):
        self.model, self.micro_batch = model, micro_batch

    def settled(self, sample: Sample) -> Sample:
        """The sample with its predicted class for a target, where there is none."""
        if sample.target is not None:
            return sample
        with torch.no_grad():
            z = self._output(sample, sample.x)
        found = scores(z)
        if found.ndim == 2 and found.shape[1] > 1:
            return sample.asking(int(found[0].argmax()))
        return sample.asking(_whole)

    def runner_up(self, sample: Sample) -> int | None:
        """The class with the largest score but for the target; None where the target is no class."""
        if not isinstance(sample.target, int):
            return None
        with torch.no_grad():
            z = scores(self._output(sample, sample.x))[0].clone()
        z[sample.target] = -torch.inf
        return int(z.argmax()) if len(z) > 1 else None

    def value(self, sample: Sample) -> Callable[[Tensor], Tensor]:
        """The explained number of versions [K, ...] of a sample, [K], with its graph."""
        return lambda x: _picked(self._output(sample, x), sample.target)

    @torch.no_grad()
    def measured(self, sample: Sample, versions: Tensor) -> Tensor:
        """The explained number of every version, and the probability if it is that of a class: [K, 1 or 2], double."""
        found = []
        for part in versions.split(self.micro_batch):
            output = self._output(sample, part)
            columns = [_picked(output, sample.target)]
            if isinstance(sample.target, int):
                columns.append(_probabilities(scores(output))[:, sample.target])
            found.append(torch.stack([c.double().cpu() for c in columns], 1))
        return torch.cat(found)

    def _output(self, sample: Sample, x: Tensor) -> Any:
        args, kwargs = sample.holding(x).call()
        return self.model(*args, **kwargs)


def _whole(output: Any) -> Tensor:
    """An output [B] or [B, 1] itself."""
    z = scores(output)
    if z.ndim == 2 and z.shape[1] == 1:
        return z[:, 0]
    if z.ndim == 1:
        return z
    raise TargetError(f"the output has shape {tuple(z.shape)}: say what is explained with target=.")


def _picked(output: Any, target: Any) -> Tensor:
    if callable(target):
        found: Tensor = target(output)
        return found
    z, index = scores(output), target if isinstance(target, tuple) else (target,)
    if z.ndim != len(index) + 1:
        raise TargetError(f"target {target} is of {len(index)} dimensions, and the output of shape {tuple(z.shape)}.")
    return z[(slice(None), *index)]


def _probabilities(z: Tensor) -> Tensor:
    """Of scores their softmax; probabilities are left as they are."""
    z = z.double()
    are = bool((z >= 0).all()) and bool(((z.sum(1) - 1).abs() < 1e-3).all())
    return z if are else z.softmax(1)
