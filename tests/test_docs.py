"""Every Python block in the documentation runs, page by page and from top to bottom; every link leads somewhere.

A block inside an HTML comment is not shown to readers, but runs like the others: a page's set-up may stand there.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from relprop import composites
from relprop.rules import TABLE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line number, code) of every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in BLOCK.finditer(text)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files go to a temporary folder; rules and composites that a page registers are gone after it."""
    monkeypatch.chdir(tmp_path)
    table, named, dtype = dict(TABLE), dict(composites.NAMED), torch.get_default_dtype()
    yield
    for registry, before in ((TABLE, table), (composites.NAMED, named)):
        registry.clear()
        registry.update(before)
    torch.set_default_dtype(dtype)


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_code_of_a_page_runs(page: Path) -> None:
    namespace = {"__name__": "__main__"}
    for line, code in blocks(page):
        source = "\n" * line + code  # so that a traceback shows the line of the page
        linecache.cache[str(page)] = (len(source), None, source.splitlines(keepends=True), str(page))
        exec(compile(source, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_composite_and_rule_is_documented() -> None:
    """A name that users may type stands on its page."""
    from relprop import rules

    page = (ROOT / "docs" / "composites.md").read_text(encoding="utf-8")
    assert [name for name in composites.NAMED if f"`{name}`" not in page] == []
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    internal = {"TABLE", "LinearRule", "Message", "Rule", "Shares", "SplitRule"}
    internal |= {"check_number", "rule_for", "stabilise"}
    assert [name for name in rules.__all__ if name not in internal and f"`{name}" not in page] == []
