"""From sheets to one page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

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
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        message = f'a report needs jinja2 ({error}); run: pip install "relprop[report]"'
        raise ImportError(message, name=error.name) from error
    inks = {colour: ink for sheet in sheets for text in sheet.texts for colour, ink in text.inks.items()}
    shades = "".join(f".c{colour}{{background:#{colour};color:{ink}}}\n" for colour, ink in sorted(inks.items()))
    style = (HERE / "report.css").read_text(encoding="utf-8") + shades
    script = (HERE / "report.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("report.html.jinja")
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


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
