"""Which picture suits which kind of data: images, volumes, series and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .. import view
from .drawn import Drawn, photo_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEATURES = 64
"""A row of no more numbers is a table, not a series."""
_SLICES = 6


def image_figure(drawn: Drawn, image: Any, options: dict[str, Any]) -> Figure:
    """An image, or a row for each target, on one scale."""
    relevance, titles = drawn.relevance, drawn.titles
    photo = photo_of(image, drawn.given, relevance.shape[-2:], options.pop("crop", None))
    if photo is not None:
        image = np.broadcast_to(photo, (len(relevance), *photo.shape))
    options.setdefault("title", titles if len(titles) > 1 else titles[0])
    _set_look(options, photo)
    return view.figure(relevance, image, **options)


def volume_figure(
    relevance: Tensor, given: Tensor, slices: int | Sequence[int] | None, options: dict[str, Any]
) -> Figure:
    """Slices of a volume or frames of a video, [C, D, H, W], one below the other on one scale.

    Args:
        relevance: of one target.
        given: the volume itself.
        slices: which along D; by default those with the most relevance.
        options: of :func:`relprop.view.figure`.
    """
    depth = relevance.shape[1]
    if slices is None:
        most = relevance.abs().sum((0, 2, 3)).topk(min(_SLICES, depth)).indices
        slices = sorted(most.tolist())
    chosen = [slices] if isinstance(slices, int) else list(slices)
    if not chosen or not all(isinstance(i, int) and -depth <= i < depth for i in chosen):
        raise ValueError(f"slices={slices}; they are numbers from 0 to {depth - 1}")
    photo = view.stretch(given)[:, chosen].swapaxes(0, 1) if given.shape[0] in (1, 3) else None
    _set_look(options, photo)
    title = options.pop("title")
    labels = [f"slice {i % depth} of {depth}" for i in chosen]
    fig = view.figure(relevance[:, chosen].transpose(0, 1), photo, title=labels, **options)
    fig.suptitle(title)
    return fig


def _set_look(options: dict[str, Any], photo: Any) -> None:
    """What looks right on most maps, where the caller has not chosen: one scale, which a few pixels do not set."""
    if photo is not None:
        options.setdefault("cmap", view.colours_over(photo))
    if options.get("scale") is None:
        options.setdefault("percentile", "auto")
    options.setdefault("shared", True)


def row_figure(drawn: Drawn, kind: str | None, options: dict[str, Any]) -> Figure:
    """A series [T, F] or [T], or the features of a table [F]."""
    only, given = drawn.relevance[0], drawn.given
    if kind not in (None, "series", "table"):
        raise ValueError(f"kind={kind!r}; a row of numbers is a 'series' or a 'table'")
    if kind == "table" or (kind is None and only.ndim == 1 and len(only) <= _FEATURES):
        return view.table(only, options.pop("values", given), **options)
    if drawn.channels_first:
        only, given = only.T, given.T
    return view.series(only, options.pop("values", given), **options)
