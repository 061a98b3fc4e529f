"""What a person sees: every colour, scale and number that the views promise, read back from what they drew."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from relprop import view  # noqa: E402

WHITE, BLACK = [255, 255, 255], [0, 0, 0]


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# Heatmaps


@pytest.mark.parametrize(
    ("cmap", "negative", "zero", "positive"),
    [
        ("bwr", [0, 0, 255], WHITE, [255, 0, 0]),
        ("seismic", [0, 0, 76], WHITE, [127, 0, 0]),
        ("coldhot", [0, 255, 255], BLACK, [255, 255, 0]),
    ],
)
def test_ends_and_centre(cmap, negative, zero, positive):
    picture = view.heatmap(torch.tensor([[-2.0, 0.0, 2.0]]), cmap=cmap)
    assert picture.dtype == np.uint8
    assert np.abs(picture[0].astype(int) - [negative, zero, positive]).max() <= 1  # a map may round its ends
    assert picture[0, 1].tolist() == zero


@pytest.mark.parametrize("cmap", ["bwr", "seismic", "coldhot"])
def test_sign_is_red_or_blue(cmap):
    relevance = torch.linspace(-1, 1, 201)[None]
    red, _, blue = view.heatmap(relevance, cmap=cmap)[0].astype(int).T
    strong = relevance[0].abs() > 0.01
    assert (red > blue)[strong & (relevance[0] > 0)].all()
    assert (red < blue)[strong & (relevance[0] < 0)].all()


def test_scale_is_symmetric():
    relevance = torch.randn(8, 9)
    mirrored = view.heatmap(-relevance, cmap="bwr")
    assert np.array_equal(view.heatmap(relevance, cmap="bwr")[..., ::-1], mirrored)
    # ... even if one sign is much weaker: -1 of 4 is a quarter of the way to blue, not all of it
    assert view.heatmap(torch.tensor([[4.0, -1.0]]), cmap="bwr")[0, 1].tolist() == [191, 191, 255]


def test_channels_are_summed():
    relevance = torch.randint(-8, 9, (3, 4, 5)) / 8  # sums without rounding
    assert np.array_equal(view.heatmap(relevance), view.heatmap(relevance.sum(0)))
    assert (view.heatmap(torch.stack([torch.ones(2, 2), -torch.ones(2, 2)])) == 255).all()


def test_shape_follows_the_relevance():
    assert view.heatmap(torch.randn(4, 5)).shape == (4, 5, 3)
    assert view.heatmap(torch.randn(7, 4, 5)).shape == (4, 5, 3)
    assert view.heatmap(torch.randn(1, 7, 4, 5)).shape == (1, 4, 5, 3)
    assert view.heatmap(torch.randn(2, 7, 4, 5)).shape == (2, 4, 5, 3)


def test_all_zero_is_the_centre():
    assert (view.heatmap(torch.zeros(2, 3, 4, 4)) == 255).all()
    assert (view.heatmap(torch.zeros(2, 3, 4, 4), cmap="coldhot", shared=True, percentile=99) == 0).all()


@pytest.mark.parametrize("size", [5e-324, 1e-30, 1e300])
def test_colours_do_not_depend_on_the_unit(size):
    relevance = np.array([[-1.0, 0.0, 1.0]])
    assert np.array_equal(view.heatmap(relevance * size), view.heatmap(relevance))


def test_shared_scale():
    relevance = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 4.0)])
    own, shared = view.heatmap(relevance, cmap="bwr"), view.heatmap(relevance, cmap="bwr", shared=True)
    assert own[0, 0, 0].tolist() == own[1, 0, 0].tolist() == [255, 0, 0]
    assert shared[0, 0, 0].tolist() == [255, 191, 191]
    assert shared[1, 0, 0].tolist() == [255, 0, 0]


def test_given_scale_and_percentile():
    assert view.heatmap(torch.tensor([[1.0, 9.0]]), cmap="bwr", scale=4)[0].tolist() == [[255, 191, 191], [255, 0, 0]]
    spike = torch.zeros(100, 100)
    spike[0, :99] = 1.0
    spike[50, 50] = 1000.0
    assert view.heatmap(spike, cmap="bwr")[0, 0].tolist() == WHITE
    # zeros do not count: nearly all magnitudes that there are, are 1
    assert view.heatmap(spike, cmap="bwr", percentile=90)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_number_types(dtype):
    relevance = torch.tensor([[-2, 0, 1]])
    assert np.array_equal(view.heatmap(relevance.to(dtype)), view.heatmap(relevance.numpy()))


def test_the_input_is_left_alone():
    relevance = np.random.default_rng(0).normal(size=(3, 4, 4))
    before = relevance.copy()
    view.heatmap(relevance)
    view.stretch(relevance)
    assert np.array_equal(relevance, before)
    view.heatmap(torch.randn(3, 4, 4, requires_grad=True))


def test_matplotlib_maps_and_objects():
    relevance = torch.randn(3, 3)
    assert np.array_equal(
        view.heatmap(relevance, cmap=matplotlib.colormaps["bwr"]), view.heatmap(relevance, cmap="bwr")
    )
    assert view.heatmap(torch.zeros(1, 1), cmap="PiYG").shape == (1, 1, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_says_where(bad):
    relevance = torch.zeros(2, 3, 4, 5)
    relevance[1, 2, 3, 4] = bad
    with pytest.raises(ValueError, match=re.escape(f"relevance[1, 2, 3, 4] is {bad}, and 1 of its 120")):
        view.heatmap(relevance)


@pytest.mark.parametrize(
    ("relevance", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "relevance is a list; pass a torch.Tensor or a numpy array"),
        (torch.zeros(2, 2, dtype=torch.complex64), {}, TypeError, "dtype complex64; pass real numbers"),
        (np.array([["a"]]), {}, TypeError, "pass real numbers"),
        (torch.zeros(3, 0, 2), {}, ValueError, "shape [3, 0, 2] is empty"),
        (torch.zeros(7), {}, ValueError, "relevance has shape [7]; an image's is [H, W], [C, H, W] or"),
        (torch.zeros(1, 1, 3, 2, 2), {}, ValueError, "relevance has shape [1, 1, 3, 2, 2]"),
        (torch.zeros(2, 2), {"cmap": "seismc"}, ValueError, "cmap='seismc' is no colour map; take 'seismic'"),
        (torch.zeros(2, 2), {"scale": 0}, ValueError, "scale=0; it is the magnitude of the last colour"),
        (torch.zeros(2, 2), {"scale": float("nan")}, ValueError, "scale=nan"),
        (torch.zeros(2, 2), {"percentile": 0}, ValueError, "percentile=0; it lies in (0, 100]"),
        (torch.zeros(2, 2), {"percentile": 101}, ValueError, "percentile=101"),
        (torch.zeros(2, 2), {"scale": 1, "percentile": 99}, ValueError, "give one"),
    ],
)
def test_bad_heatmaps(relevance, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        view.heatmap(relevance, **options)


# Overlays


@pytest.mark.parametrize(("cmap", "zero"), [("bwr", 255), ("seismic", 255), ("coldhot", 0)])
def test_overlay_without_relevance_is_the_faded_photo(cmap, zero):
    image = torch.rand(3, 6, 7)
    grey = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    expected = (255 * grey + zero) / 2
    picture = view.overlay(torch.zeros(3, 6, 7), image, cmap=cmap)
    assert np.abs(picture - expected.numpy()[..., None]).max() <= 0.51


@pytest.mark.parametrize("cmap", ["bwr", "seismic", "coldhot"])
@pytest.mark.parametrize("brightness", [0.0, 0.5, 1.0])
def test_overlay_keeps_the_sign_on_any_photo(cmap, brightness):
    relevance = torch.tensor([[-1.0, -0.5, 0.0, 0.5, 1.0]])
    red, _, blue = view.overlay(relevance, torch.full((1, 1, 5), brightness), cmap=cmap)[0].astype(int).T
    difference = red - blue
    assert (difference[:2] < -20).all()
    assert difference[2] == 0
    assert (difference[3:] > 20).all()


def test_overlay_on_white_is_the_heatmap():
    relevance = torch.randn(5, 5)
    assert np.array_equal(view.overlay(relevance, torch.ones(3, 5, 5)), view.heatmap(relevance))
    black = view.overlay(relevance, torch.zeros(3, 5, 5), cmap="coldhot")
    assert np.array_equal(black, view.heatmap(relevance, cmap="coldhot"))


def test_alpha_is_the_strength():
    relevance, image = torch.randn(5, 5), torch.rand(3, 5, 5)
    untinted = view.overlay(torch.zeros(5, 5), image)
    full, half = view.overlay(relevance, image), view.overlay(relevance, image, alpha=0.5)
    assert np.array_equal(view.overlay(relevance, image, alpha=0), untinted)
    assert np.abs(half - (full.astype(float) + untinted) / 2).max() <= 1


def test_overlay_takes_bytes_and_grey_and_batches():
    relevance, image = torch.randn(2, 3, 4, 5), torch.randint(0, 256, (2, 1, 4, 5), dtype=torch.uint8)
    from_bytes = view.overlay(relevance, image)
    assert from_bytes.shape == (2, 4, 5, 3)
    assert np.array_equal(from_bytes, view.overlay(relevance, image.double() / 255))
    assert np.array_equal(from_bytes, view.overlay(relevance, image.expand(2, 3, 4, 5)))
    assert np.array_equal(from_bytes[1], view.overlay(relevance[1], image[1]))
    assert np.array_equal(from_bytes[1], view.overlay(relevance[1], image[1, 0].numpy()))


def orders(array):
    """The same array, along the memory in three orders."""
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -3, -1)), -1, -3)
    return [np.ascontiguousarray(array), np.asfortranarray(array), channels_last]


def test_the_picture_is_the_same_in_any_memory_order():
    """All grey levels: every second one lies halfway between two bytes, so that the last digit shows."""
    image = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (3, 16, 16))
    first, *others = [view.overlay(np.zeros((16, 16)), ordered) for ordered in (*orders(image), image[:1], image[0])]
    for other in others:
        assert np.array_equal(first, other)


@pytest.mark.parametrize("channels", [3, 64])
def test_channels_are_summed_in_any_memory_order(channels):
    relevance = np.random.default_rng(0).normal(size=(channels, 5, 6))
    first, *others = [view.figure(ordered).axes[0].images[0].get_array() for ordered in orders(relevance)]
    for other in others:
        assert np.array_equal(first, other)


@pytest.mark.parametrize(("small", "large"), [((7, 7), (224, 224)), ((9, 14), (300, 451)), ((1, 2), (4, 9))])
def test_a_smaller_map_is_enlarged_bilinearly(small, large):
    relevance = torch.randn(2, 1, *small, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(relevance, size=large, mode="bilinear")
    scale = relevance.abs().max().item()
    found = view.overlay(relevance, torch.ones(2, 3, *large), scale=scale).astype(int)
    assert np.abs(found - view.heatmap(expected, scale=scale)).max() <= 1  # by another order of sums


def test_a_smaller_map_is_enlarged_in_place():
    relevance = torch.zeros(1, 7, 7)
    relevance[0, 1, 5] = 3.0
    picture = view.overlay(relevance, torch.ones(3, 224, 224), cmap="bwr").astype(int)
    assert picture.shape == (224, 224, 3)
    red = picture[..., 0] - picture[..., 2]
    row, column = np.unravel_index(red.argmax(), red.shape)
    assert (row // 32, column // 32) == (1, 5)
    assert (picture[100:] == 255).all()


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (112, 112), (224, 224)])
def test_layers_of_a_square_image_fit(shape):
    view.overlay(torch.zeros(shape), torch.zeros(3, 224, 224))


def test_layers_of_any_image_fit():
    for stride in (2, 4, 8, 16, 32):
        view.overlay(torch.zeros(300 // stride, 451 // stride), torch.zeros(3, 300, 451))
        view.overlay(torch.zeros(-(-300 // stride), -(-451 // stride)), torch.zeros(3, 300, 451))


@pytest.mark.parametrize(
    ("relevance", "image", "options", "message"),
    [
        ((8, 8), torch.zeros(3, 4, 4), {}, "relevance is 8 by 8 but the image 4 by 4"),
        ((224, 224), torch.zeros(3, 300, 451), {}, "pass the image as the model saw it"),
        ((2, 3, 4, 4), torch.zeros(3, 4, 4), {}, "2 relevance maps but 1 images"),
        ((4, 4), torch.zeros(4, 4, 3), {}, "looks like channels-last"),
        ((4, 4), torch.zeros(2, 4, 4), {}, "image has shape [2, 4, 4]; pass [C, H, W]"),
        ((4, 4), torch.full((3, 4, 4), -2.0), {}, "image ranges from -2 to -2; pass floats in [0, 1] or uint8"),
        ((4, 4), torch.full((3, 4, 4), 255), {}, "view.stretch(image)"),
        ((4, 4), torch.full((3, 4, 4), float("nan")), {}, "image[0, 0, 0] is nan"),
        ((4, 4), torch.zeros(3, 4, 4), {"alpha": 1.5}, "alpha=1.5"),
    ],
)
def test_bad_overlays(relevance, image, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        view.overlay(torch.zeros(relevance), image, **options)


def test_stretch():
    image = torch.stack([torch.linspace(-2, 2, 12).view(3, 2, 2), torch.full((3, 2, 2), 7.0)])
    stretched = view.stretch(image)
    assert np.allclose(stretched[0].ravel(), np.linspace(0, 1, 12))
    assert (stretched[1] == 0.5).all()
    assert np.array_equal(view.stretch(image[0]), stretched[0])
    view.overlay(torch.zeros(2, 2, 2, 2), stretched)


# Figures


def bars(fig):
    return [ax for ax in fig.axes if ax.get_label() == "<colorbar>"]


def test_colour_bar_ends_at_the_true_largest_magnitude():
    relevance = torch.randn(2, 3, 8, 8)
    fig = view.figure(relevance, torch.rand(2, 3, 8, 8))
    largest = relevance.double().sum(1).abs().amax((1, 2)).tolist()
    assert len(bars(fig)) == 2
    for bar, most in zip(bars(fig), largest, strict=True):
        assert bar.get_ylim() == pytest.approx((-most, most))
        assert bar.get_yticks() == pytest.approx([-most, -most / 2, 0, most / 2, most])
        assert bar.get_yticklabels()[-1].get_text() == f"{most:.3g}"


def test_shared_colour_bars_are_equal():
    relevance = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert [bar.get_ylim()[1] for bar in bars(view.figure(relevance))] == [3, 15]
    assert [bar.get_ylim()[1] for bar in bars(view.figure(relevance, shared=True))] == [15, 15]


def test_figure_panels():
    relevance, image = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    fig = view.figure(relevance, image, title=["one", "two"])
    panels = [ax for ax in fig.axes if ax not in bars(fig)]
    assert [ax.get_title() for ax in panels] == ["image", "relevance", "overlay", "", "", ""]
    assert [ax.get_ylabel() for ax in panels] == ["one", "", "", "two", "", ""]
    drawn = [ax.images[0].get_array() for ax in panels]
    assert np.allclose(drawn[3], image[1].permute(1, 2, 0))
    assert np.allclose(drawn[4], relevance[1].sum(0), atol=1e-6)
    assert np.array_equal(drawn[5], view.overlay(relevance, image)[1])


def test_figure_without_image():
    fig = view.figure(torch.randn(3, 8, 8), title="only")
    assert [ax.get_title() for ax in fig.axes] == ["relevance", ""]
    assert fig.get_suptitle() == "only"


def test_clipped_colour_bars_have_arrows():
    relevance = torch.arange(100.0).view(10, 10)
    assert drawn_extend(view.figure(relevance)) == "neither"
    assert drawn_extend(view.figure(relevance, percentile=90)) == "both"
    assert drawn_extend(view.figure(relevance, scale=200)) == "neither"


def drawn_extend(fig):
    return bars(fig)[0]._colorbar.extend


def test_titles_must_match():
    with pytest.raises(ValueError, match="3 titles for 2 samples"):
        view.figure(torch.zeros(2, 1, 4, 4), title=["a", "b", "c"])


def test_no_state_in_pyplot():
    before = "matplotlib.pyplot" in sys.modules and matplotlib.pyplot.get_fignums()
    view.png(view.figure(torch.zeros(4, 4)))
    assert before == ("matplotlib.pyplot" in sys.modules and matplotlib.pyplot.get_fignums())


def test_a_photo():
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)
    relevance = image.double().mean(0) - image.double().mean()
    picture = decoded(view.png(view.figure(relevance, image, title="chelsea"), dpi=100)).astype(int)
    redder, bluer = picture[..., 0] - picture[..., 2] > 60, picture[..., 2] - picture[..., 0] > 60
    assert redder.mean() > 0.05
    assert bluer.mean() > 0.05
    assert (picture[:, :3] == 255).all()  # nothing cut off at the border


# Files


def test_png_keeps_every_pixel(tmp_path: Path):
    picture = view.heatmap(torch.randn(3, 17, 23))
    assert np.array_equal(decoded(view.png(picture)), picture)
    assert view.save(tmp_path / "a.png", picture) == [tmp_path / "a.png"]
    with Image.open(tmp_path / "a.png") as file:
        assert file.size == (23, 17)
        assert np.array_equal(np.asarray(file), picture)


def test_save_numbers_a_batch(tmp_path: Path):
    batch = view.heatmap(torch.randn(11, 1, 4, 4))
    paths = view.save(str(tmp_path / "cat.png"), batch)
    assert [path.name for path in paths] == [f"cat-{i:02}.png" for i in range(11)]
    assert np.array_equal(decoded(paths[7].read_bytes()), batch[7])
    assert view.save(tmp_path / "one.png", batch[:1]) == [tmp_path / "one.png"]


def test_save_figures(tmp_path: Path):
    fig = view.figure(torch.randn(4, 4))
    width, height = fig.get_size_inches()
    assert decoded(view.png(fig, dpi=50)).shape == (int(height * 50), int(width * 50), 3)
    view.save(tmp_path / "a.png", fig, dpi=80)
    view.save(tmp_path / "a.svg", fig)
    assert decoded((tmp_path / "a.png").read_bytes()).shape[:2] == (int(height * 80), int(width * 80))
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_bad_pictures(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'cat' has no suffix to name the format; try 'cat\.png'"):
        view.save("cat", view.heatmap(torch.zeros(2, 2)))
    with pytest.raises(ValueError, match=r"picture is float64 of shape \[2, 2\]; pass uint8 \[H, W, 3\]"):
        view.save(tmp_path / "cat.png", np.zeros((2, 2)))
    with pytest.raises(TypeError, match="picture is a Tensor; pass a matplotlib Figure"):
        view.png(torch.zeros(2, 2, 3))


# Series


def test_series_bars_are_the_relevance():
    relevance = torch.tensor([1.0, -3.0, 2.0, 0.0])
    fig = view.series(relevance, torch.tensor([5.0, 6.0, 7.0, 8.0]), title="beat")
    ax, twin = fig.axes
    positive, negative = (patch.get_data().values for patch in ax.patches)
    assert positive.tolist() == [1, 0, 2, 0]
    assert negative.tolist() == [0, -3, 0, 0]
    assert [patch.get_facecolor()[:3] for patch in ax.patches] == [(1, 0, 0), (0, 0, 1)]
    assert ax.get_ylim() == pytest.approx((-3.15, 3.15))
    assert twin.lines[0].get_ydata().tolist() == [5, 6, 7, 8]
    assert fig.get_suptitle() == "beat"


def test_series_features_share_the_scale():
    fig = view.series(torch.tensor([[1.0, 10.0], [2.0, -20.0]]), names=["x", "y"])
    assert [ax.get_ylabel() for ax in fig.axes] == ["x", "y"]
    assert {ax.get_ylim() for ax in fig.axes} == {(-21.0, 21.0)}


def test_series_of_many_features_is_a_matrix():
    relevance = torch.randn(30, 40)
    fig = view.series(relevance)
    matrix = fig.axes[0].images[0]
    assert np.allclose(matrix.get_array(), relevance.T)
    most = relevance.abs().max().item()
    assert matrix.get_clim() == pytest.approx((-most, most))
    assert bars(fig)[0].get_ylim() == pytest.approx((-most, most))
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()][::15] == ["0", "39"]


def test_long_series_are_quick_to_draw():
    fig = view.series(torch.randn(16_000))
    assert len(fig.axes[0].patches) == 2
    view.png(fig)


def test_bad_series():
    with pytest.raises(ValueError, match=r"shape \[1, 4, 2\]; pass one sequence"):
        view.series(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match=r"values have shape \[3\] but relevance \[4\]"):
        view.series(torch.zeros(4), torch.zeros(3))
    with pytest.raises(ValueError, match="1 names for 2 features"):
        view.series(torch.zeros(4, 2), names=["a"])
    with pytest.raises(ValueError, match=re.escape("relevance[2] is nan")):
        view.series(torch.tensor([0, 0, float("nan")]))


# Tokens


def test_tokens_are_escaped():
    page = view.tokens_html(["<script>", '"&'], torch.tensor([1.0, -1.0]), title="<b>")
    assert "<script>" not in page
    assert "<b>" not in page
    assert ">&lt;script&gt;</span>" in page
    assert ">&quot;&amp;</span>" in page
    assert "<strong>&lt;b&gt;</strong>" in page


def test_token_colours_numbers_and_order():
    page = view.tokens_html(["good", " bad", "\n", " dull"], torch.tensor([0.5, -1.0, 0.25, 0.0]))
    spans = re.findall(r'<span title="(.*?)" style="background: rgb\((.*?)\); color: (\w+)">(.*?)</span>', page, re.S)
    assert [span[3] for span in spans[:4]] == ["good", " bad", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n", " dull"]
    assert [float(span[0]) for span in spans[:4]] == [0.5, -1, 0.25, 0]
    assert [span[1] for span in spans[:4]] == ["255, 127, 127", "0, 0, 255", "255, 191, 191", "255, 255, 255"]
    assert [span[2] for span in spans[:4]] == ["black", "white", "black", "black"]
    assert [span[3].strip() for span in spans[4:]] == ["-1", "0", "+1"]  # the key


def test_tokens_sum_embeddings():
    relevance = torch.randint(-8, 9, (3, 8)) / 8  # sums without rounding
    assert view.tokens_html(["a", "b", "c"], relevance) == view.tokens_html(["a", "b", "c"], relevance.double().sum(1))


def test_tokens_figure():
    tokens = ["cost ", "$1 ", "or $2", "\n", "漢字", "x" * 95, "tail"]
    fig = view.tokens_figure(tokens, torch.linspace(-1, 1, 7), title="text")
    ax, bar = fig.axes
    boxes = [(*patch.get_xy(), patch.get_width()) for patch in ax.patches]
    # column, line and width: a break after the fourth, a wide script, and lines that are full
    assert [(x, int(y), width) for x, y, width in boxes] == [
        (0, 0, 5), (5, 0, 3), (8, 0, 5), (13, 0, 1), (0, 1, 4), (0, 2, 95), (0, 3, 4),
    ]  # fmt: skip
    assert ax.patches[0].get_facecolor()[:3] == (0, 0, 1)
    assert ax.patches[6].get_facecolor()[:3] == (1, 0, 0)
    assert [label.get_text() for label in ax.texts[:3]] == tokens[:3]
    assert bar.get_xlim() == (-1, 1)


def test_a_dollar_sign_is_no_formula():
    view.png(view.tokens_figure(["$\\undefined{$"], torch.ones(1)))  # as mathematics this would not parse


@pytest.mark.parametrize("dpi", [100, 150])
def test_text_fills_its_cells(dpi):
    fig = view.tokens_figure(["m" * 40, "m" * 40], torch.tensor([0.0, 1.0]))
    fig.set_dpi(dpi)
    ax = fig.axes[0]
    for patch, text in zip(ax.patches, ax.texts, strict=True):
        box, glyphs = patch.get_window_extent(), text.get_window_extent()
        assert glyphs.width == pytest.approx(box.width, rel=0.02)
        assert box.y0 < glyphs.y0 < glyphs.y1 < box.y1


def test_bad_tokens():
    with pytest.raises(ValueError, match=r"2 tokens for 1 positions; .* \[T, D\] of one text .* shape \[1, 2\]"):
        view.tokens_html(["a", "b"], torch.zeros(1, 2))
    with pytest.raises(TypeError, match="tokens is one string"):
        view.tokens_figure("ab", torch.zeros(2))
    with pytest.raises(ValueError, match=re.escape("relevance[1] is inf")):
        view.tokens_html(["a", "b"], torch.tensor([0, float("inf")]))


# The extra


def test_matplotlib_and_pillow_are_lazy():
    code = "import sys, relprop.view; assert not {'matplotlib', 'PIL'} & set(sys.modules), 'imported at once'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: view.heatmap(torch.zeros(2, 2)),
        lambda: view.figure(torch.zeros(2, 2)),
        lambda: view.series(torch.zeros(2)),
        lambda: view.tokens_html(["a"], torch.zeros(1)),
        lambda: view.tokens_figure(["a"], torch.zeros(1)),
        lambda: view.png(np.zeros((2, 2, 3), np.uint8)),
    ],
)
def test_a_missing_extra_is_named(draw, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "PIL")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=re.escape('pip install "relprop[image]"')):
        draw()
