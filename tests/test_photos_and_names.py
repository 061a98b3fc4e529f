"""Photos in every form that people have them in, colours that do not leave a map blank, and classes with names."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop import view

Image = pytest.importorskip("PIL.Image")

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 4)).eval()
NAMES = ["tabby, tabby cat", "tiger cat", "dog", "Dog"]


@pytest.fixture(scope="module")
def named() -> relprop.Explanation:
    return relprop.LRP(MODEL, classes=NAMES).explain(torch.rand(2, 3, 6, 8), "tiger cat")


def test_photos_of_every_form(named, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "cat.png")
    expected = np.moveaxis(photo / 255, -1, 0)
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    opaque = np.dstack([photo, np.full((6, 8), 255, np.uint8)])
    forms = [str(tmp_path / "cat.png"), tmp_path / "cat.png", Image.fromarray(photo), photo, photo / 255, opaque]
    forms += [tensor, tensor[None], tensor.float(), tensor / 255, tensor.double()[None] / 255]
    for form in forms:
        assert np.allclose(view.picture(form, (6, 8)), expected, atol=1e-6)
        drawn = named.figure(0, form).axes[0].images[0].get_array()
        assert np.allclose(drawn, photo / 255, atol=1e-6)


def test_other_sizes_are_resized():
    ramp = np.linspace(0, 1, 32)[None, None].repeat(24, 1)
    assert view.picture(ramp, (6, 8)).shape == (1, 24, 32)  # of the same proportions: it stays sharp
    for size in ((24, 60), (3, 4)):
        photo = np.linspace(0, 1, size[1])[None].repeat(size[0], 0)
        resized = view.picture(photo, (6, 8))
        assert resized.shape == (1, 6, 8)
        assert (np.diff(resized[0], axis=1) >= 0).all()
    # Of 100 by 60 with the map 6 by 8, the largest centred rectangle of 4:3 is 45 by 60; half of it 22 by 30.
    numbered = np.arange(100.0)[:, None].repeat(60, 1) / 100
    cut = view.picture(numbered, (6, 8), crop=0.5)
    assert cut.shape == (1, 22, 30)
    assert cut[0, 0, 0] == 0.39


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("no.png", FileNotFoundError, "image='no.png': there is no such file"),
        (3, TypeError, "image is a int; pass a path, a PIL image"),
        (torch.zeros(2, 3, 6, 8), ValueError, "image has shape [2, 3, 6, 8]; pass one photo"),
        (torch.zeros(5, 6, 8), ValueError, "image has shape [5, 6, 8]; pass one photo"),
        (torch.full((3, 6, 8), -2.0), ValueError, "image ranges from -2 to -2"),
        (torch.full((3, 6, 8), float("nan")), ValueError, "image[0, 0, 0] is nan"),
    ],
)
def test_bad_photos(named, image, error, message):
    with pytest.raises(error, match=re.escape(message)):
        named.figure(0, image)


def test_a_file_that_is_no_picture(named, tmp_path):
    (tmp_path / "cat.png").write_text("meow")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        named.save(tmp_path / "out.png", image=tmp_path / "cat.png")
    with pytest.raises(ValueError, match=r"crop=2; it is a share"):
        named.figure(0, torch.rand(3, 6, 8), crop=2)


def test_a_few_strong_pixels_do_not_blank_the_rest():
    """1000 pixels of one, and one of a hundred: the scale ends at the 99.5th percentile, and the bar says so."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1000, 1, bias=False)).double()
    with torch.no_grad():
        model[1].weight.fill_(1)
        model[1].weight[0, 0] = 100
    e = relprop.LRP(model).explain(torch.ones(1, 1, 20, 50, dtype=torch.float64), lambda y: y[:, 0])
    fig = e.figure()
    heat, bar = fig.axes[1].images[0], fig.axes[-1]
    assert heat.get_clim() == pytest.approx((-1, 1))
    assert bar.get_ylabel() == "0.1 % stronger"
    assert e.figure(percentile=None).axes[1].images[0].get_clim() == pytest.approx((-100, 100))
    with pytest.raises(ValueError, match="percentile='most'; it is a number in"):
        e.figure(percentile="most")


def test_colours_get_brighter_on_a_dark_photo(named):
    dark, light = torch.zeros(3, 6, 8), torch.ones(3, 6, 8)
    assert named.figure(0, dark).axes[1].images[0].get_cmap().name == "coldhot"
    assert named.figure(0, light).axes[1].images[0].get_cmap().name == "seismic"
    assert named.figure(0, dark, cmap="bwr").axes[1].images[0].get_cmap().name == "bwr"


def test_names_are_targets_and_titles(named):
    lrp = relprop.LRP(MODEL, classes=NAMES)
    x = named.inputs
    assert torch.equal(named.relevance, lrp.attribute(x, 1))
    assert torch.equal(lrp.attribute(x, "tabby"), lrp.attribute(x, 0))
    assert torch.equal(lrp.attribute(x, "TIGER CAT"), lrp.attribute(x, 1))
    assert torch.equal(lrp.attribute(x, "Dog"), lrp.attribute(x, 3))  # as it is written comes first
    both = lrp.using("epsilon").explain(x, relprop.targets.several(["dog", 1]))
    assert [part.name(0) for part in both.parts] == ["dog", "tiger cat"]
    assert named.figure().get_suptitle().startswith(f"tiger cat: {named.value[0].item():.4g}\n")
    assert repr(named).startswith("Explanation of tiger cat\n")
    best = NAMES[int(named.output[0].argmax())]
    assert f"prediction  {best} (" in repr(named)
    contrast = lrp.explain(x, relprop.targets.contrast(1, torch.tensor([2, 0])))
    assert [contrast.name(0), contrast.name(1)] == ["tiger cat - dog", "tiger cat - tabby, tabby cat"]
    predicted = lrp.explain(x)
    assert [predicted.name(i) for i in (0, 1)] == [NAMES[int(i)] for i in predicted.output.argmax(1)]
    # Names of something else than the output counts name nothing.
    assert relprop.LRP(MODEL, classes=["a", "b"]).explain(x, 1).name(0) == "target 1"


def test_names_of_a_configuration():
    model = nn.Linear(3, 2)
    model.config = SimpleNamespace(id2label={1: "POS", 0: "NEG"})
    assert relprop.LRP(model).explain(torch.rand(1, 3), "POS").target.tolist() == [1]
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert relprop.LRP(model).classes is None


@pytest.mark.parametrize(
    ("classes", "target", "error", "message"),
    [
        (None, "cat", relprop.TargetError, "the names are not known: LRP(model, classes=[...])"),
        (NAMES, "tigger cat", relprop.TargetError, "none of the 4 classes; did you mean 'tiger cat'"),
        (["a", "a"], "a", relprop.TargetError, "2 classes have that name, [0, 1]"),
        ("cat", 0, TypeError, "classes must be a list of strings"),
        ([1, 2], 0, TypeError, "classes must be a list of strings"),
        ({0: "a", 2: "b"}, 0, ValueError, "name every class from 0 to 1; got [0, 2]"),
        ([], 0, ValueError, "classes holds no name"),
    ],
)
def test_bad_names(classes, target, error, message):
    with pytest.raises(error, match=re.escape(message)):
        relprop.LRP(MODEL, classes=classes).attribute(torch.rand(1, 3, 6, 8), target)
