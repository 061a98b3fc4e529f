"""Pictures to files and bytes."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from relprop.view._extra import image_extra
from relprop.view.arrays import RGB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture: TypeAlias = "Figure | RGB"


def path_of(path: str | PathLike[str]) -> Path:
    """The path of a file.

    Raises:
        TypeError: if it is none.
    """
    try:
        return Path(path)
    except TypeError:
        raise TypeError(f'path must be that of a file, such as "cat.png", got {path!r}') from None


def png(picture: Picture, *, dpi: float = 100) -> bytes:
    """Encode a figure, or an RGB array pixel by pixel, as PNG.

    Args:
        picture: a matplotlib Figure, or uint8 [H, W, 3].
        dpi: pixels per inch of a figure; an array has its pixels already.

    Raises:
        TypeError, ValueError: the picture is neither.
        ImportError: the extra `relprop[image]` is not installed.
    """
    buffer = io.BytesIO()
    _write(picture, buffer, "png", dpi)
    return buffer.getvalue()


def save(path: str | PathLike[str], picture: Picture, *, dpi: float = 150) -> list[Path]:
    """Write a figure or RGB array to a file whose suffix names the format; a batch is numbered.

    Args:
        path: such as "cat.png". A batch of more than one goes to "cat-0.png", "cat-1.png" and so on.
        picture: a matplotlib Figure, uint8 [H, W, 3] or uint8 [B, H, W, 3].
        dpi: pixels per inch of a figure.

    Returns:
        the paths written.

    Raises:
        TypeError, ValueError: the picture is none of these, or the path has no suffix or an unknown one.
        OSError: the file cannot be written.
        ImportError: the extra `relprop[image]` is not installed.
    """
    path = path_of(path)
    if not path.suffix:
        raise ValueError(f"path {str(path)!r} has no suffix to name the format; try {path.name + '.png'!r}")
    pictures: list[Picture] = list(picture) if isinstance(picture, np.ndarray) and picture.ndim == 4 else [picture]
    digits = len(str(len(pictures) - 1))  # padded with zeros, so that files sort as the batch does
    numbered = [path.with_stem(f"{path.stem}-{i:0{digits}}") for i in range(len(pictures))]
    paths = numbered if len(pictures) > 1 else [path]
    for one, where in zip(pictures, paths, strict=True):
        _write(one, where, None, dpi)
    return paths


def _write(picture: Picture, target: Path | io.BytesIO, kind: str | None, dpi: float) -> None:
    """`kind` None leaves the format to the suffix of the path."""
    with image_extra():
        from matplotlib.figure import Figure
        from PIL import Image
    if isinstance(picture, Figure):
        picture.savefig(target, format=kind, dpi=dpi)
        return
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"picture is a {type(picture).__name__}; pass a matplotlib Figure or a uint8 RGB array")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(
            f"picture is {picture.dtype} of shape {list(picture.shape)}; pass uint8 [H, W, 3], as heatmap and overlay "
            "return it"
        )
    Image.fromarray(picture).save(target, format=kind)
