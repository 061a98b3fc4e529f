"""How a picture becomes what a network reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..failures import Usage

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLING = {"nearest": 0, "bilinear": 2, "bicubic": 3}
"""Names of PIL's filters -> their numbers."""
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Pixels:
    """Crop, resize, scale to [0, 1], subtract a mean, divide by a standard deviation."""

    size: tuple[int, int] | None = None
    """Height and width; None leaves pictures as they are."""
    crop: float | None = 1.0
    """Which centred part of the shorter side is seen; None squeezes all of the picture into the size."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resample: int = RESAMPLING["bicubic"]
    gray: bool = False
    known: bool = False
    """Whether the model says so itself, or the user has."""

    def changed(self, size: str | None, mean: str | None, std: str | None, gray: bool) -> Pixels:
        """With what the user has said.

        Raises:
            Usage: if an option cannot be read.
        """
        new = self
        if size is not None:
            new = replace(new, size=_size(size))
        if mean is not None:
            new = replace(new, mean=_numbers("mean", mean), known=True)
        if std is not None:
            new = replace(new, std=_numbers("std", std), known=True)
            if 0 in new.std:
                raise Usage("--std is what pixels are divided by: no 0")
        return replace(new, gray=True) if gray else new

    def seen(self, picture: Any) -> Any:
        """What the network sees of a PIL picture: cropped and resized."""
        picture = picture.convert("L" if self.gray else "RGB")
        if self.size is None:
            return picture
        height, width = self.size
        if self.crop is not None:
            unit = self.crop * min(picture.height / height, picture.width / width)
            h, w = unit * height, unit * width
            left, top = (picture.width - w) / 2, (picture.height - h) / 2
            picture = picture.crop(tuple(round(x) for x in (left, top, left + max(w, 1), top + max(h, 1))))
        return picture.resize((width, height), self.resample)

    def __call__(self, picture: Any) -> Tensor:
        """What a network reads of it, [1, C, H, W]."""
        import numpy as np
        import torch

        values = np.asarray(self.seen(picture), dtype=np.float64) / 255
        values = (values[..., None] if values.ndim == 2 else values) - np.array(self.mean)
        return torch.from_numpy(values / np.array(self.std)).permute(2, 0, 1)[None].float()


def _size(text: str) -> tuple[int, int]:
    parts = text.replace(",", "x").split("x")
    if not all(part.strip().isdigit() and int(part) for part in parts) or len(parts) > 2:
        raise Usage(f'--size {text!r} is no size; such as "224", or "240x320" for height and width')
    return int(parts[0]), int(parts[-1])


def _numbers(name: str, text: str) -> tuple[float, ...]:
    if text == "imagenet":
        return _IMAGENET[name]
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise Usage(f'--{name} {text!r}: a number, three separated by commas, or "imagenet"') from None
    if len(found) not in (1, 3):
        raise Usage(f"--{name} {text!r} are {len(found)} numbers; a picture has 1 or 3 channels")
    return found
