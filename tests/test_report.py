"""A report: one file, no network, nothing of a user's runs in it, and it shows what was computed."""

import base64
import hashlib
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relprop

pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags with their attributes, and the text of styles and scripts."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.inside, self.inner = [], None, {}
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        self.inner.setdefault(self.inside, []).append(data)

    def handle_endtag(self, tag):
        self.inside = None

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def images():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 8, 7)).double()
    names = [EVIL, "cat", "dog", "cow", "hen", "pig", "fox"]
    return relprop.LRP(model, classes=names).explain(
        torch.rand(2, 3, 6, 8).double(), relprop.targets.several([0, "dog"])
    )


@pytest.fixture(scope="module")
def text():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.fc(self.embedding(ids).relu().mean(1))

    return relprop.LRP(Text()).explain(torch.tensor([[1, 2, 3]]), 1)


def test_nothing_comes_from_elsewhere_and_nothing_else_runs(images, tmp_path):
    page = Page(images.save(tmp_path / "a.html"))
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):  # the one of each that the policy lets through
        digest = base64.b64encode(hashlib.sha256("".join(page.inner[tag]).encode()).digest()).decode()
        assert len(page.all(tag)) == 1
        assert f"{tag}-src 'sha256-{digest}'" in policy
    urls = [v for _, attrs in page.tags for name, v in attrs.items() if name in ("src", "href", "action", "data")]
    assert urls
    assert all(url.startswith("data:image/") for url in urls)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    assert EVIL not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"


def test_values_and_pictures_are_the_relevance(images, tmp_path):
    page = Page(images.save(tmp_path / "a.html", sample=1))
    maps = page.all("relprop-map")
    assert len(maps) == 2
    expected = images.relevance[:, 1].sum(1).numpy()
    end = np.abs(expected).max()
    pictures = [image for image in page.all("img") if "Relevance map" in image["alt"]]
    for i, one in enumerate(maps):
        shape = tuple(map(int, one["data-shape"].split(",")))
        found = np.frombuffer(base64.b64decode(one["data-values"]), "<i2").reshape(shape) * float(one["data-unit"])
        assert np.abs(found - expected[i]).max() <= 3.1e-5 * np.abs(expected[i]).max()
        data = pictures[2 * i]["src"].partition(",")[2]
        heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
        strong = np.abs(expected[i]) > 0.05 * end  # both maps are on one scale
        assert ((heat[..., 0] > heat[..., 2]) == (expected[i] > 0))[strong].all()
    assert f"dog: {images.value[1, 1].item():.4g}" in page.text
    assert "(explained)" in page.text
    assert "sample" in page.text
    assert str(images.plan).splitlines()[0] in page.text.replace("&#39;", "'")


def test_large_maps_are_read_in_squares_and_the_file_is_small(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 2, 3, stride=8), nn.Flatten(), nn.LazyLinear(3))
    model(torch.rand(1, 3, 300, 451))
    e = relprop.LRP(model).explain(torch.rand(1, 3, 300, 451), 1)
    page = Page(e.save(tmp_path / "a.html"))
    (one,) = page.all("relprop-map")
    found = np.frombuffer(base64.b64decode(one["data-values"]), "<i2") * float(one["data-unit"])
    assert one["data-shape"] == "150,226"
    assert found.sum() == pytest.approx(e.relevance.sum().item(), abs=1e-3 * e.relevance.abs().sum().item())
    assert "sums over 2 × 2 pixels" in page.text
    assert (tmp_path / "a.html").stat().st_size < 1_000_000


def test_text_is_coloured_by_classes(text, tmp_path):
    path = relprop.report([text, text], tmp_path / "a.html", tokens=["a ", EVIL, "c"], title="two texts")
    page = Page(path)
    spans = [a for a in page.all("span") if a["class"].startswith("c") and "title" in a]
    assert [float(a["title"]) for a in spans[:3]] == pytest.approx(text.relevance[0].tolist(), rel=1e-3)
    assert all(f".{a['class']}{{background" in page.text for a in spans)
    assert EVIL not in page.text
    assert "<h1>two texts</h1>" in page.text
    assert page.text.count("<h2>") == 2


def test_what_is_to_be_looked_at_is_said(tmp_path):
    """All relevance is the bias's: 0 % reached the input, and the value is negative."""
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([-2.0, 1.0]))
    page = relprop.LRP(model).explain(torch.rand(1, 4), 0).save(tmp_path / "a.html").read_text()
    assert "the map explains less than 5 % of the value" in page
    assert "the explained value is below zero" in page
    assert "another class was explained" in page


def test_series_and_what_has_no_picture(tmp_path):
    series = relprop.LRP(nn.Linear(6, 2)).explain(torch.rand(2, 6))
    assert relprop.report(series, tmp_path / "a.html").read_text().count("<h2>") == 2
    many = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    page = relprop.LRP(many).explain(torch.rand(1, 1, 2, 2, 2, 2)).save(tmp_path / "b.html").read_text()
    assert "No picture: no picture for relevance of shape [1, 2, 2, 2, 2]" in page


def test_a_report_of_a_file(images, tmp_path):
    again = relprop.load(images.save(tmp_path / "a.npz"))
    first, second = images.save(tmp_path / "a.html").read_text(), again.save(tmp_path / "b.html").read_text()
    assert first == second


def test_bad_reports(images, text, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"path must end in \.html, got 'a\.txt'"):
        relprop.report(images, "a.txt")
    with pytest.raises(TypeError, match=r"report takes explanations, as lrp\.explain returns them, got Tensor"):
        relprop.report([images.relevance], "a.html")
    with pytest.raises(ValueError, match="a report is of 1 to 32 samples, not of 0"):
        relprop.report([], "a.html")
    with pytest.raises(ValueError, match="a report is of 1 to 32 samples, not of 40"):
        relprop.report([images] * 20, "a.html")
    with pytest.raises(ValueError, match="sample=2; there are 2 samples"):
        images.save(tmp_path / "a.html", sample=2)
    with pytest.raises(ValueError, match="2 tokens for 3 positions"):
        text.save(tmp_path / "a.html", tokens=["a", "b"])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=re.escape('pip install "relprop[report]"')):
        images.save(tmp_path / "a.html")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda e, path: e.save(path / "x.html", foo=1), "leave out foo"),
        (lambda e, path: e.save(3), "path must be that of a file"),
        (lambda e, path: relprop.load(3), "path must be that of a file"),
        (lambda e, path: relprop.report([e], 3), "path must be that of a file"),
        (lambda e, path: relprop.report(3, path / "x.html"), "takes explanations.*got int"),
    ],
)
def test_what_is_of_another_type_is_told(what: Any, message: str, tmp_path: Path) -> None:
    explanation = relprop.LRP(nn.Linear(3, 2)).explain(torch.rand(1, 3), 0)
    with pytest.raises(TypeError, match=message):
        what(explanation, tmp_path)
