"""Faithfulness by flipping: definitions written out here, evidence that was planted, and runs that are stopped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import relprop
from relprop.evaluation import localisation, sanity
from relprop.evaluation.flipping import area_between, counts_of, flipped, order_of
from relprop.evaluation.statistics import holm, interval, p_value, resampled
from relprop.evaluation.units import labels_of, sums


class Linear(nn.Module):
    """Images whose every pixel counts by its weight, of which a patch has all the large ones."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = 0.01 * torch.randn(2, 3, 16, 16, generator=generator, dtype=torch.float64)
        weight[:, :, 4:8, 8:12] += torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None, None]
        self.layer = nn.Linear(768, 2).double()
        self.layer.weight.data.copy_(weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.layer(x.flatten(1))
        return z


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5


SMALL: dict[str, Any] = {"size": 4, "replacements": [("black", 0.0)], "progress": False}


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 5)]
    return nn.Sequential(*layers).double().eval().requires_grad_(False)


# -- definitions ------------------------------------------------------------------------------------------------------


def test_pixel_flipping_is_that_of_its_definition() -> None:
    """Bach et al. 2015, §4: pixels set to black from the most relevant on; the same as Quantus' PixelFlipping."""
    model, x = convolutional(), images(2)
    lrp = relprop.LRP(model, "epsilon")
    found = relprop.evaluate(
        lrp, x, 1, composites=["epsilon"], unit="pixel", steps=256, replacements=[("black", 0.0)], progress=False
    )
    relevance = lrp.attribute(x, 1).sum(1).flatten(1)
    for i in range(2):
        for k, order in enumerate([relevance[i].argsort(descending=True), relevance[i].argsort()]):
            flipping, expected = x[i].clone().flatten(1), [float(model(x[i : i + 1])[0, 1])]
            for pixel in order.tolist():
                flipping[:, pixel] = 0
                expected.append(float(model(flipping.reshape(1, 3, 16, 16))[0, 1]))
            assert np.allclose(found.curves("epsilon", "black", i)[k], expected, atol=1e-9)
            area = sum((a + b) / 2 for a, b in pairwise(expected)) / 256
            assert np.isclose(float(torch.trapezoid(found.curves("epsilon", "black", i)[k], dx=1 / 256)), area)


def test_orders_counts_and_areas_by_hand() -> None:
    order = order_of(torch.tensor([0.1, 3.0, -1.0, 2.0]), torch.Generator().manual_seed(0))
    assert order.tolist() == [1, 3, 0, 2]
    assert counts_of(4, 2).tolist() == [0, 2, 4]
    assert flipped(order, 2).int().tolist() == [[0] * 4, [0, 1, 0, 1], [1] * 4, [0] * 4, [1, 0, 1, 0], [1] * 4]
    most, least = torch.tensor([4.0, 1.0, 0.0]), torch.tensor([4.0, 3.0, 0.0])
    assert float(area_between(torch.stack([most, least]))) == pytest.approx(2.5 - 1.5)


def test_of_equals_chance_decides() -> None:
    orders = {tuple(order_of(torch.zeros(5), torch.Generator().manual_seed(i)).tolist()) for i in range(20)}
    assert len(orders) > 10


def test_units_are_what_they_are_called() -> None:
    x = torch.rand(1, 3, 6, 6)
    patches = labels_of(x, "patch", 4, False, None)
    assert patches.shape == (3, 6, 6)
    assert patches[0, :, 0].tolist() == [0, 0, 0, 0, 2, 2]
    assert patches[0, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert sums(torch.ones(3, 6, 6), patches).tolist() == [48, 24, 24, 12]
    one = sums(torch.ones(1, 6, 6), patches)  # a value of three channels is shared by them
    assert one.tolist() == pytest.approx([16, 8, 8, 4])
    assert labels_of(torch.rand(1, 2, 5), "step", None, True, None)[1].tolist() == [0, 1, 2, 3, 4]
    assert labels_of(torch.rand(1, 5, 2), "step", None, False, None)[:, 1].tolist() == [0, 1, 2, 3, 4]
    valid = torch.tensor([True, False, True])
    assert labels_of(torch.tensor([[7, 8, 9]]), "token", None, False, valid).tolist() == [0, -1, 1]
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[:, :, :, 4:] = 1
    found = labels_of(pixels, "superpixel", 4, False, None)
    assert all(len(pixels[0, 0][found[0] == u].unique()) == 1 for u in found.unique())  # they keep to the edge


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).normal(1, 2, 40)
    low, high = interval(values, resampled(40, 0))
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", random_state=1).confidence_interval
    assert np.allclose([low, high], expected, atol=0.05)
    drawn = resampled(40, 0)
    assert p_value(values, drawn) < 0.05
    assert p_value(values - values.mean(), drawn) > 0.5


def test_holm_by_hand() -> None:
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# -- what was planted -------------------------------------------------------------------------------------------------


def test_lrp_finds_the_planted_patch_and_chance_does_not() -> None:
    lrp, x = relprop.LRP(Linear()), images()
    found = relprop.evaluate(lrp, x, 0, composites=["lrp0"], baselines=["centre"], **SMALL)
    lost = float(found.curves("lrp0", "black", 0)[0, 0] - found.curves("lrp0", "black", 0)[0, 1])
    assert lost > 0.8 * float(found.curves("lrp0", "black", 0)[0, 0])  # the first patch of 16 has nearly all of it
    rows = {row.method: row for row in found.rows}
    assert rows["lrp0"].area > 3 * abs(rows["random"].area)
    assert rows["lrp0"].low > rows["random"].high
    assert rows["random"].p < 0.05
    assert rows["lrp0"].most > 0
    assert rows["lrp0"].least > 0
    assert rows["lrp0"].most + rows["lrp0"].least == pytest.approx(rows["lrp0"].area)
    assert rows["random"].most + rows["random"].least == pytest.approx(rows["random"].area)


def test_of_a_linear_model_no_order_is_better_than_that_of_lrp0() -> None:
    """R = w x: what is lost without a unit is its relevance, so that sorting by it is best at every step."""
    lrp, x = relprop.LRP(Linear()), images()
    found = relprop.evaluate(
        lrp, x, 0, composites=["lrp0"], baselines=["occlusion", "gradient", "kernel_shap"], **SMALL
    )
    for other in found.found:
        for i in range(len(found)):
            best, curve = found.curves("lrp0", "black", i), found.curves(other, "black", i)
            assert (best[0] <= curve[0] + 1e-9).all()
            assert (best[1] >= curve[1] - 1e-9).all()
    assert np.allclose(found.areas("lrp0", "black"), found.areas("occlusion", "black"))
    assert found.ranking("black")[0] in ("lrp0", "occlusion", "kernel_shap")


def test_random_is_at_chance_and_a_shuffled_map_is_worse() -> None:
    lrp, x = relprop.LRP(Linear()), images(30)
    found = relprop.evaluate(lrp, x, 0, composites=["lrp0"], **SMALL)
    chance = {row.method: row for row in found.rows}["random"]
    assert chance.low < 0 < chance.high
    shuffling = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    best = found.areas("lrp0", "black")
    assert (found.areas("random", "black") < best).all()
    relevance = lrp.attribute(x, 0)
    labels = labels_of(x[:1], "patch", 4, False, None)
    for i in range(3):
        score = sums(relevance[i], labels)[shuffling]
        chosen = flipped(score.argsort(descending=True), 16)
        versions = torch.where(chosen[:, labels], 0.0, x[i])
        area = area_between(Linear()(versions)[:, 0].detach().reshape(2, -1))
        assert float(area) < best[i]


# -- the same numbers, however they are got ---------------------------------------------------------------------------


def test_neither_batches_nor_their_order_change_a_digit() -> None:
    lrp, x, y = relprop.LRP(convolutional()), images(5), torch.tensor([0, 1, 2, 3, 4])
    options = {"composites": ["epsilon"], "baselines": ["smoothgrad"], "size": 4, "progress": False}
    whole = relprop.evaluate(lrp, x, y, **options)
    for size in (1, 2, 5):
        parts = relprop.evaluate(lrp, DataLoader(TensorDataset(x, y), size), **options)
        assert parts.found == whole.found
    other = relprop.evaluate(lrp, x, y, micro_batch=3, **options)
    for replacement in whole.replacements:
        assert np.allclose(other.areas("epsilon", replacement), whole.areas("epsilon", replacement), atol=1e-12)


def test_a_stopped_run_goes_on_and_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relprop.evaluation import run

    model, x = convolutional(), images(4)
    options = {"composites": ["epsilon", "epsilon_plus"], "size": 4, "progress": False}
    whole = relprop.evaluate(relprop.LRP(model), x, **options)
    path, done = tmp_path / "kept.sqlite", run.Work.__call__

    def until(limit: int) -> Iterator[int]:
        yield from range(limit)

    left = until(5)

    def stopping(self: Any, method: Any, sample: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return done(self, method, sample)

    monkeypatch.setattr(run.Work, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        relprop.evaluate(relprop.LRP(model), x, resume=path, **options)
    left = until(99)
    again = relprop.evaluate(relprop.LRP(model), x, resume=path, **options)
    assert again.found == whole.found
    assert next(left) == 4 * 4 - 5  # nothing was measured twice
    monkeypatch.setattr(run.Work, "__call__", None)
    assert relprop.evaluate(relprop.LRP(model), x, resume=path, **options).found == whole.found


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    model, x, path = convolutional(), images(2), tmp_path / "kept.sqlite"
    relprop.evaluate(relprop.LRP(model), x, composites=["epsilon"], resume=path, **SMALL)
    with pytest.raises(relprop.FileError, match="steps: 20 there, 3 here"):
        relprop.evaluate(relprop.LRP(model), x, composites=["epsilon"], resume=path, steps=3, **SMALL)
    with pytest.raises(relprop.FileError, match="another sample 0"):
        relprop.evaluate(relprop.LRP(model), x + 1, composites=["epsilon"], resume=path, **SMALL)
    model[0].weight.data.neg_()
    with pytest.raises(relprop.FileError, match="model"):
        relprop.evaluate(relprop.LRP(model), x, composites=["epsilon"], resume=path, **SMALL)
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(relprop.FileError, match="no file of an evaluation"):
        relprop.evaluate(relprop.LRP(model), x, resume=tmp_path / "text", **SMALL)


def test_the_model_and_the_random_numbers_are_left_alone() -> None:
    model, x = convolutional(), images(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    relprop.evaluate(relprop.LRP(model), x, baselines=["smoothgrad", "kernel_shap", "grad_cam"], **SMALL)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


# -- other data, and what is shown ------------------------------------------------------------------------------------


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(30, 2).double(), nn.Linear(2, 2).double()
        self.words.weight.data.mul_(0.01)[5] = torch.tensor([4.0, 0.0])  # one word says it all
        self.head.weight.data.copy_(torch.eye(2))

    def forward(self, ids: Tensor) -> Tensor:
        z: Tensor = self.head(self.words(ids).sum(1))
        return z


def test_texts_series_and_tables() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(6, 30, (5, 8), generator=generator)
    ids[:, 3] = 5
    found = relprop.evaluate(relprop.LRP(Reader()), ids, 0, replacements=["permuted", ("pad", 0)], progress=False)
    assert found.settings["unit"] == "token"
    drop = found.curves("auto", "pad", 0)[0]
    assert float(drop[0] - drop[1]) > 0.9 * float(drop[0] - drop[-1])
    valid = torch.ones(5, 8, dtype=torch.bool)
    valid[:, 3] = False
    reader, options = relprop.LRP(Reader()), {"replacements": [("pad", 0)], "progress": False}
    kept = relprop.evaluate(reader, ids, 0, valid=valid, **options)
    assert (kept.curves("auto", "pad", 0) > 3).all()  # the word is never taken away
    assert relprop.evaluate(reader, ids, 0, valid=valid[:1], **options).found == kept.found
    series = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).double()
    found = relprop.evaluate(relprop.LRP(series), torch.randn(3, 2, 12).double(), progress=False)
    assert found.curves("auto", "blur", 0).shape == (2, 13)
    rows = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    found = relprop.evaluate(relprop.LRP(rows), torch.randn(5, 6).double(), baselines=["occlusion"], progress=False)
    assert found.replacements == ["mean", "permuted"]
    assert np.isnan(found.rows[0].probability)  # no class, no probability


def test_every_replacement_and_baseline(tmp_path: Path) -> None:
    names = ["blur", "mean", "noise", "inpaint", "permuted", ("own", lambda x, g: x + torch.rand(x.shape, generator=g))]
    found = relprop.evaluate(
        relprop.LRP(convolutional()),
        images(2),
        composites=["auto", relprop.rules.Epsilon(0.1), "epsilon_plus"],
        baselines=[*relprop.evaluation.methods.BASELINES],
        replacements=names,
        unit="superpixel",
        size=4,
        steps=4,
        micro_batch=8,
        progress=False,
    )
    assert len(found.rows) == 6 * 12
    assert len({tuple(found.areas("auto", r)) for r in found.replacements}) == 6
    told = str(found)
    assert "change places" in told
    assert repr(found) == told
    assert "2 samples are few" in told
    assert len(found.to_frame()) == len(found.rows)
    assert len(found.to_frame(samples=True)) == 2 * len(found.rows)
    assert len(found.figure().axes) == 6
    page = found.save(tmp_path / "x.html").read_text()
    assert "epsilon_plus" in page
    assert "http" not in page.replace("http-equiv", "")
    assert found.save(tmp_path / "x.csv").read_text().startswith("method,replacement,area")
    assert found.save(tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"unit": "word"}, "unit must be one of"),
        ({"unit": "token"}, "does not go with"),
        ({"baselines": ["lime"]}, "there is no baseline 'lime'"),
        ({"replacements": ["zero"]}, "there is no replacement 'zero'"),
        ({"replacements": []}, "no replacements"),
        ({"composites": ["epsilon", relprop.rules.Epsilon(), "epsilon"]}, "two methods are called 'epsilon'"),
        ({"size": 16}, "an order takes two"),
        ({"size": 0}, "at least 1"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        relprop.evaluate(relprop.LRP(convolutional()), images(2), progress=False, **options)


def test_data_and_modes_that_are_wrong_are_told() -> None:
    lrp = relprop.LRP(convolutional())
    with pytest.raises(relprop.InputError, match="batches are pairs"):
        relprop.evaluate(lrp, [images(1)])
    with pytest.raises(ValueError, match="leave it out"):
        relprop.evaluate(lrp, [(images(1), torch.tensor([0]))], 1)
    with pytest.raises(relprop.CaptureError, match=r"model\.eval"):
        relprop.evaluate(relprop.LRP(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(768, 2))), images(1).float())
    with pytest.raises(ValueError, match="ids"):
        relprop.evaluate(relprop.LRP(Reader()), torch.zeros(2, 3, dtype=torch.long), replacements=["blur"])


# -- sanity and localisation ------------------------------------------------------------------------------------------


def planted_region(count: int) -> Tensor:
    mask = torch.zeros(count, 16, 16, dtype=torch.bool)
    mask[:, 4:8, 8:12] = True
    return mask


def test_localisation_finds_what_was_planted_and_chance_its_share() -> None:
    lrp, x = relprop.LRP(Linear()), images(20)
    boxes = torch.tensor([[8, 4, 12, 8]]).expand(20, 4)
    options = {"composites": ["lrp0"], "sanity": [], "unit": "pixel", "steps": 2, "replacements": ["mean"]}
    found = relprop.evaluate(lrp, x, 0, regions=planted_region(20), progress=False, **options)
    by_boxes = relprop.evaluate(lrp, x, 0, regions=boxes, progress=False, **options)
    assert by_boxes.found == found.found
    own, chance = found.checks("lrp0"), found.checks("random")
    assert own["mass"] > 0.9
    assert own["rank"] == own["pointing"] == 1.0
    for name in ("mass", "rank", "pointing"):
        assert abs(chance[name] - 1 / 16) < 0.1
    relevance, mask = lrp.attribute(x, 0).sum(1)[0], planted_region(1)[0]
    positive = relevance.clamp(min=0)
    assert found.found["lrp0"][0]["mass"] == pytest.approx(float((positive * mask).sum() / positive.sum()))


def test_the_map_of_the_other_class_is_its_opposite_and_the_centre_is_blind() -> None:
    options = {**SMALL, "composites": ["lrp0"], "baselines": ["centre"], "sanity": ["alike", "randomised", "smooth"]}
    found = relprop.evaluate(relprop.LRP(Linear()), images(3), 0, **options)
    assert found.checks("lrp0")["alike"] < -0.99
    assert found.checks("centre")["alike"] == pytest.approx(1)
    assert found.checks("lrp0")["randomised"] > 1  # the map was a patch, and is noise
    assert found.checks("centre")["randomised"] == 0
    assert abs(found.checks("lrp0")["smooth"]) < 0.7
    assert found.checks("centre")["smooth"] == pytest.approx(1)


def test_entropy_and_likeness_are_their_definitions() -> None:
    r = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    counts, _ = np.histogram(r.abs().numpy(), bins=100)
    assert sanity.entropy(r) == pytest.approx(scipy.stats.entropy(counts))
    other = (r + torch.randn(200, generator=torch.Generator().manual_seed(1))).round()
    expected = scipy.stats.spearmanr(r.round().abs(), other.abs()).statistic
    assert sanity.rank_likeness(r.round(), other) == pytest.approx(expected)


def test_random_parameters_are_a_copy_s() -> None:
    model = convolutional()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = sanity.randomised(model, 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(torch.equal(before[name], value) for name, value in other.state_dict().items())
    again = sanity.randomised(model, 0).state_dict()
    assert all(torch.equal(again[name], value) for name, value in other.state_dict().items())


def test_quantus_means_the_same() -> None:
    reason = "Quantus is heavy, and not in the extra test; pip install quantus to run this"
    metrics = pytest.importorskip("quantus.metrics", reason=reason)
    from quantus.functions.complexity_func import discrete_entropy

    r, mask = torch.rand(3, 1, 16, 16).double(), planted_region(3)[:, None]
    r[0, 0, 5, 9] = 2
    data = {"model": None, "x_batch": r.numpy(), "y_batch": None, "a_batch": r.numpy(), "s_batch": mask.numpy()}
    options = {"abs": False, "normalise": False, "disable_warnings": True}
    for name, own in (
        ("RelevanceMassAccuracy", localisation.mass),
        ("RelevanceRankAccuracy", localisation.rank),
        ("PointingGame", localisation.pointing),
    ):
        expected = getattr(metrics, name)(**options)(**data)
        assert np.allclose([own(a[0], m[0]) for a, m in zip(r, mask, strict=True)], np.asarray(expected, float))
    assert sanity.entropy(r[0]) == pytest.approx(discrete_entropy(r[0].numpy(), None), abs=1e-6)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)).eval().requires_grad_(False)
    x = torch.rand(2, 1, 16, 16)  # one channel: to Quantus every value is a feature of its own
    lrp = relprop.LRP(model, "epsilon")
    relevance = lrp.attribute(x, 1)
    flipping = metrics.PixelFlipping(features_in_step=16, perturb_baseline="black", **options)
    data = {"model": model, "x_batch": x.numpy(), "y_batch": np.array([1, 1]), "a_batch": relevance.numpy()}
    curves = flipping(**data, device="cpu", softmax=False)
    black = {"unit": "pixel", "steps": 16, "replacements": [("black", lambda x, g: x.min())], "sanity": []}
    found = relprop.evaluate(lrp, x, 1, composites=["epsilon"], progress=False, **black)
    for i in range(2):
        assert np.allclose(found.curves("epsilon", "black", i)[0, 1:], curves[i], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"regions": torch.zeros(2, 16, 16)}, r"samples \[0, 1\] are empty"),
        ({"regions": torch.ones(2, 5)}, r"masks are \[2, 16, 16\], or boxes \[2, 4\]"),
        ({"sanity": ["classic"]}, "and not 'classic'"),
        ({"valid": torch.ones(3, 16, 16)}, r"valid has shape \[3, 16, 16\]"),
        ({"valid": torch.ones(2, 3, 4, 16)}, r"the inputs are \[2, 3, 16, 16\]"),
    ],
)
def test_wrong_regions_and_checks_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        relprop.evaluate(relprop.LRP(convolutional()), images(2), progress=False, **options)


def test_a_program_has_no_parameters_to_draw() -> None:
    program = torch.export.export(convolutional(), (images(2),), dynamic_shapes=({0: torch.export.Dim("b")},))
    lrp = relprop.LRP(program)
    assert set(relprop.evaluate(lrp, images(2), **SMALL).checks("auto")) == {"alike"}
    with pytest.raises(ValueError, match=r"sanity=\['alike'\]"):
        relprop.evaluate(lrp, images(2), sanity=["randomised"], **SMALL)


def test_what_may_be_flipped_goes_with_images_and_series() -> None:
    x, mask = images(2), planted_region(2)
    options = {"composites": ["lrp0"], "replacements": [("black", 0.0)], "size": 4, "progress": False}
    lrp = relprop.LRP(Linear())
    plain = relprop.evaluate(lrp, x, 0, valid=~mask, **options)
    assert plain.found == relprop.evaluate(lrp, x, 0, valid=~mask[:, None].expand(x.shape), **options).found
    every = relprop.evaluate(lrp, x, 0, **options)
    assert plain.curves("lrp0", "black", 0)[0, -1] > 5 + every.curves("lrp0", "black", 0)[0, -1]


def test_the_notes_say_where_the_order_changes() -> None:
    def curves(most: float, least: float) -> list[list[list[float]]]:
        return [[[1.0, most, 0.0]], [[1.0, least, 0.0]]]

    def evaluation(**of: dict[str, tuple[float, float]]) -> relprop.Evaluation:
        found = {
            method: [{"curves": {r: curves(*pair) for r, pair in by.items()}} for _ in range(12)]
            for method, by in of.items()
        }
        return relprop.Evaluation(found, ["blur", "mean"], {"seed": "0"})

    chance = {"blur": (0.5, 0.5), "mean": (0.5, 0.5)}
    one, two = {"blur": (0.1, 0.9), "mean": (0.3, 0.7)}, {"blur": (0.3, 0.7), "mean": (0.1, 0.9)}
    best = {"blur": (0.0, 1.0), "mean": (0.0, 1.0)}
    assert evaluation(one=best, two=one, random=chance).notes == []
    changed = evaluation(one=one, two=two, random=chance).notes
    assert changed[0] == "The best method changes with the replacement: one under blur, two under mean."
    assert "one and two change places" in changed[1]
    assert evaluation(best=best, one=one, two=two, random=chance).notes[0].startswith("best is best under every")
    assert "better than chance" in evaluation(one=chance, random=chance).notes[0]
