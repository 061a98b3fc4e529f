"""Exported programs: any number of samples, and names for all that enters and leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relprop

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of torch's exporter
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def downsampling(classes: int) -> nn.Module:
    """What made ResNet-18 fail in ONNX: a global average behind convolutions that lie channels last."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Conv2d(4, 4, 1, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)),
    ).eval()


@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (2, 2), (3, 5), (4, 4)])
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_number_of_samples_is_open_whatever_it_equals(format: str, samples: int, classes: int, tmp_path: Path) -> None:
    """One sample is doubled, and two classes, three colours or four channels were taken for the number of samples."""
    lrp = relprop.LRP(downsampling(classes), "epsilon")
    path = lrp.export(tmp_path / f"net.{format}", torch.randn(samples, 3, 16, 16))
    for number in (1, 2, 5):
        x, target = torch.randn(number, 3, 16, 16), torch.arange(number) % classes
        if format == "pt2":
            output, relevance = torch.export.load(path).module()(x, target)
        else:
            session = pytest.importorskip("onnxruntime").InferenceSession(path)
            given = {"input": x.numpy(), "target": target.numpy()}
            found = session.run(["output", "relevance_input"], given)
            output, relevance = map(torch.from_numpy, found)
        torch.testing.assert_close(output, downsampling(classes)(x).detach())
        torch.testing.assert_close(relevance, lrp.attribute(x, target), rtol=1e-4, atol=1e-5)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, image: Tensor, words: dict[str, Tensor]) -> Tensor:
        return self.left(image) + self.right(words["seen"])


def test_names(tmp_path: Path) -> None:
    """The names are those of the model's arguments; "output" is a name of torch's own in its files."""
    torch.manual_seed(0)
    given = (torch.randn(2, 3), {"seen": torch.randn(2, 5)})
    path = relprop.LRP(Two()).export(tmp_path / "two.pt2", given)
    program = torch.export.load(path)
    assert list(program.graph_signature.user_inputs) == ["image", "words_seen", "target"]
    assert list(program.graph_signature.user_outputs) == ["output_1", "relevance_image", "relevance_words_seen"]
    onnx = pytest.importorskip("onnxruntime")
    session = onnx.InferenceSession(relprop.LRP(Two()).export(tmp_path / "two.onnx", given))
    assert [i.name for i in session.get_inputs()] == ["image", "words_seen", "target"]
    assert [o.name for o in session.get_outputs()] == ["output", "relevance_image", "relevance_words_seen"]
