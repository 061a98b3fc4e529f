"""Whether tensors changed, told from all of their bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 13
"""Parameters of fewer values are compared one by one, larger ones by the sum of their bits and some values."""


@torch.no_grad()
def checksum(tensors: list[Tensor]) -> list[Tensor]:
    """What changes when any value does: the sum of a tensor's bits, and some of its values, as sums know no order."""
    parts: list[Tensor] = []
    values: dict[Any, list[Tensor]] = {}
    for t in tensors:
        flat, n = _in_memory_order(t).reshape(-1), t.numel()
        some = values.setdefault((t.dtype, t.device), [])
        if n < SMALL:
            some.append(flat)
            continue
        step = 8 // t.element_size()
        start = -t.storage_offset() % step
        end = start + (n - start) // step * step
        parts.append(flat[start:end].view(torch.int64).sum())
        some += [flat[:: n // 64], *(flat[i:j] for i, j in ((0, start), (end, n)) if i < j)]
    parts += [torch.cat(some) for some in values.values()]
    parts.append(torch.tensor([n for t in tensors for n in t.stride()]))
    return parts


def _in_memory_order(t: Tensor) -> Tensor:
    """The same values as they lie in memory, so that none has to be copied to read them in a row."""
    return t if t.is_contiguous() else t.permute(sorted(range(t.ndim), key=t.stride, reverse=True))
