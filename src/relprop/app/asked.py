"""What the page asks and what it is told: plain data, which goes from one process to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SCALES: dict[str, float | Literal["auto"] | None] = {
    "outliers left out": "auto",
    "up to the strongest": None,
    "99 % of the pixels": 99.0,
    "95 % of the pixels": 95.0,
}
"""Where the colours of a map end -> ``percentile=``."""


@dataclass(frozen=True)
class About:
    """What can be asked of a model at all?"""

    model: str


@dataclass(frozen=True)
class Abilities:
    """The answer to it."""

    reads_text: bool
    composites: tuple[str, ...]
    """"auto" first."""


@dataclass(frozen=True)
class Picture:
    """A file of a picture."""

    name: str
    data: bytes


Given: TypeAlias = Picture | str
"""A picture, or a text."""


@dataclass(frozen=True)
class Explain:
    """What is a target of a sample put down to?"""

    model: str
    given: Given
    composite: str = "auto"
    target: int | str | None = None
    """A class by number or name; None is the predicted one."""
    scale: str = "outliers left out"
    """A key of SCALES."""


@dataclass(frozen=True)
class Guess:
    """A class that the model thinks of."""

    index: int
    name: str
    score: str
    share: str
    """Its probability."""
    explained: bool


@dataclass(frozen=True)
class Shown:
    """The answer to it: words, and parts of a page in HTML."""

    rules: str
    guesses: tuple[Guess, ...]
    photo: str
    """A data URL, or nothing."""
    maps: str
    texts: str
    checks: str
    books: str
    scale: str
    note: str


@dataclass(frozen=True)
class Report:
    """The whole of it in one file?"""

    asked: Explain


@dataclass(frozen=True)
class Failed:
    """It cannot be done."""

    sentence: str


Question: TypeAlias = About | Explain | Report
Answer: TypeAlias = Abilities | Shown | bytes | Failed
