"""Results for other tools, read by these tools where they are installed.

shap (with numba), Quantus (with OpenCV) and ViRelAy (a program of its own) are heavy: the extra `test` leaves them out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import targets
from relprop.adapters import quantus_explain, to_shap, to_virelay

HEAVY = "is heavy, and not in the extra test; pip install {} to run this"


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)]
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 6).double(), nn.Linear(6, 3).double()

    def forward(self, ids: Tensor) -> Tensor:
        z: Tensor = self.head(self.words(ids).relu().mean(1))
        return z


class Tokenizer:
    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"##{i}" if i % 2 else f"w{i}" for i in ids]


# -- Quantus ----------------------------------------------------------------------------------------------------------


def test_explanations_for_quantus_are_those_of_relprop(model: nn.Module, x: Tensor) -> None:
    expected = relprop.LRP(model, "epsilon_plus").attribute(x, torch.tensor([0, 1, 2, 3])).numpy()
    classes = np.arange(4)
    summed = quantus_explain("epsilon_plus")(model, x.numpy(), classes, method="ignored")
    assert np.allclose(summed, expected.sum(1, keepdims=True))
    kept = quantus_explain("epsilon_plus", channels="keep")(model, x.float().numpy(), classes)
    assert np.allclose(kept, expected, atol=1e-5)
    with pytest.raises(ValueError, match="'sum' or 'keep'"):
        quantus_explain(channels="mean")  # type: ignore[arg-type]


def test_explanations_for_quantus_follow_the_parameters_and_the_model(model: nn.Module, x: Tensor) -> None:
    explain, classes = quantus_explain("lrp0"), np.zeros(4, int)
    before = explain(model, x.numpy(), classes)
    with torch.no_grad():
        model[0].weight.neg_()
    after = explain(model, x.numpy(), classes)
    assert not np.allclose(before, after)
    assert np.allclose(after, relprop.LRP(model, "lrp0").attribute(x, 0).sum(1, keepdim=True))
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 5).double())
    expected = x * other[1].weight[0].detach().reshape(3, 8, 8)
    assert np.allclose(explain(other, x.numpy(), classes), expected.sum(1, keepdim=True))


def test_quantus_evaluates_them(model: nn.Module, x: Tensor) -> None:
    quantus = pytest.importorskip("quantus", reason="Quantus " + HEAVY.format("quantus"))
    data = {"model": model.float(), "x_batch": x.float().numpy(), "y_batch": np.arange(4), "device": "cpu"}
    flipping = quantus.PixelFlipping(features_in_step=16, disable_warnings=True)
    scores = flipping(**data, explain_func=quantus_explain("epsilon_plus"), a_batch=None)
    assert np.isfinite(scores).all()
    randomised = quantus.EfficientMPRT(disable_warnings=True)
    assert np.isfinite(randomised(**data, explain_func=quantus_explain("epsilon_plus"), a_batch=None)).all()


# -- shap -------------------------------------------------------------------------------------------------------------


def test_shap_shows_images_and_several_targets(model: nn.Module, x: Tensor) -> None:
    shap = pytest.importorskip("shap", reason="shap " + HEAVY.format("shap"))
    pyplot = pytest.importorskip("matplotlib.pyplot")
    explanation = relprop.LRP(model, "epsilon").explain(x, targets.several([1, 3]))
    shown = to_shap(explanation)
    assert shown.values.shape == (4, 8, 8, 3, 2)
    assert np.allclose(shown.values[..., 1], explanation.relevance[1].movedim(1, -1))
    assert np.allclose(shown.values.sum((1, 2, 3)) + shown.base_values, explanation.value.T)
    assert list(shown.output_names) == ["target 1", "target 3"]
    shap.plots.image(shown, show=False)
    assert len(pyplot.gcf().axes) >= 12
    shap.plots.image(to_shap(relprop.LRP(model).explain(x)), show=False)
    pyplot.close("all")


def test_shap_shows_texts_and_tables() -> None:
    shap = pytest.importorskip("shap", reason="shap " + HEAVY.format("shap"))
    pyplot = pytest.importorskip("matplotlib.pyplot")
    explanation = relprop.LRP(Reader()).explain(torch.tensor([[1, 4, 3], [2, 2, 7]]), 0)
    shown = to_shap(explanation, tokens=Tokenizer())
    assert shown.data.tolist() == [["1", " w4", "3"], [" w2", " w2", "7"]]
    assert "w4" in shap.plots.text(shown, display=False)
    assert to_shap(explanation, tokens=[["a", "b", "c"], ["d", "e", "f"]]).data[1, 2] == "f"
    with pytest.raises(ValueError, match="3 strings for each of 2 samples"):
        to_shap(explanation, tokens=[["a", "b"], ["d", "e"]])
    table = relprop.LRP(nn.Linear(3, 2).double()).explain(torch.randn(5, 3).double(), 1)
    shown = to_shap(table, names=["age", "weight", "size"])
    assert np.allclose(shown.values.sum(1) + shown.base_values, table.value)
    shap.plots.waterfall(shown[0], show=False)
    shap.plots.beeswarm(shown, show=False)
    pyplot.close("all")
    with pytest.raises(ValueError, match="2 names for 3 features"):
        to_shap(table, names=["age", "weight"])


def test_without_shap_the_extra_is_named(model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shap", None)
    with pytest.raises(ImportError, match=r'pip install "relprop\[shap\]"'):
        to_shap(relprop.LRP(model).explain(x))


# -- ViRelAy ----------------------------------------------------------------------------------------------------------


def test_virelays_files_hold_what_its_reader_asks_for(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    lrp, labels = relprop.LRP(model, "epsilon"), [0, 1, 2, 3]
    parts = (lrp.explain(x[i : i + 3], torch.tensor(labels[i : i + 3])) for i in (0, 3))
    project = to_virelay(parts, tmp_path / "new", labels=labels)
    assert '"true_label"' in project.read_text()
    with h5py.File(tmp_path / "new" / "attribution.h5") as file:
        assert file["label"].dtype == np.uint16  # else labels are not found
        assert file["label"][:].tolist() == labels
        assert np.allclose(file["prediction"][:], model(x).detach())
        assert np.allclose(file["attribution"][:], lrp.attribute(x, torch.tensor(labels)), atol=1e-6)
    with h5py.File(tmp_path / "new" / "dataset.h5") as file:
        assert file["data"].shape == (4, 3, 8, 8)
        assert file["data"].dtype == np.uint8
    again = to_virelay(lrp.explain(x), tmp_path / "new")
    assert '"predicted_label"' in again.read_text()
    for wrong in ([0, 1], [0] * 9):
        with pytest.raises(ValueError, match="labels"):
            to_virelay(lrp.explain(x), tmp_path, labels=wrong)
    with pytest.raises(ValueError, match="images"):
        to_virelay(relprop.LRP(nn.Linear(2, 2)).explain(torch.ones(1, 2)), tmp_path)
    with pytest.raises(relprop.TargetError, match="labels="):
        to_virelay(lrp.explain(x, lambda y: y.sum(1)), tmp_path)


def test_virelay_reads_them(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    read = pytest.importorskip("virelay.model", reason="ViRelAy " + HEAVY.format("virelay"))
    explanation = relprop.LRP(model, "epsilon", classes=["cat", "dog", "cow", "hen", "fox"]).explain(x, 3)
    project = read.Project(str(to_virelay(explanation, tmp_path)))
    attribution = project.get_attribution(2)
    assert attribution.labels[0].name == "hen"
    assert np.allclose(attribution.prediction, model(x)[2].detach())
    assert np.allclose(attribution.data, explanation.relevance[2].movedim(0, -1), atol=1e-6)
    assert len(project.dataset) == 4
    assert project.get_sample(1).data.shape == (8, 8, 3)
