"""What takes the place of what is flipped: several, since rankings of methods may change with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..extra import extra
from .samples import Sample
from .units import Unit

Fill = Callable[[Sample, Tensor], Tensor]
"""(sample, flipped [K, ...] as the sample) -> versions [K, ...]."""

Named = Literal["blur", "mean", "noise", "inpaint", "permuted"]
Replacement = Named | tuple[str, float | Callable[[Tensor, torch.Generator], Tensor]]
"""A name; or one of your own with a number (black, the padding token), or with a function of sample and generator."""


@dataclass(frozen=True)
class Setting:
    """What replacements need to know of the data."""

    unit: Unit
    channels_first: bool
    samples: Sequence[Sample]
    seed: int

    def axes(self, x: Tensor) -> tuple[int, ...]:
        """The dimensions along which a sample [1, ...] is one picture or one series."""
        if x.ndim == 4:
            return (2, 3)
        return (2,) if self.channels_first else (1,)


def defaults(unit: Unit) -> list[Replacement]:
    """What is flipped to, by the kind of data."""
    if unit == "token":
        return ["permuted"]
    return ["mean", "permuted"] if unit == "feature" else ["blur", "mean", "noise"]


def fills(replacements: Sequence[Replacement], setting: Setting) -> dict[str, Fill]:
    """Name -> what makes versions of a sample.

    Raises:
        ValueError: if there is no such replacement, it does not go with the data, or two have one name.
    """
    found: dict[str, Fill] = {}
    for replacement in replacements:
        name, value = replacement if isinstance(replacement, tuple) else (replacement, None)
        if name in found:
            raise ValueError(f"two replacements are called {name!r}")
        found[name] = _fill(name, value, setting)
    if not found:
        raise ValueError("there are no replacements")
    return found


def _fill(name: str, value: Any, setting: Setting) -> Fill:
    discrete = not setting.samples[0].x.dtype.is_floating_point
    if callable(value):
        return _background(lambda s: value(s.x, s.random(setting.seed, name)))
    if value is not None:
        return _background(lambda s: torch.full_like(s.x, value))
    if name not in get_args(Named):
        known = ", ".join(map(repr, get_args(Named)))
        raise ValueError(f"there is no replacement {name!r}; choose among {known}, or give (name, number)")
    if discrete and name != "permuted":
        raise ValueError(f"replacement {name!r} is for numbers, not ids; give ('pad', id) or ('mask', id)")
    if name == "inpaint":
        if setting.samples[0].x.ndim != 4:
            raise ValueError("replacement 'inpaint' is for images")
        return _inpainted
    if name == "blur" and setting.unit == "feature":
        raise ValueError("replacement 'blur' is for images and series; rows of a table have no neighbours")
    return _background(lambda s: _MADE[name](s, setting))


def _background(make: Callable[[Sample], Tensor]) -> Fill:
    """One picture stands behind all versions of a sample, and shows where they are flipped."""
    last: list[tuple[Sample, Tensor]] = []

    def fill(sample: Sample, flipped: Tensor) -> Tensor:
        if not last or last[0][0] is not sample:
            last[:] = [(sample, make(sample).to(sample.x).expand_as(sample.x))]
        return torch.where(flipped.to(sample.x.device), last[0][1], sample.x)

    return fill


def _blurred(sample: Sample, setting: Setting) -> Tensor:
    """Without detail: a Gaussian as wide as a 22nd of the picture (10 pixels of 224)."""
    with extra("evaluate", "blurring needs scipy"):
        from scipy.ndimage import gaussian_filter
    x, axes = sample.x, setting.axes(sample.x)
    widths = [x.shape[d] / 22.4 if d in axes else 0.0 for d in range(x.ndim)]
    blurred = gaussian_filter(x.detach().double().cpu().numpy(), widths, mode="reflect", truncate=3.0)
    return torch.from_numpy(blurred)


def _mean(sample: Sample, setting: Setting) -> Tensor:
    """Of each channel of the sample; of a table, of each column of the data."""
    if setting.unit == "feature":
        return torch.stack([s.x.double() for s in setting.samples]).mean(0)
    return sample.x.double().mean(setting.axes(sample.x), keepdim=True)


def _noise(sample: Sample, setting: Setting) -> Tensor:
    """Gaussian, with mean and spread of each channel of the sample, or of each column of a table."""
    if setting.unit == "feature":
        rows = torch.cat([s.x.double().cpu() for s in setting.samples])
        mean, spread = rows.mean(0, keepdim=True), rows.std(0, correction=0, keepdim=True)
    else:
        x, axes = sample.x.double().cpu(), setting.axes(sample.x)
        mean, spread = x.mean(axes, keepdim=True), x.std(axes, correction=0, keepdim=True)
    drawn = torch.randn(sample.x.shape, generator=sample.random(setting.seed, "noise"), dtype=torch.float64)
    return mean + spread * drawn


def _permuted(sample: Sample, setting: Setting) -> Tensor:
    """For every value the one at its place in another sample; for a token any token of the data."""
    generator, samples = sample.random(setting.seed, "permuted"), setting.samples
    if setting.unit == "token":
        pool = torch.cat([s.x.cpu().flatten(0, 1) for s in samples])
        chosen = torch.randint(len(pool), sample.x.shape[:2], generator=generator)
        return pool[chosen]
    if any(s.x.shape != sample.x.shape for s in samples):
        raise ValueError("replacement 'permuted' needs samples of one shape")
    others = [s for s in samples if s is not sample] or [sample]
    whose = torch.randint(len(others), sample.x.shape, generator=generator)
    return torch.cat([s.x.cpu() for s in others]).gather(0, whose)


def _inpainted(sample: Sample, flipped: Tensor) -> Tensor:
    """Smoothly continued from what is left (biharmonic equation); where nothing is left, the mean."""
    with extra("evaluate", "in-painting needs scikit-image"):
        from skimage.restoration import inpaint_biharmonic
    pixels = sample.x[0].detach().double().cpu().movedim(0, -1).numpy()
    found = []
    for mask in flipped.cpu().any(1).numpy():
        if mask.all():
            filled = np.broadcast_to(pixels.mean((0, 1)), pixels.shape)
        else:
            filled = inpaint_biharmonic(pixels, mask, channel_axis=-1) if mask.any() else pixels
        found.append(np.moveaxis(filled, -1, 0))
    return torch.from_numpy(np.stack(found)).to(sample.x)


_MADE: dict[str, Callable[[Sample, Setting], Tensor]] = {
    "blur": _blurred,
    "mean": _mean,
    "noise": _noise,
    "permuted": _permuted,
}
