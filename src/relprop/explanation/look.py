"""The options of pictures, by name, so that a type checker finds one that is misspelt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from ..view.colour import ColourMap, Percentile


class WordLook(TypedDict, total=False):
    """What may be said of coloured words; the scale and the colours of every picture."""

    title: str | Sequence[str] | None
    """Over the picture."""
    cmap: ColourMap
    scale: float | None
    """Magnitude of the last colour."""
    percentile: Percentile
    """Which percentile of the magnitudes the last colour stands for, or "auto"."""


class Look(WordLook, total=False):
    """What may be said of any picture."""

    alpha: float
    """Strength of the tint of an overlay, in [0, 1]."""
    shared: bool
    """One scale for all maps of the figure."""
    crop: float | None
    """Which centred part of the photo the model saw, a share of its shorter side."""
    slices: int | Sequence[int] | None
    """Which slices of a volume."""
    names: Sequence[str] | None
    """One per feature."""
    values: Any
    """The series or the row itself, instead of the input."""
    kind: Literal["series", "table"] | None
    """What a row of numbers is."""
    largest: int
    """So many features of a row are drawn."""


class SavedLook(Look, total=False):
    """What may be said of a picture in a file."""

    tokens: Any
    """The words of a text, or its tokenizer."""
    wrt: str | int | None
    """Name or position of the input to draw."""
    which: int | None
    """Which of several targets."""
