"""Inputs that a model cannot run on: the error says what came, and what the model does run on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import InputError

from .models import assert_same, images


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 3), nn.Linear(3, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).mean(1))


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def picture_net(norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), *norms, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(-3), nn.Linear(4, 2)
    ).eval()


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


x = images(2).float()[:, :, :8, :8]
CASES: dict[str, tuple[nn.Module, Any, Any, str]] = {
    "double for a single model": (picture_net(), x.double(), lambda x: x.float(), r"x\.float\(\)"),
    "double for a dense model": (dense(), torch.rand(2, 5).double(), lambda x: x.float(), r"x\.float\(\)"),
    "single for a double model": (dense().double(), torch.rand(2, 5), lambda x: x.double(), r"x\.double\(\)"),
    "half for a bfloat16 model": (dense().bfloat16(), torch.rand(2, 5).half(), lambda x: x.bfloat16(), "bfloat16"),
    "one picture": (picture_net(), x[0], lambda x: x[None], r"batch of one sample, x\[None\].*\(1, 3, 8, 8\)"),
    "one sequence": (Last(), torch.rand(6, 4), lambda x: x[None], r"x\[None\].*\(1, 6, 4\)"),
    "one text": (Tokens(), torch.arange(6), lambda x: x[None], r"x\[None\].*\(1, 6\)"),
    "one picture in double": (picture_net(), x[0].double(), lambda x: x.float()[None], r"x\.float\(\)\[None\]"),
    "pictures": (picture_net(), [*x], lambda x: torch.stack(list(x)), r"torch\.stack\(list\(inputs\)\)"),
    "batches of one": (picture_net(), [x[:1], x[1:]], lambda x: torch.cat(list(x)), r"torch\.cat\(list\(inputs\)\)"),
    "with labels": (picture_net(), [x, torch.tensor([0, 1])], lambda x: x[0], r"inputs\[0\]"),
    "channels last": (picture_net(), x.permute(0, 2, 3, 1), lambda x: x.permute(0, 3, 1, 2), r"permute\(0, 3, 1, 2\)"),
    "bytes": (picture_net(), (x * 10).abs().byte(), lambda x: x.float(), r"x\.float\(\)"),
    "ids as numbers": (Tokens(), torch.ones(2, 3), lambda x: x.long(), r"x\.long\(\)"),
}


@pytest.mark.parametrize("later", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize("name", CASES)
def test_what_the_model_runs_on(name: str, later: bool) -> None:
    """And with what is recommended it is explained."""
    model, inputs, right, words = CASES[name]
    lrp = relprop.LRP(model)
    if later:
        lrp.attribute(right(inputs), 1)
    with pytest.raises(InputError, match=rf"cannot run on these inputs \(input 0: shape .*It does run on .*{words}"):
        lrp.attribute(inputs, 1)
    assert lrp.attribute(right(inputs), 1).shape == right(inputs).shape


def test_nothing_that_was_tried_runs() -> None:
    with pytest.raises(
        InputError, match=r"expected input\[2, 1, 8, 8\] to have 3 channels, but got 1 channels instead$"
    ):
        relprop.LRP(picture_net()).attribute(x[:, :1])
    with pytest.raises(InputError, match=r"input 0: shape \(2, 3\), torch.int64.*out of range"):
        relprop.LRP(Tokens()).attribute(torch.full((2, 3), 9))


def test_arguments_that_are_meant_are_not_left_out() -> None:
    class Shifted(Last):
        def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
            return super().forward(x if start is None else x + start)

    with pytest.raises(InputError, match=r"must match the size of tensor b \(5\)[^.]*$"):
        relprop.LRP(Shifted()).attribute((torch.rand(2, 6, 4), torch.rand(2, 6, 5)), 1)


@pytest.mark.parametrize("call", ["explain", "compile", "micro_batch"])
def test_other_calls(call: str) -> None:
    lrp, given = relprop.LRP(dense()), torch.rand(4, 5).double()
    calls = {
        "explain": lambda: lrp.explain(given),
        "compile": lambda: lrp.compile(given),
        "micro_batch": lambda: lrp.attribute(given, micro_batch=2),
    }
    with pytest.raises(InputError, match=r"torch.float64.*x\.float\(\)"):
        calls[call]()


@pytest.mark.parametrize("later", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (dense(), torch.rand(5), r"\(5,\).*\(3,\).*x\[None\], shape \(1, 5\)"),
        (picture_net(norm=False), x[0], r"\(3, 8, 8\).*x\[None\]"),
    ],
    ids=["numbers", "picture"],
)
def test_one_sample_that_the_model_takes_alone(model: nn.Module, inputs: Tensor, words: str, later: bool) -> None:
    """Its classes would be taken for samples; with a function as target it is known what is meant."""
    lrp = relprop.LRP(model)
    if later:
        lrp.attribute(torch.stack([inputs] * 2), 1)
    with pytest.raises(InputError, match=words):
        lrp.attribute(inputs)
    found = lrp.attribute(inputs, lambda y: y[1:2])
    assert_same(found, lrp.attribute(inputs[None], 1)[0], 1e-5)


def test_numbers_in_one_dimension() -> None:
    """One number a sample, and one number for it: y = 3x."""

    class Times(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * x

    assert_same(relprop.LRP(Times()).attribute(torch.arange(4.0)), 3 * torch.arange(4.0))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((2, 5)), r"ndarray.*NumPy array of shape \(2, 5\) and float64.*torch\.from_numpy\(x\)"),
        ((np.zeros((2, 5)),), r"input 0 is a NumPy array of shape \(2, 5\).*torch\.from_numpy"),
        ({"input": np.zeros((2, 5))}, r"input 0 is a NumPy array.*torch\.from_numpy"),
        ([[1.0, 2.0], [3.0, 4.0]], r"input 0 is 1\.0.*torch\.tensor"),
        ("a text", r"str.*'a text'.*tokenizer"),
        (torch.ones(2, 5).long(), r"nothing to explain.*input of torch.int64.*x\.float\(\)"),
    ],
)
def test_what_is_no_tensor_of_numbers(inputs: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        relprop.LRP(dense()).attribute(inputs)


@pytest.mark.parametrize("number", [0, 2])
def test_images(number: int) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(np.zeros((8, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"image of PIL, RGB, 6 x 8.*to_tensor\(image\)\[None\].*torch\.stack"):
        relprop.LRP(picture_net()).attribute([image] * number if number else image)


def test_a_model_without_values() -> None:
    with pytest.raises(InputError, match="parameters of the model are on the device 'meta', without values"):
        relprop.LRP(nn.Linear(5, 3, device="meta")).attribute(torch.rand(2, 5))
