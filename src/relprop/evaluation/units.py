"""What is flipped as one: pixels, patches, super-pixels, tokens, steps or features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..extra import extra
from .samples import Sample

Unit = Literal["auto", "pixel", "patch", "superpixel", "token", "step", "feature"]
UNITS: tuple[str, ...] = get_args(Unit)
_SIDES = 14
"""An image is cut into so many patches along its shorter side."""


def kind_of(x: Tensor, unit: Unit) -> Unit:
    """The unit, or by the shape of the input: patches of images, tokens, steps of series, features of rows.

    Raises:
        ValueError: if there is no such unit, or it does not go with the input.
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(map(repr, UNITS))}, got {unit!r}")
    shapes: dict[str, bool] = {
        "patch": x.ndim == 4,
        "token": (x.ndim == 2 and not x.dtype.is_floating_point) or x.ndim == 3,
        "step": x.ndim in (2, 3),
        "feature": x.ndim == 2,
    }
    shapes |= {"pixel": x.ndim == 4, "superpixel": x.ndim == 4}
    if unit != "auto":
        if not shapes[unit]:
            raise ValueError(f"unit={unit!r} does not go with inputs of shape {list(x.shape)}")
        return unit
    if x.ndim == 4:
        return "patch"
    if x.ndim == 2:
        return "feature" if x.dtype.is_floating_point else "token"
    if x.ndim == 3:
        return "step"
    raise ValueError(f"inputs of shape {list(x.shape)} are no images, texts, series or rows: give unit=")


def side_of(x: Tensor, size: int | None) -> int:
    """The side of patches, or that super-pixels have about."""
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"size={size!r}; it is a number of pixels, at least 1")
    return size or max(1, min(x.shape[-2:]) // _SIDES)


def labels_of(x: Tensor, unit: Unit, size: int | None, channels_first: bool, valid: Tensor | None) -> Tensor:
    """The unit of every value of one sample, in its shape without the batch dimension.

    Args:
        x: the sample, [1, ...].
        unit: one that goes with it.
        size: as of :func:`side_of`.
        channels_first: whether a series is [1, F, T].
        valid: what may be flipped, a boolean that broadcasts to the sample; units are -1 elsewhere.
    """
    shape = x.shape[1:]
    if unit == "pixel":
        found = torch.arange(shape[1] * shape[2]).reshape(1, *shape[1:])
    elif unit == "patch":
        side = side_of(x, size)
        rows, columns = torch.arange(shape[1]) // side, torch.arange(shape[2]) // side
        found = (rows[:, None] * (int(columns[-1]) + 1) + columns)[None]
    elif unit == "superpixel":
        found = _superpixels(x[0], side_of(x, size))[None]
    elif unit in ("token", "step") and len(shape) == 2:
        found = torch.arange(shape[1])[None] if channels_first else torch.arange(shape[0])[:, None]
    else:
        found = torch.arange(shape[0])
    found = found.expand(shape)
    if valid is None:
        return found
    found = torch.where(valid.cpu().expand(shape), found, -1)
    _, numbered = found.unique(return_inverse=True)
    return numbered - int((found == -1).any())


def valid_of(valid: Tensor, samples: Sequence[Sample], channels_first: bool) -> Tensor:
    """What may be flipped, [N or 1, ...] with a dimension for channels where the samples have one.

    Raises:
        ValueError: if it does not fit the samples.
    """
    x, found = samples[0].x, valid.bool()
    if found.ndim == x.ndim - 1 and x.ndim > 2:
        found = found.unsqueeze(1 if x.ndim == 4 or channels_first else -1)
    fits = found.ndim == x.ndim and all(n in (1, m) for n, m in zip(found.shape[1:], x.shape[1:], strict=True))
    if not fits or len(found) not in (1, len(samples)):
        raise ValueError(f"valid has shape {list(valid.shape)}; the inputs are {[len(samples), *x.shape[1:]]}")
    return found


def _superpixels(x: Tensor, side: int) -> Tensor:
    with extra("evaluate", "super-pixels need scikit-image"):
        from skimage.segmentation import slic
    pixels = x.detach().double().cpu().movedim(0, -1).numpy()
    span = np.ptp(pixels) or 1.0
    count = max(1, round(pixels.shape[0] * pixels.shape[1] / side**2))
    found = slic((pixels - pixels.min()) / span, count, compactness=30, sigma=1, start_label=0, channel_axis=-1)
    return torch.from_numpy(np.asarray(found)).long()


def sums(relevance: Tensor, labels: Tensor) -> Tensor:
    """Relevance of every unit, [units], double.

    Args:
        relevance: of one sample, of a shape that broadcasts to its.
        labels: as of :func:`labels_of`.
    """
    r = relevance.detach().double().cpu()
    if r.ndim < labels.ndim:  # one value per step of several features
        r = r.reshape(*r.shape, *(1,) * (labels.ndim - r.ndim))
    share = r.numel() / labels.numel()  # a value that stands for several is shared by them
    flat, own = (r * share).expand(labels.shape).reshape(-1), labels.reshape(-1)
    kept = own >= 0
    return torch.zeros(int(own.max()) + 1, dtype=torch.float64).index_add(0, own[kept], flat[kept])
