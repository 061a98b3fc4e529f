"""From sheets to one page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relprop.extra import extra
from relprop.view.page.sheet import Sheet

HERE = Path(__file__).parent


def page(
    sheets: Sequence[Sheet],
    title: str,
    versions: Sequence[tuple[str, str]] = (),
    record: str = "",
    seal: str = "",
) -> str:
    """A whole page in HTML.

    Args:
        sheets: one per sample.
        title: of the page.
        versions: name and version of what made it.
        record: for programs, what the page is about.
        seal: for programs, a place for the digest of the page.

    Raises:
        ImportError: the extra `relprop[report]` is not installed.
    """
    with extra("report", "a report needs jinja2"):
        from markupsafe import Markup
    inks = {colour: ink for sheet in sheets for text in sheet.texts for colour, ink in text.inks.items()}
    style = _file("report.css") + _file("parts.css") + shades(inks)
    script = _file("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _templates().get_template("report.html.jinja")
    # Both are files of this folder and colours in hexadecimal: nothing in them comes from a user.
    return template.render(
        sheets=sheets,
        title=title,
        versions=versions,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        record=record,
        seal=seal,
    )


def part(name: str, found: Sequence[Any]) -> str:
    """Maps, texts, checks or books of a sheet as they stand in a report, in HTML, for another page.

    Such a page has the style and the script of :func:`assets`, and the part in an element of class ``relprop``.

    Args:
        name: "maps", "texts", "checks" or "books".
        found: what a :class:`Sheet` has under that name.

    Raises:
        ImportError: the extra `relprop[report]` is not installed.
    """
    return str(getattr(_templates().get_template("parts.html.jinja").module, name)(found))


def assets() -> tuple[str, str]:
    """The style and the script of parts."""
    return _file("parts.css"), _file("report.js")


def shades(inks: dict[str, str]) -> str:
    """The style of coloured words: colour as six hexadecimal digits -> the colour that can be read on it."""
    return "".join(f".c{colour}{{background:#{colour};color:{ink}}}\n" for colour, ink in sorted(inks.items()))


def _templates() -> Any:
    with extra("report", "a report needs jinja2"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
