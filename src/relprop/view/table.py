"""Relevance of tables: a bar for each feature, the strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from relprop.view._extra import new_figure
from relprop.view.arrays import Array, as_floats, check_names, row_values
from relprop.view.colour import ColourMap, Percentile, colours, limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table(
    relevance: Array,
    values: Array | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    cmap: ColourMap = "bwr",
    scale: float | None = None,
    percentile: Percentile = None,
    largest: int = 20,
) -> Figure:
    """Draw the relevance of the features of one row as bars: red speaks for, blue against, the strongest on top.

    Args:
        relevance: [F], of one row.
        values: the row itself, [F], to stand beside the names.
        names: one per feature.
        title: over the figure.
        cmap, scale, percentile: see `relprop.view.image`; they set the ends of the axis.
        largest: so many features are drawn; the others are one bar, their sum.

    Returns:
        a matplotlib Figure that belongs to no pyplot state; see `save` and `png`.

    Raises:
        TypeError, ValueError: values that are not finite real numbers, shapes that do not fit, a bad option.
        ImportError: the extra `relprop[image]` is not installed.
    """
    numbers = as_floats(relevance, "relevance")
    if numbers.ndim != 1:
        raise ValueError(f"relevance has shape {list(numbers.shape)}; pass that of one row, [F]")
    row = row_values(values, numbers)
    check_names(names, len(numbers))
    if largest < 1:
        raise ValueError(f"largest={largest}; it is a number of features, at least 1")
    labels = [f"feature {i}" for i in range(len(numbers))] if names is None else list(names)
    if row is not None:
        labels = [f"{label} = {value:.4g}" for label, value in zip(labels, row, strict=True)]
    order = np.argsort(-np.abs(numbers), kind="stable")
    top, rest = order[:largest], order[largest:]
    bars, shown = numbers[top].tolist(), [labels[i] for i in top]
    if len(rest):
        bars, shown = [*bars, float(numbers[rest].sum())], [*shown, f"{len(rest)} others"]
    end = float(limits(np.array([bars]), scale=scale, percentile=percentile)[0])
    low, high = colours(np.array([-1.0, 1.0]), 1.0, cmap) / 255

    fig = new_figure(figsize=(8, 0.3 * len(bars) + 1.2), layout="constrained")
    ax = fig.subplots()
    drawn = ax.barh(range(len(bars)), bars, color=[high if bar > 0 else low for bar in bars])
    ax.bar_label(drawn, [f"{bar:+.3g}" for bar in bars], padding=3)
    ax.set_yticks(range(len(bars)), [label.replace("$", r"\$") for label in shown])
    ax.invert_yaxis()
    ax.axvline(0, color="grey", linewidth=0.5)
    ax.set(xlim=(-1.25 * end, 1.25 * end), xlabel="relevance")
    if title is not None:
        fig.suptitle(title)
    return fig
