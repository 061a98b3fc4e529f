"""Relevance of sequences of numbers: bars over time, red above zero and blue below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from relprop.view._extra import new_figure
from relprop.view.arrays import Array, Floats, as_floats, check_names, row_values
from relprop.view.colour import ColourMap, Percentile, colour_bar, colour_map, colours, limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More features than this are rows of one coloured matrix instead of panels.
_PANELS = 16


def series(
    relevance: Array,
    values: Array | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    cmap: ColourMap = "bwr",
    scale: float | None = None,
    percentile: Percentile = None,
) -> Figure:
    """Draw relevance over time: bars in a panel per feature, or a matrix if the features are more than 16.

    Every panel has the same scale, so that features can be compared.

    Args:
        relevance: [T], or [T, F] for F features; of one sample.
        values: the sequence itself, of the same shape, drawn as a line over the bars (not over a matrix).
        names: one per feature.
        title: over the figure.
        cmap, scale, percentile: see `relprop.view.image`.

    Returns:
        a matplotlib Figure that belongs to no pyplot state; see `save` and `png`.

    Raises:
        TypeError, ValueError: values that are not finite real numbers, shapes that do not fit, a bad option.
        ImportError: the extra `relprop[image]` is not installed.
    """
    bars = as_floats(relevance, "relevance")
    if bars.ndim not in (1, 2):
        raise ValueError(f"relevance has shape {list(bars.shape)}; pass one sequence, [T] or [T, F]")
    line = row_values(values, bars)
    bars = bars.reshape(len(bars), -1)
    line = None if line is None else line.reshape(bars.shape)
    check_names(names, bars.shape[1])
    if names is None:
        names = [str(i) for i in range(bars.shape[1])] if bars.shape[1] > 1 else ["relevance"]
    end = limits(bars[None], scale=scale, percentile=percentile)[0]

    if bars.shape[1] > _PANELS:
        fig = new_figure(figsize=(8, 4), layout="constrained")
        bottom = _matrix(fig, bars, names, end, cmap)
    else:
        fig = new_figure(figsize=(8, 1.2 * bars.shape[1] + 1), layout="constrained")
        bottom = _panels(fig, bars, line, names, end, cmap)
    bottom.set_xlabel("step")
    if title is not None:
        fig.suptitle(title)
    return fig


def _panels(fig: Figure, bars: Floats, line: Floats | None, names: Sequence[str], end: float, cmap: ColourMap) -> Axes:
    edges = np.arange(len(bars) + 1) - 0.5
    low, high = colours(np.array([-1.0, 1.0]), 1.0, cmap) / 255
    panels = fig.subplots(bars.shape[1], sharex=True, squeeze=False)[:, 0]
    for i, (ax, name) in enumerate(zip(panels, names, strict=True)):
        # `stairs` is one shape for each sign, where `bar` makes one per step: audio has tens of thousands of steps.
        ax.stairs(bars[:, i].clip(min=0), edges, fill=True, color=high)
        ax.stairs(bars[:, i].clip(max=0), edges, fill=True, color=low)
        ax.axhline(0, color="grey", linewidth=0.5)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(-1.05 * end, 1.05 * end), ylabel=name)
        if line is not None:
            twin = ax.twinx()
            twin.plot(line[:, i], color="black", linewidth=1)
            twin.set_ylabel("value")
    bottom: Axes = panels[-1]
    return bottom


def _matrix(fig: Figure, bars: Floats, names: Sequence[str], end: float, cmap: ColourMap) -> Axes:
    ax = fig.subplots()
    ax.imshow(bars.T, cmap=colour_map(cmap), vmin=-end, vmax=end, aspect="auto", interpolation="nearest")
    some = np.linspace(0, len(names) - 1, _PANELS).round().astype(int)  # labels of all would overlap
    ax.set_yticks(some, [names[i] for i in some])
    colour_bar(fig, bars, end, cmap, ax=ax)
    return ax
