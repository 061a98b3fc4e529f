"""Whether tensors changed, told from all of their bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 13
"""Parameters of fewer values are compared one by one, larger ones by the sum of their bits and some values."""


class Checksum:
    """What changes when any value of some tensors does, made as often as it is asked for.

    It is the sum of a tensor's bits, and some of its values, as sums know no order. The views that are read are made
    once: tensors that lie elsewhere by now need another one.
    """

    @torch.no_grad()
    def __init__(self, tensors: list[Tensor]):
        self.where = places(tensors)
        self._sums: list[Tensor] = []
        self._values: dict[Any, list[Tensor]] = {}
        self._strides = torch.tensor([n for t in tensors for n in t.stride()])
        for t in (t.detach() for t in tensors):
            flat, n = _in_memory_order(t).reshape(-1), t.numel()
            some = self._values.setdefault((t.dtype, t.device), [])
            if n < SMALL:
                some.append(flat)
                continue
            step = 8 // t.element_size()
            start = -t.storage_offset() % step
            end = start + (n - start) // step * step
            self._sums.append(flat[start:end].view(torch.int64))
            some += [flat[:: n // 64], *(flat[i:j] for i, j in ((0, start), (end, n)) if i < j)]

    @torch.no_grad()
    def now(self) -> list[Tensor]:
        return [*(x.sum() for x in self._sums), *(torch.cat(some) for some in self._values.values()), self._strides]


def places(tensors: list[Tensor]) -> tuple[Any, ...]:
    """Where tensors lie, and how."""
    return tuple((t.data_ptr(), t.dtype, t.shape, t.stride(), t.device) for t in tensors)


def checksum(tensors: list[Tensor]) -> list[Tensor]:
    """What changes when any value does."""
    return Checksum(strided(tensors)).now()


def strided(tensors: list[Tensor]) -> list[Tensor]:
    """The same tensors, but the indices and values of those that are sparse."""
    return [part for t in tensors for part in _parts(t)]


def _parts(t: Tensor) -> tuple[Tensor, ...]:
    if t.layout == torch.sparse_coo:
        return t._indices(), t._values()
    if t.layout in (torch.sparse_csr, torch.sparse_bsr):
        return t.crow_indices(), t.col_indices(), t.values()
    if t.layout in (torch.sparse_csc, torch.sparse_bsc):
        return t.ccol_indices(), t.row_indices(), t.values()
    return (t,)


def _in_memory_order(t: Tensor) -> Tensor:
    """The same values as they lie in memory, so that none has to be copied to read them in a row."""
    return t if t.is_contiguous() else t.permute(sorted(range(t.ndim), key=t.stride, reverse=True))
