"""ONNX files: the same output and relevance as of the model that they were exported from."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relprop

from .models import assert_same

pytest.importorskip(
    "onnx2pytorch", reason="ONNX files are NOT tested: onnx2pytorch is missing (the extra relprop[onnx])"
)
pytestmark = pytest.mark.filterwarnings("ignore", "error:.*recorded")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.b, self.norm, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        for norm in (self.a[1], self.norm):
            norm.running_var.uniform_(0.5, 2)
            norm.running_mean.uniform_(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = torch.relu(h + self.norm(self.b(h)))
        return self.head(nn.functional.max_pool2d(h, 2).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4), nn.Softmax(1))


TOLERANCE = {"encoder": 1e-4}
"""In a file attention is a chain of products, each with a stabiliser of its own."""
MODELS = {
    "mlp": (mlp, (3, 6)),
    "residual": (Residual, (2, 3, 8, 8)),
    "encoder": (Encoder, (2, 5, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), (2, 5, 4)),
    "gru": (lambda: Recurrent(nn.GRU), (2, 5, 4)),
}


def written(model: nn.Module, x: Tensor, path: Path, **options) -> Path:
    open_batch = {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)}
    if not options.get("dynamo", True):
        open_batch = {"dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(model, (x,), path, input_names=["x"], verbose=False, **open_batch, **options)
    return path


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "TorchScript"])
@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_explained_as_its_model(name: str, dynamo: bool, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    model, x = make().double().eval(), torch.randn(shape, dtype=torch.float64)
    lrp = relprop.LRP(written(model, x, tmp_path / "model.onnx", dynamo=dynamo))
    expected = relprop.LRP(model)
    for inputs in (x, 1 - x, x[:1]):
        found, right = lrp.explain(inputs, 1), expected.explain(inputs, 1)
        assert_same(found.output, right.output, 1e-10)
        assert_same(found.relevance, right.relevance, TOLERANCE.get(name, 1e-9))
        assert found.ledger.residual.abs().max() < 1e-10
    assert right.relevance.abs().max() > 1e-3


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_old_and_new_versions_of_the_operations(opset: int, tmp_path: Path) -> None:
    model, x = Residual().double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    path = written(model, x, tmp_path / "model.onnx", opset_version=opset, dynamo=opset > 17)
    assert_same(relprop.LRP(path, "epsilon").attribute(x, 1), relprop.LRP(model, "epsilon").attribute(x, 1), 1e-9)


def test_inputs_have_their_names_and_layers_are_modules(tmp_path: Path) -> None:
    model, x = mlp().double(), torch.randn(3, 6, dtype=torch.float64)
    lrp = relprop.LRP(str(written(model, x, tmp_path / "model.onnx")), "epsilon")
    assert_same(lrp.attribute({"x": x}, 1)["x"], lrp.attribute(x, 1, wrt="x"))
    hidden = relprop.LRP(model, "epsilon").explain(x, 1, record="2").relevances["2"]
    (found,) = lrp.explain(x, 1, record="Gemm_linear_1").relevances.values()
    assert_same(found, hidden, 1e-10)


def test_errors_say_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(relprop.CaptureError, match=r"there is no file .*gone\.onnx"):
        relprop.LRP(tmp_path / "gone.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(relprop.CaptureError, match=r"bad\.onnx' is no ONNX file, or it is damaged"):
        relprop.LRP(tmp_path / "bad.onnx")
    path = written(mlp(), torch.rand(3, 6), tmp_path / "model.onnx")
    with pytest.raises(relprop.InputError, match=r"the model of the ONNX file .*cannot run on these inputs"):
        relprop.LRP(path).attribute(torch.rand(3, 7))


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx2pytorch", None)
    with pytest.raises(ImportError, match=r'run: pip install "relprop\[onnx\]"'):
        relprop.LRP(tmp_path / "model.onnx")


def test_a_torchvision_of_another_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx2pytorch.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "onnx2pytorch")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings(), pytest.raises(ImportError, match="was built for another torch"):
        relprop.LRP(tmp_path / "model.onnx")
