"""An operation for values that were computed outside of torch."""

from __future__ import annotations

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("relprop", "FRAGMENT")
_LIBRARY.define("outside(Tensor source, Tensor found) -> Tensor")


def _outside(source: Tensor, found: Tensor) -> Tensor:
    return found.clone()


def _shape(source: Tensor, found: Tensor) -> Tensor:
    return torch.empty_like(found)


_LIBRARY.impl("outside", _outside, "CompositeExplicitAutograd")
torch.library.register_fake("relprop::outside", _shape, lib=_LIBRARY)

outside = torch.ops.relprop.outside.default
"""What was found: a constant, though it was computed from the source."""
