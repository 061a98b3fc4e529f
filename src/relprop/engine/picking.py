"""An index target as the place of one number in the output of every sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TargetError
from ..targets import PREDICTED, Target


def pick(output: Tensor, index: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One number of each sample, [B], and the coefficient that picks it, in the shape of the output.

    Args:
        output: [B, ...].
        index: one tensor [B] for each dimension behind the first.
    """
    flat, place = output.reshape(output.shape[0], -1), torch.zeros(output.shape[:1]).long().to(output.device)
    for i, size in zip(index, output.shape[1:], strict=False):
        place = place * size + i
    return flat.gather(1, place[:, None])[:, 0], torch.zeros_like(flat).scatter(1, place[:, None], 1).view_as(output)


def index_of(target: Target, output: Tensor) -> tuple[Tensor, ...]:
    """The index of every sample, one tensor [B] per dimension behind the first."""
    shape, samples = tuple(output.shape), output.shape[0]
    if isinstance(target, np.ndarray):
        target = torch.from_numpy(target)
    if isinstance(target, np.integer):
        target = int(target)
    if target is None or (isinstance(target, int) and target == PREDICTED):
        return _predicted(output)
    if isinstance(target, Tensor):
        return _tensor_index(target, output)
    if isinstance(target, bool) or not isinstance(target, (int, tuple)):
        raise TargetError(
            f"target must be None, an int, a LongTensor [B], a tuple of ints, a function, or several([...]); "
            f"got {target!r}."
        )
    entries = target if isinstance(target, tuple) else (target,)
    if output.ndim == 1 and entries == (0,):
        return ()
    if len(entries) != output.ndim - 1:
        raise TargetError(
            f"target {target!r} has {len(entries)} index(es) for an output of shape {shape}; it needs "
            f"{output.ndim - 1} (all but the first dimension, that of the samples), or a function from the output to "
            "one scalar per sample."
        )
    index = []
    for d, entry in enumerate(entries, start=1):
        if isinstance(entry, Tensor):
            entry = _checked(entry, samples)
        elif isinstance(entry, int) and not isinstance(entry, bool):
            entry = torch.full((samples,), entry, device=output.device)
        else:
            raise TargetError(f"target {target!r}: an index must be an int or a LongTensor [B], got {entry!r}.")
        index.append(_in_range(entry.to(output.device), shape[d], target, d))
    return tuple(index)


def _predicted(output: Tensor) -> tuple[Tensor, ...]:
    """The index of the class that is predicted, or of the only number there is."""
    if output.ndim == 1:
        return ()
    if output.ndim == 2:
        return (output.argmax(1),)
    raise TargetError(
        f"the output has shape {tuple(output.shape)}: say what to explain. Choose an index tuple of {output.ndim - 1} "
        f"numbers, such as target={tuple([0] * (output.ndim - 1))}, or a function from the output to one scalar per "
        "sample, such as target=lambda output: output.flatten(1).sum(1)."
    )


def _tensor_index(target: Tensor, output: Tensor) -> tuple[Tensor, ...]:
    target = _checked(target, output.shape[0])
    if output.ndim != 2:
        raise TargetError(f"a target of one index per sample needs an output [B, C], got {tuple(output.shape)}.")
    index = target.to(output.device)
    return (_in_range(torch.where(index == PREDICTED, output.argmax(1), index), output.shape[1], target, 1),)


def _checked(target: Tensor, samples: int) -> Tensor:
    if target.dtype.is_floating_point or target.dtype in (torch.bool,) or target.dtype.is_complex:
        raise TargetError(f"target tensors hold class indices (dtype torch.long), got {target.dtype}.")
    if target.ndim == 0:
        target = target.expand(samples)
    if target.shape != (samples,):
        raise TargetError(f"a target tensor has one index per sample, [{samples}], got shape {tuple(target.shape)}.")
    return target.long()


def _in_range(index: Tensor, size: int, target: Any, dim: int) -> Tensor:
    if bool(((index >= size) | (index < -size)).any()):
        raise TargetError(f"target {target!r} is out of range: dimension {dim} of the output has size {size}.")
    return index % size
