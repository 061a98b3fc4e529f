"""An evaluation as one page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import view
from ..extra import extra

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Evaluation</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
pre { overflow-x: auto; white-space: pre-wrap } img { max-width: 100% } td { padding-right: 2em }</style>
<h1>Evaluation</h1>
<pre>{{ table }}</pre>
<img alt="Curves of the output, most and least relevant first" src="data:image/png;base64,{{ picture }}">
<table>{% for name, value in settings.items() %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</table>
</html>
"""


def write_page(path: Path, table: str, figure: Any, settings: Mapping[str, str]) -> Path:
    """Write the table, the figure and what the numbers depend on as one page."""
    with extra("report", "a page needs jinja2"):
        from jinja2 import Environment
    template = Environment(autoescape=True).from_string(_PAGE)
    picture = base64.b64encode(view.png(figure)).decode()
    path.write_text(template.render(table=table, picture=picture, settings=settings), encoding="utf-8")
    return path
