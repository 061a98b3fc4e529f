"""An explanation draws itself: images, series and text, one target or several."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import view
from relprop.explanation.facts import percent

from .models import assert_same


class Images(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Steps(nn.Module):
    """[B, T, F] or, if channels come first, [B, F, T]."""

    def __init__(self, channels_first):
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3) if channels_first else nn.Linear(2, 4)
        self.fc, self.dims = nn.Linear(4, 3), 2 if channels_first else 1

    def forward(self, x):
        return self.fc(self.first(x).relu().mean(self.dims))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.fc(self.embedding(ids).relu().mean(1))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, left, right):
        return self.fc(left) - self.fc(right).relu()


@pytest.fixture(scope="module")
def image():
    return relprop.LRP(Images().eval()).explain(torch.randn(2, 3, 8, 8), 3)


@pytest.fixture(scope="module")
def two_targets():
    return relprop.LRP(Images().eval()).explain(torch.randn(2, 3, 8, 8), [3, torch.tensor([0, 1])])


@pytest.fixture(scope="module")
def text():
    return relprop.LRP(Text().eval()).explain(torch.tensor([[1, 2, 3], [4, 5, 6]]))


def panels(fig):
    return [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]


def test_image(image):
    fig = image.figure(1)
    photo, heat, overlay = (ax.images[0].get_array() for ax in panels(fig))
    assert np.allclose(photo, np.moveaxis(view.stretch(image.inputs[1]), 0, -1))
    assert np.allclose(heat, image.relevance[1].sum(0), atol=1e-6)
    assert np.array_equal(overlay, view.overlay(image.relevance[1], view.stretch(image.inputs[1])))
    share = image.ledger.received[1] / image.ledger.seed[1]
    title, reached = fig.get_suptitle().split("\n")
    assert title == f"target 3: {image.value[1].item():.4g}"
    assert reached == f"{percent(share.item())} of it reached the input"


def test_image_of_the_caller_and_options(image):
    photo = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    for given in (photo, photo.numpy(), photo.float() / 255):
        fig = image.figure(0, given, title="cat", percentile=50, cmap="coldhot")
        assert np.allclose(panels(fig)[0].images[0].get_array(), photo.permute(1, 2, 0) / 255, atol=1e-6)
        assert fig.get_suptitle() == "cat"
    expected = view.figure(image.relevance[0], percentile=50, cmap="coldhot")
    assert panels(fig)[1].images[0].get_clim() == panels(expected)[0].images[0].get_clim()
    assert panels(fig)[1].images[0].get_cmap() == panels(expected)[0].images[0].get_cmap()


def test_grey_photo_of_two_dimensions(image):
    assert len(panels(image.figure(0, torch.rand(8, 8)))) == 3


def test_an_input_of_many_channels_is_no_photo():
    explanation = relprop.LRP(Images(6).eval()).explain(torch.randn(1, 6, 8, 8), 0)
    assert [ax.get_title() for ax in panels(explanation.figure())] == ["relevance"]


def test_several_targets_are_rows_on_one_scale(two_targets):
    fig = two_targets.figure(1)
    rows = panels(fig)
    assert len(rows) == 6
    assert [ax.get_ylabel().split("\n")[0] for ax in rows[::3]] == [
        f"target 3: {two_targets.value[0, 1].item():.4g}",
        f"target 1: {two_targets.value[1, 1].item():.4g}",
    ]
    assert rows[1].images[0].get_clim() == rows[4].images[0].get_clim()
    assert np.allclose(rows[4].images[0].get_array(), two_targets.relevance[1, 1].sum(0), atol=1e-6)
    one = two_targets.figure(1, which=1)
    assert len(panels(one)) == 3
    assert one.get_suptitle().startswith("target 1: ")


@pytest.mark.parametrize("channels_first", [False, True])
def test_series_have_a_panel_per_feature(channels_first):
    x = torch.randn(2, 2, 7) if channels_first else torch.randn(2, 7, 2)
    explanation = relprop.LRP(Steps(channels_first).eval()).explain(x, 1)
    fig = explanation.figure(1)
    bars = [ax for ax in fig.axes if ax.patches]
    assert len(bars) == 2
    expected = explanation.relevance[1] if channels_first else explanation.relevance[1].T
    for ax, relevance in zip(bars, expected, strict=True):
        drawn = sum(patch.get_data().values for patch in ax.patches)
        assert np.allclose(drawn, relevance, atol=1e-6)
    assert fig.get_suptitle().startswith("target 1: ")
    explanation.figure(names=["x", "y"], title="two", percentile=90)


def test_a_vector_is_a_series():
    explanation = relprop.LRP(nn.Linear(6, 2)).explain(torch.randn(2, 6))
    assert len(explanation.figure(kind="series").axes[0].patches) == 2


def test_text(text):
    words = ["a ", "<b> ", "c"]
    fig = text.figure(1, tokens=words)
    assert [label.get_text() for label in fig.axes[0].texts] == words
    page = text.html(words, 1, percentile=90)
    assert "&lt;b&gt;" in page
    assert f"target {text.target[1].item()}: {text.value[1].item():.4g}" in page
    assert "4 " in text.html(sample=1)  # the number of the token


def test_text_of_embeddings():
    class Embedded(nn.Module):
        def forward(self, x):
            return x.relu().sum(2)

    explanation = relprop.LRP(Embedded()).explain(torch.rand(1, 3, 4))
    page = view.tokens_html(["a", "b", "c"], explanation.relevance[0])
    assert explanation.html(["a", "b", "c"], title=None) == page
    explanation.figure(tokens=["a", "b", "c"])


def test_text_of_several_targets():
    explanation = relprop.LRP(Text().eval()).explain(torch.tensor([[1, 2, 3]]), [0, 1])
    page = explanation.html(["a", "b", "c"])
    assert page.count("<strong>") == 2
    with pytest.raises(ValueError, match="there are 2 targets: choose one with which=0 to 1"):
        explanation.figure(tokens=["a", "b", "c"])
    assert explanation.figure(tokens=["a", "b", "c"], which=1).get_suptitle().startswith("target 1: ")


def test_several_inputs_are_chosen_by_name():
    x = {"left": torch.randn(2, 4), "right": torch.randn(2, 4)}
    explanation = relprop.LRP(Pair()).explain(x, 0)
    with pytest.raises(ValueError, match=r"choose one with wrt=, of 0 \('left'\), 1 \('right'\)"):
        explanation.figure()
    for wrt, name in ((1, "right"), ("left", "left")):
        bars = explanation.figure(wrt=wrt, kind="series").axes[0].patches
        assert np.allclose(sum(bar.get_data().values for bar in bars), explanation.relevance[name][0], atol=1e-6)
    with pytest.raises(ValueError, match="wrt='up' has no relevance; there are 0"):
        explanation.figure(wrt="up")
    assert explanation._repr_png_() is None  # the notebook shows the ledger


def test_save(image, text, two_targets, tmp_path):
    assert image.save(tmp_path / "cat.png", sample=1) == tmp_path / "cat.png"
    assert (tmp_path / "cat.png").read_bytes().startswith(b"\x89PNG")
    small = image.save(str(tmp_path / "small.png"), dpi=30, percentile=99)
    assert small.stat().st_size < (tmp_path / "cat.png").stat().st_size
    text.save(tmp_path / "text.svg", tokens=["a", "b", "c"])
    two_targets.save(tmp_path / "two.png", which=0)


def test_notebook(image, text, two_targets):
    assert image._repr_png_().startswith(b"\x89PNG")
    assert two_targets._repr_png_().startswith(b"\x89PNG")
    assert '<img alt="relevance: target 3: ' in image._repr_html_()
    assert "ledger of 2 samples" in image._repr_html_()
    assert "<span" in text._repr_html_()
    assert text._repr_png_() is None


def test_a_notebook_without_the_extra_shows_the_ledger(image, text, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "PIL")]:
        monkeypatch.setitem(sys.modules, module, None)
    assert image._repr_png_() is None
    assert text._repr_html_() is None
    assert "ledger of 2 samples" in repr(image)
    with pytest.raises(ImportError, match="relprop\\[image\\]"):
        image.figure()


def test_repr_names_every_target(image, two_targets):
    assert repr(image).startswith("Explanation of target [3, 3]\n")
    assert "ledger of 2 samples" in repr(image)
    assert repr(two_targets).count("ledger of 2 samples") == 2
    assert "Explanation of target [0, 1]" in repr(two_targets)


def test_what_cannot_be_drawn(image, text, two_targets):
    with pytest.raises(ValueError, match="sample=2; there are 2 samples"):
        image.figure(2)
    with pytest.raises(ValueError, match="which=0 is for several targets"):
        image.figure(which=0)
    with pytest.raises(ValueError, match="which=2; there are 2 targets"):
        two_targets.figure(which=2)
    with pytest.raises(ValueError, match="has no suffix"):
        image.save("cat")
    with pytest.raises(ValueError, match="image= is for images"):
        text.figure(0, torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"a text is \[T\]"):
        image.html()
    with pytest.raises(ValueError, match="2 tokens for 3 positions"):
        text.figure(tokens=["a", "b"])
    series = relprop.LRP(nn.Linear(6, 2)).explain(torch.randn(2, 6))
    with pytest.raises(ValueError, match="pass tokens="):
        series.html()
    many = relprop.LRP(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))).explain(torch.randn(1, 1, 2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"no picture for relevance of shape \[1, 2, 2, 2, 2\]"):
        many.figure()
    assert many._repr_png_() is None


class SharedInput(nn.Module):
    """An input for each sample, and some that all samples have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(4, 3)

    def forward(self, x: Tensor, common: Tensor, places: Tensor) -> Tensor:
        return (x * 2 + common.reshape(-1, 3).sum(0) + self.places(places).sum(0)).sum(1, keepdim=True)


@pytest.mark.parametrize("size", [3, 6])  # the latter could be a multiple of the number of samples
def test_input_that_all_samples_share_is_named_in_the_ledger(size: int) -> None:
    """Its relevance is right, and the books say that they balance for all samples together."""
    model, x = SharedInput().double(), torch.rand(2, 3, dtype=torch.float64)
    common, places = torch.rand(size, dtype=torch.float64), torch.tensor([1, 2, 3, 1])
    explanation = relprop.LRP(model).explain((x, common, places), 0)
    ledger = explanation.ledger
    assert_same(explanation.relevance[0], 2 * x)
    assert_same(explanation.relevance[1], 2 * common)
    assert_same(explanation.relevance[2], 2 * model.places(places).sum(1).detach())
    assert ledger.shared == {"common", "places"}
    assert_same(ledger.inputs["common"], common.sum().expand(2))
    assert_same(ledger.received.sum() + ledger.absorbed.sum(), ledger.seed.sum())
    assert "received by common (shared by all samples)" in str(ledger)
    assert "received by x  " in str(ledger)
    alone = relprop.LRP(model).explain((x[:1], common, places), 0).ledger
    assert not alone.shared
