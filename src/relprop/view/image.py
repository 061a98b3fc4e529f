"""Relevance of images: heatmap, overlay, and a figure with both beside the image.

The options that the three share:

    cmap        "seismic" (white centre), "coldhot" (black centre), or any matplotlib colour map
    scale       magnitude of the last colour; by default the largest of the map
    percentile  take this percentile of the non-zero magnitudes instead of the largest; stronger ones share a colour;
                "auto" takes 99.5 where the largest is more than three times as strong, lest the rest be blank
    shared      one scale for the whole batch, so that its maps can be compared; by default each map has its own
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from relprop.view._extra import new_figure
from relprop.view.arrays import RGB, Array, Floats, maps, photo
from relprop.view.colour import ColourMap, Percentile, brightness, colour_bar, colour_map, colours, limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How far an overlay takes the grey photo towards the colour of zero, so that no photo is as dark as strong relevance.
_FADE = 0.5


def heatmap(
    relevance: Array,
    *,
    cmap: ColourMap = "seismic",
    scale: float | None = None,
    percentile: Percentile = None,
    shared: bool = False,
) -> RGB:
    """Colour relevance by sign and size: positive red, negative blue, zero exactly the centre.

    Args:
        relevance: [H, W], [C, H, W] or [B, C, H, W]; channels are summed.
        cmap, scale, percentile, shared: see `relprop.view.image`.

    Returns:
        uint8 [H, W, 3], or [B, H, W, 3] for a batch; `PIL.Image.fromarray` takes each.

    Raises:
        TypeError, ValueError: values that are not finite real numbers, a wrong shape, a bad option.
        ImportError: the extra `relprop[image]` is not installed.
    """
    signed = maps(relevance)
    ends = limits(signed, scale=scale, percentile=percentile, shared=shared)
    return _like(relevance, np.stack([colours(m, end, cmap) for m, end in zip(signed, ends, strict=True)]))


def overlay(
    relevance: Array,
    image: Array,
    *,
    alpha: float = 1.0,
    cmap: ColourMap = "seismic",
    scale: float | None = None,
    percentile: Percentile = None,
    shared: bool = False,
) -> RGB:
    """Tint the image, in faded grey, with the colours of the heatmap; where relevance is zero it stays grey.

    Args:
        relevance: [h, w], [C, h, w] or [B, C, h, w]; channels are summed. A map smaller than the image, such as that
            of a hidden layer, is enlarged bilinearly.
        image: [H, W], [C, H, W] or [B, C, H, W] with 1 or 3 channels, uint8 or float in [0, 1]; `stretch` brings a
            normalised input there.
        alpha: strength of the tint in [0, 1].
        cmap, scale, percentile, shared: see `relprop.view.image`.

    Returns:
        uint8 [H, W, 3], or [B, H, W, 3] if the relevance is a batch.

    Raises:
        TypeError, ValueError: as `heatmap`; also if the sizes or ranges of image and relevance do not fit.
        ImportError: the extra `relprop[image]` is not installed.
    """
    signed, picture = _pair(relevance, image)
    ends = limits(signed, scale=scale, percentile=percentile, shared=shared)
    return _like(relevance, _blend(signed, picture, ends, cmap, alpha))


def figure(
    relevance: Array,
    image: Array | None = None,
    *,
    title: str | Sequence[str] | None = None,
    alpha: float = 1.0,
    cmap: ColourMap = "seismic",
    scale: float | None = None,
    percentile: Percentile = None,
    shared: bool = False,
) -> Figure:
    """Draw image, heatmap and overlay side by side, one row per sample, with a colour bar in units of relevance.

    Args:
        relevance: [h, w], [C, h, w] or [B, C, h, w]; channels are summed.
        image: as for `overlay`; without it only the heatmap is drawn.
        title: one string for the figure, or one per sample.
        alpha, cmap, scale, percentile, shared: see `overlay` and `relprop.view.image`.

    Returns:
        a matplotlib Figure that belongs to no pyplot state; see `save` and `png`.

    Raises:
        TypeError, ValueError: as `overlay`; also if the number of titles is not that of the samples.
        ImportError: the extra `relprop[image]` is not installed.
    """
    signed, picture = (maps(relevance), None) if image is None else _pair(relevance, image)
    ends = limits(signed, scale=scale, percentile=percentile, shared=shared)
    columns: dict[str, npt.NDArray[Any]] = {"relevance": signed}
    if picture is not None:
        overlays = _blend(signed, picture, ends, cmap, alpha)
        columns = {"image": picture, "relevance": signed, "overlay": overlays}
    if title is not None and not isinstance(title, str) and len(title) != len(signed):
        raise ValueError(f"{len(title)} titles for {len(signed)} samples; pass one string, or one per sample")

    height, width = signed.shape[1:]
    panel = 3.2 * float(np.clip(height / width, 0.2, 5))  # inches
    fig = new_figure(figsize=(3.2 * len(columns) + 1, panel * len(signed) + 0.5), layout="compressed")
    grid = fig.subplots(len(signed), len(columns), squeeze=False)
    for i, (axes, end) in enumerate(zip(grid, ends, strict=True)):
        for ax, (name, pictures) in zip(axes, columns.items(), strict=True):
            # Matplotlib applies map and limits to numbers only, not to RGB.
            ax.imshow(pictures[i], cmap=colour_map(cmap), vmin=-end, vmax=end)
            ax.set(xticks=[], yticks=[], title=name if i == 0 else "")
        colour_bar(fig, signed[i], end, cmap, ax=axes)
        if title is not None and not isinstance(title, str):
            axes[0].set_ylabel(title[i])
    if isinstance(title, str):
        fig.suptitle(title)
    return fig


def _like(relevance: Array, batch: RGB) -> RGB:
    """A batch came in, a batch goes out, even one of a single sample."""
    return batch if relevance.ndim == 4 else batch[0]


def _pair(relevance: Array, image: Array) -> tuple[Floats, Floats]:
    """Maps [B, h, w] and photos [B, H, W, 3] that belong together."""
    signed, picture = maps(relevance), photo(image)
    if len(signed) != len(picture):
        raise ValueError(f"{len(signed)} relevance maps but {len(picture)} images; pass one image per map")
    (h, w), (height, width) = signed.shape[1:], picture.shape[1:3]
    # A layer of stride s has about height / s by width / s cells, give or take one for its padding.
    fits = height * (w - 1) <= width * (h + 1) and width * (h - 1) <= height * (w + 1)
    if h > height or w > width or not fits:
        raise ValueError(
            f"relevance is {h} by {w} but the image {height} by {width}; pass the image as the model saw it, "
            "after resizing and cropping (or resize the relevance with torch.nn.functional.interpolate)"
        )
    return signed, picture


def _enlarged(signed: Floats, size: tuple[int, ...]) -> Floats:
    """Maps [B, h, w] as [B, *size], bilinearly between the centres of their cells.

    As ``torch.nn.functional.interpolate`` has it, but with the same last digit on every processor, on which the
    rounding of a colour depends.
    """
    for axis, length in enumerate(size, start=1):
        cells = signed.shape[axis]
        if cells != length:
            place = ((np.arange(length) + 0.5) * (cells / length) - 0.5).clip(0, cells - 1)
            before = place.astype(int)
            behind = np.minimum(before + 1, cells - 1)
            part = np.expand_dims(place - before, tuple(range(1, signed.ndim - axis)))
            signed = signed.take(before, axis) * (1 - part) + signed.take(behind, axis) * part
    return signed


def _blend(signed: Floats, picture: Floats, ends: Floats, cmap: ColourMap, alpha: float) -> RGB:
    """The photo in faded grey, tinted by the colours of its map."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}; the strength of the tint lies in [0, 1]")
    signed = _enlarged(signed, picture.shape[1:3])
    grey = brightness(picture)[..., None]
    zero = colours(np.zeros(1), 1.0, cmap) / 255
    faded = (1 - _FADE) * grey + _FADE * zero
    shade = np.stack([colours(m, end, cmap) for m, end in zip(signed, ends, strict=True)]) / 255
    # Each channel of the photo goes as far towards 0 or 1 as the colour went there from that of zero. On a white
    # centre this is a product; mixing with the colours instead would veil the photo where relevance is small.
    darker = np.divide(shade, zero, out=np.ones_like(shade), where=shade < zero)
    lighter = np.divide(1 - shade, 1 - zero, out=np.ones_like(shade), where=shade > zero)
    tinted = 1 - (1 - faded * darker) * lighter
    return np.rint(255 * ((1 - alpha) * faded + alpha * tinted)).astype(np.uint8)
