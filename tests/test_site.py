"""The documentation site is built, warnings being errors, and asks the network for nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="THE SITE IS NOT TESTED: Sphinx is missing (pip install 'relprop[docs]')")
pytest.importorskip("myst_nb", reason="THE SITE IS NOT TESTED: myst-nb is missing (pip install 'relprop[docs]')")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", folder / "doctrees"]
    # Notebooks are executed by tests of their own.
    done = subprocess.run(
        [*command, "-D", "nb_execution_mode=off", ".", folder / "html"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_and_public_name_is_there(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / "docs" / f"{page.stem}.html").exists(), page
    import relprop

    told = (site / "docs" / "reference.html").read_text()
    for name in relprop.__all__:
        if name not in ("composites", "rules", "select", "targets"):
            assert re.search(rf'id="relprop\.([a-z_]+\.)*{name}"', told), name


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="stylesheet"[^>]+href="(https?:[^"]+)"', text)
        assert not loaded, (page, loaded)
    assert "<math" in (site / "docs" / "rules.html").read_text()
    assert (site / "searchindex.js").exists()  # the search needs no server
