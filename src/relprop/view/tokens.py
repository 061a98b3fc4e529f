"""Relevance of text: every token on the colour of its relevance, as HTML or as a figure."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from relprop.view._extra import image_extra, new_figure
from relprop.view.arrays import RGB, Array, Floats, as_floats
from relprop.view.colour import ColourMap, Percentile, brightness, colour_bar, colours, limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A figure sets text on a grid of character cells, so that it needs no measuring of glyphs. Matplotlib rounds the width
# of a glyph to whole pixels; these cells are 8 pixels wide at 100 dpi and 12 at 150.
_COLUMNS = 96
_INCHES = 7.68  # of a line
_MARGIN = 0.16
_LEADING = 0.25  # inches from one line to the next
_ASPECT = 0.602  # width of a character of DejaVu Sans Mono, matplotlib's own, as a share of the font size


def tokens_html(
    tokens: Sequence[str],
    relevance: Array,
    *,
    title: str | None = None,
    cmap: ColourMap = "bwr",
    scale: float | None = None,
    percentile: Percentile = None,
) -> str:
    """Render tokens as an HTML fragment, coloured by relevance, each with its number as a tooltip.

    Args:
        tokens: T strings; HTML in them is escaped, line breaks and tabs are marked.
        relevance: [T], or [T, D] which is summed over D; of one text.
        title: a line above.
        cmap, scale, percentile: see `relprop.view.image`.

    Raises:
        TypeError, ValueError: values that are not finite real numbers, shapes that do not fit, a bad option.
        ImportError: the extra `relprop[image]` is not installed.
    """
    numbers = per_token(tokens, relevance)
    end = float(limits(numbers[None], scale=scale, percentile=percentile)[0])
    legend = np.array([-end, 0.0, end])
    text = _spans([_visible(token) for token in tokens], numbers, end, cmap)
    key = _spans([f" {x:+.3g} " if x else " 0 " for x in legend], legend, end, cmap)
    head = "" if title is None else f"<strong>{html.escape(title)}</strong>\n"
    return f'<div style="white-space: pre-wrap; line-height: 1.8">{head}{text}\n<small>{key}</small></div>'


def tokens_figure(
    tokens: Sequence[str],
    relevance: Array,
    *,
    title: str | None = None,
    cmap: ColourMap = "bwr",
    scale: float | None = None,
    percentile: Percentile = None,
) -> Figure:
    """Draw tokens as lines of coloured text above a colour bar; arguments and errors as `tokens_html`.

    Returns:
        a matplotlib Figure that belongs to no pyplot state; see `save` and `png`.
    """
    with image_extra():
        from matplotlib.patches import Rectangle

    numbers = per_token(tokens, relevance)
    end = float(limits(numbers[None], scale=scale, percentile=percentile)[0])
    texts = [_visible(token).replace("\n", "") for token in tokens]
    cells = _cells(texts, [token.endswith("\n") for token in tokens])
    columns = max(_COLUMNS, *(column + width for _, column, width in cells))
    lines = cells[-1][0] + 1

    width = _INCHES + 2 * _MARGIN
    height = 0.75 + _LEADING * lines + (0.1 if title is None else 0.45)  # inches: colour bar, text, title
    fig = new_figure(figsize=(width, height))
    ax = fig.add_axes((_MARGIN / width, 0.75 / height, _INCHES / width, _LEADING * lines / height))
    ax.set(xlim=(0, columns), ylim=(lines, 0))
    ax.set_axis_off()
    font = _INCHES * 72 / columns / _ASPECT  # points, so that a character fills its cell
    backgrounds = colours(numbers, end, cmap)
    for text, colour, (line, column, cells_wide) in zip(texts, backgrounds, cells, strict=True):
        ax.add_patch(Rectangle((column, line + 0.05), cells_wide, 0.9, facecolor=colour / 255))
        # A dollar sign in a token begins no formula.
        label = ax.text(column, line + 0.5, text, color=ink(colour), size=font, parse_math=False)
        label.set(family=["DejaVu Sans Mono", "monospace"], verticalalignment="center_baseline")
    bar = fig.add_axes((0.3, 0.45 / height, 0.4, 0.12 / height))
    colour_bar(fig, numbers, end, cmap, cax=bar, orientation="horizontal")
    if title is not None:
        fig.suptitle(title)
    return fig


def per_token(tokens: Sequence[str], relevance: Array) -> Floats:
    """[T] numbers of [T] or [T, D] relevance, one for each token."""
    array = as_floats(relevance, "relevance")
    if isinstance(tokens, str):
        raise TypeError("tokens is one string; pass a list with one string per token")
    if array.ndim not in (1, 2) or len(array) != len(tokens):
        raise ValueError(
            f"{len(tokens)} tokens for {len(array) if array.ndim else 0} positions; pass one string per position, and "
            f"relevance [T] or [T, D] of one text (relevance[0] of a batch), not of shape {list(array.shape)}"
        )
    return array if array.ndim == 1 else array.sum(axis=1)


def _visible(token: str) -> str:
    """Mark line breaks and tabs, which have no glyph to show their colour."""
    return token.replace("\n", "\u21b5\n").replace("\t", "\u21e5")


def _cells(texts: Sequence[str], last: Sequence[bool]) -> list[tuple[int, int, int]]:
    """Line, column and width of every text; one without room, or after the `last` of a line, starts the next line."""
    cells, line, column = [], 0, 0
    for text, ends in zip(texts, last, strict=True):
        width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
        if column and column + width > _COLUMNS:
            line, column = line + 1, 0
        cells.append((line, column, width))
        line, column = (line + 1, 0) if ends else (line, column + width)
    return cells


def ink(colour: RGB) -> str:
    """Black or white, whichever can be read on the colour."""
    return "black" if brightness(colour) > 127 else "white"


def _spans(texts: Sequence[str], numbers: Floats, end: float, cmap: ColourMap) -> str:
    return "".join(
        f'<span title="{number:+.6g}" style="background: rgb({colour[0]}, {colour[1]}, {colour[2]}); '
        f'color: {ink(colour)}">{html.escape(text)}</span>'
        for text, number, colour in zip(texts, numbers, colours(numbers, end, cmap), strict=True)
    )
