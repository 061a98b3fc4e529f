"""What a report shows of one sample: words, numbers, and pictures as bytes within the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relprop.view._extra import image_extra
from relprop.view.arrays import RGB, Array, Floats, as_floats, maps
from relprop.view.colour import ColourMap, Percentile, colours, limits
from relprop.view.image import overlay
from relprop.view.photo import colours_over
from relprop.view.tokens import ink, per_token

_VALUES = 60_000
"""So many values can be read in a map; of a larger one each is the sum over a square of pixels."""


@dataclass(frozen=True)
class Guess:
    """A class that the model thinks of."""

    index: int
    name: str
    score: str
    probability: float | None
    explained: bool


@dataclass(frozen=True)
class Account:
    """A line of the ledger, as a bar from where the line before ended."""

    name: str
    amount: str
    share: str
    left: float
    width: float
    positive: bool


@dataclass(frozen=True)
class Check:
    """Something that a reader should have looked at."""

    name: str
    value: str
    meaning: str
    fine: bool


@dataclass(frozen=True)
class Map:
    """One target: pictures of its relevance, and the values that pointing at them reads."""

    title: str
    alt: str
    pictures: Sequence[tuple[str, str]]
    """(caption, data URL)."""
    values: str = ""
    """int16, little-endian, row by row, in base64; times `unit` they are relevance."""
    unit: float = 0.0
    shape: str = ""
    note: str = ""


@dataclass(frozen=True)
class Text:
    """One target of a text: words, each with its relevance and a colour."""

    title: str
    words: Sequence[tuple[str, str, str]]
    """(word, relevance, colour as six hexadecimal digits)."""
    inks: dict[str, str]
    """Colour -> black or white, whichever can be read on it."""


@dataclass
class Sheet:
    """One sample."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    photo: str = ""
    guesses: Sequence[Guess] = ()
    maps: Sequence[Map] = ()
    texts: Sequence[Text] = ()
    scale: str = ""
    books: Sequence[tuple[str, Sequence[Account], str]] = ()
    """(target, lines, the whole ledger as text)."""
    checks: Sequence[tuple[str, Sequence[Check]]] = ()
    plan: str = ""
    recipe: str = ""
    note: str = ""


def image_maps(
    relevance: Array,
    photo: Array | None,
    titles: Sequence[str],
    cmap: ColourMap | None = None,
    percentile: Percentile = "auto",
) -> tuple[list[Map], str, str]:
    """Maps of one image on one scale, the photo as a data URL, and words about the scale.

    Args:
        relevance: [targets, C, H, W].
        photo: [C, H, W] in [0, 1], or None.
        titles: one for each target.
        cmap: by default one with a white centre, or on a dark photo with a black one.
        percentile: of the magnitudes, where the colours end; see `relprop.view.image`.
    """
    signed = maps(relevance)
    end = float(limits(signed, scale=None, percentile=percentile, shared=True)[0])
    chosen: ColourMap = cmap or colours_over(None if photo is None else as_floats(photo, "photo"))
    found = []
    for one, title in zip(signed, titles, strict=True):
        pictures = [("relevance", _palette(one, end, chosen))]
        if photo is not None:
            pictures.append(("overlay", _jpeg(overlay(one, photo, cmap=chosen, scale=end))))
        values, unit, shape, square = _quantised(one)
        note = f"values are sums over {square} × {square} pixels" if square > 1 else ""
        row, column = np.unravel_index(np.abs(one).argmax(), one.shape)
        alt = f"Relevance map, {title}. Strongest at column {column}, row {row}: {one[row, column]:.4g}."
        found.append(Map(title, alt, pictures, values, unit, shape, note))
    beyond = float(np.mean(np.abs(signed) > end))
    words = f"Red speaks for, blue against; the colours of all maps end at ±{end:.4g}"
    words += f", and {100 * beyond:.2g} % of the pixels are stronger." if beyond else "."
    if photo is None:
        return found, "", words
    pixels = np.rint(255 * np.moveaxis(as_floats(photo, "photo"), 0, -1)).astype(np.uint8)
    return found, _jpeg(pixels), words


def picture_map(png: bytes, title: str) -> Map:
    """A picture that is ready, without values."""
    return Map(title, f"Relevance, {title}", [("", _url(png, "png"))])


def text_map(words: Sequence[str], relevance: Array, title: str, cmap: ColourMap = "bwr") -> Text:
    """Words on the colours of their relevance, [T] or [T, D]."""
    numbers = per_token(words, relevance)
    end = float(limits(numbers[None], scale=None, percentile=None)[0])
    shades = colours(numbers, end, cmap)
    hexes = [bytes(shade).hex() for shade in shades]
    inks = {h: ink(shade) for h, shade in zip(hexes, shades, strict=True)}
    return Text(title, [(w, f"{x:+.4g}", h) for w, x, h in zip(words, numbers, hexes, strict=True)], inks)


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _palette(signed: Floats, end: float, cmap: ColourMap) -> str:
    """A heatmap as PNG of 255 colours, a third of the size of one with three bytes a pixel; zero has one of its own."""
    with image_extra():
        from PIL import Image
    indices = np.rint(127 * np.clip(signed / end, -1, 1)).astype(int) + 127
    picture = Image.fromarray(indices.astype(np.uint8))
    shades = colours(np.linspace(-1, 1, 255), 1.0, cmap)
    picture.putpalette(shades.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return _url(buffer.getvalue(), "png")


def _jpeg(picture: RGB) -> str:
    with image_extra():
        from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(picture if picture.shape[-1] == 3 else picture.repeat(3, -1)).save(buffer, "jpeg", quality=90)
    return _url(buffer.getvalue(), "jpeg")


def _quantised(signed: Floats) -> tuple[str, float, str, int]:
    """Values as int16 with a unit, the shape, and the side of the square that each is the sum of."""
    square = int(np.ceil(np.sqrt(signed.size / _VALUES)))
    if square > 1:
        h, w = (-(-n // square) for n in signed.shape)
        padded = np.zeros((h * square, w * square))
        padded[: signed.shape[0], : signed.shape[1]] = signed
        signed = padded.reshape(h, square, w, square).sum(axis=(1, 3))
    unit = float(np.abs(signed).max()) / 32767 or 1.0
    data = np.rint(signed / unit).astype("<i2").tobytes()
    return base64.b64encode(data).decode(), unit, f"{signed.shape[0]},{signed.shape[1]}", square


def accounts(lines: Sequence[tuple[str, float]], seed: float, share: Any) -> list[Account]:
    """Lines of a ledger as bars, one after the other, from zero to the seed."""
    ends = np.cumsum([0.0, *(amount for _, amount in lines)])
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    span = (high - low) or 1.0
    return [
        Account(
            name,
            f"{amount:.4g}",
            share(amount / seed) if seed else "",
            100 * (min(start, start + amount) - low) / span,
            max(0.3, 100 * abs(amount) / span),
            amount >= 0,
        )
        for (name, amount), start in zip(lines, ends[:-1].tolist(), strict=True)
    ]
