"""Photos as people have them: a path, a PIL image, or an array in any of the usual orders and ranges."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relprop.view._extra import image_extra
from relprop.view.arrays import Floats, as_floats
from relprop.view.colour import ColourMap

_PIXELS = 50_000_000
"""No larger picture is decoded."""


def picture(image: Any, size: tuple[int, int], *, crop: float | None = None) -> Floats:
    """A photo as [C, H, W] in [0, 1], of a size that a map can be laid over.

    Args:
        image: a path, a PIL image, or an array or tensor [H, W], [C, H, W], [H, W, C] or [1, ...] of these with 1, 3
            or 4 channels (the fourth, opacity, is left out): uint8, or floats in [0, 1] or, if they are whole
            numbers, to 255.
        size: height and width of the map. A photo of the same proportions, and no smaller, keeps its size; any other
            is resized to that of the map.
        crop: which centred part of the shorter side the model saw, such as 224 / 256; the part has the proportions of
            the map. By default all of the image.

    Raises:
        TypeError: if it is none of these.
        ValueError: for other shapes or ranges, more than 50 million pixels, or a file that cannot be read.
        OSError: if there is no such file.
        ImportError: a path, and the extra `relprop[image]` is not installed.
    """
    pixels = _channels_first(_array(image))
    if crop is not None:
        if not 0 < crop <= 1:
            raise ValueError(f"crop={crop}; it is a share of the shorter side, in (0, 1]")
        pixels = _cropped(pixels, size, crop)
    (h, w), (height, width) = size, pixels.shape[1:]
    alike = height * (w - 1) <= width * (h + 1) and width * (h - 1) <= height * (w + 1)
    return pixels if alike and height >= h and width >= w else _resized(pixels, size)


def is_dark(pixels: Floats) -> bool:
    """Whether most of a photo is so dark that strong colours of a map with a white centre would be the darkest."""
    return float(np.median(pixels)) < 0.15


def colours_over(pixels: Floats | None) -> ColourMap:
    """A map with a white centre, or on a dark photo one with a black centre."""
    return "coldhot" if pixels is not None and is_dark(pixels) else "seismic"


def _array(image: Any) -> Any:
    """A tensor or array, from whatever holds pixels."""
    if isinstance(image, (torch.Tensor, np.ndarray)):
        return image
    with image_extra():
        from PIL import Image
    if isinstance(image, (str, PathLike)):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f"image={str(path)!r}: there is no such file")
        try:
            with Image.open(path) as opened:
                return _pixels(opened)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"image={str(path)!r} cannot be read as a picture: {error}") from error
    if isinstance(image, Image.Image):
        return _pixels(image)
    raise TypeError(f"image is a {type(image).__name__}; pass a path, a PIL image, a tensor or an array")


def _pixels(image: Any) -> Any:
    if image.width * image.height > _PIXELS:
        raise ValueError(f"image is {image.width} by {image.height}; pass one of at most {_PIXELS:,} pixels")
    return np.asarray(image.convert("RGB"))


def _channels_first(image: Any) -> Floats:
    array = as_floats(image, "image")
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and array.shape[0] not in (1, 3, 4) and array.shape[-1] in (1, 3, 4):
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        raise ValueError(f"image has shape {list(image.shape)}; pass one photo, [C, H, W], [H, W, C] or [H, W]")
    array = array[:3]
    whole = array.max() > 1 and array.min() >= 0 and array.max() <= 255 and bool((array == np.rint(array)).all())
    if image.dtype in (torch.uint8, np.uint8) or whole:
        return array / 255
    if array.min() < -1e-3 or array.max() > 1 + 1e-3:
        raise ValueError(
            f"image ranges from {array.min():.4g} to {array.max():.4g}; pass floats in [0, 1] or uint8: undo the "
            "model's normalisation, or leave image= out, and the input is stretched"
        )
    return array.clip(0, 1)


def _cropped(pixels: Floats, size: tuple[int, int], crop: float) -> Floats:
    """The centre, in the proportions of ``size``."""
    height, width = pixels.shape[1:]
    unit = crop * min(height / size[0], width / size[1])
    h, w = max(1, round(unit * size[0])), max(1, round(unit * size[1]))
    top, left = (height - h) // 2, (width - w) // 2
    return pixels[:, top : top + h, left : left + w]


def _resized(pixels: Floats, size: tuple[int, int]) -> Floats:
    batch = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    resized = torch.nn.functional.interpolate(batch, size=size, mode="bilinear", antialias=True)
    return np.asarray(resized[0].clamp(0, 1).numpy(), np.float64)
