"""A batch explained in parts is as one that is explained at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import targets
from relprop.errors import InputError, TargetError

from .models import assert_same, cnn, images
from .test_bilrp import Bar

CLASSES = torch.tensor([2, 0, 1, 1, 2])

TARGETS: dict[str, Any] = {
    "predicted": None,
    "class": 1,
    "a class for each": CLASSES,
    "of numpy": CLASSES.numpy(),
    "tuple": (CLASSES,),
    "several": [0, CLASSES, None, lambda y: y[:, 0] - y[:, 1]],
    "Several": targets.several([2, CLASSES]),
    "function": lambda y: y[:, 0] - y[:, 1],
    "helper": targets.contrast(0, 2),
}


@pytest.fixture(scope="module")
def convolutional() -> relprop.LRP:
    return relprop.LRP(cnn(), "epsilon_plus")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_images(convolutional: relprop.LRP, target: str, size: int) -> None:
    x = images(5)
    found = convolutional.attribute(x, TARGETS[target], micro_batch=size, progress=False)
    assert_same(found, convolutional.attribute(x, TARGETS[target]), 1e-12)


def test_parts_are_captured_once(convolutional: relprop.LRP) -> None:
    convolutional.attribute(images(5), micro_batch=2)
    assert [len(known) for known in convolutional._capturer._captures.values()] == [1]


def test_forward_runs_for_a_part_at_a_time(convolutional: relprop.LRP) -> None:
    x = images(7)
    convolutional.attribute(x, 1, micro_batch=3)
    with torch.profiler.profile(record_shapes=True) as profile:
        convolutional.attribute(x, 1, micro_batch=3)
    assert {event.input_shapes[0][0] for event in profile.events() if event.name == "aten::max_pool2d"} == {3, 1}


class Reader(nn.Module):
    """A transformer of one layer over tokens and a mask, with positions and a table that all samples share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        hidden = self.layer(scale * (self.words(ids) + positions), src_key_padding_mask=~mask)
        return {"logits": self.out((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)), "hidden": hidden}


@pytest.mark.parametrize("positions", [6, 5], ids=["as many as steps", "as many as samples"])
@pytest.mark.parametrize("target", [None, CLASSES, [0, CLASSES], lambda o: o["hidden"][:, 0, 3]])
def test_tokens_with_masks_and_what_is_shared(positions: int, target: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "ids": torch.randint(11, (5, positions), generator=generator),
        "mask": torch.arange(positions) < torch.tensor([5, 3, 5, 1, 4])[:, None],
        "positions": torch.randn(positions, 8, generator=generator).double(),
        "scale": 1.5,
    }
    lrp = relprop.LRP(Reader().double().eval(), "attnlrp")
    whole = lrp.attribute(inputs, target, wrt=["ids", "positions"])
    for size in (1, 2, 3):
        found = lrp.attribute(inputs, target, wrt=["ids", "positions"], micro_batch=size)
        assert list(found) == list(inputs)
        for name in ("ids", "positions"):
            assert_same(found[name], whole[name], 1e-12)
        assert found["mask"] is None
        assert found["scale"] is None


def test_shared_input_may_come_first_and_the_samples_second() -> None:
    class Prompts(nn.Module):
        def forward(self, prompts: Tensor, x: Tensor) -> Tensor:
            return x @ prompts.T

    prompts, x = torch.randn(3, 4).double(), torch.randn(6, 4).double()
    lrp = relprop.LRP(Prompts(), "lrp0")
    whole = lrp.attribute((prompts, x), 1)
    found = lrp.attribute((prompts, x), 1, micro_batch=4)
    assert isinstance(found, tuple)
    assert_same(found[0], whole[0], 1e-12)
    assert_same(found[1], whole[1], 1e-12)
    whole = lrp.attribute((prompts, x[:3]), 1)  # as many prompts as samples
    found = lrp.attribute((prompts, x[:3]), 1, micro_batch=2)
    assert_same(found[0], whole[0], 1e-12)
    assert_same(found[1], whole[1], 1e-12)


def test_an_input_whose_rows_may_or_may_not_be_samples() -> None:
    """Samples that are compared with each other are not the same in parts, whatever is done with the input."""

    class Centred(nn.Module):
        def forward(self, x: Tensor, shift: Tensor) -> Tensor:
            return x - x.mean(0) + shift.sum(0)

    inputs = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    with pytest.raises(InputError, match=r"'shift'.*cannot be told") as refusal:
        relprop.LRP(Centred(), "lrp0").attribute(inputs, 1, micro_batch=2)
    assert "(3, 4)" in str(refusal.value)


def test_input_that_nothing_depends_on() -> None:
    class Ignores(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return 2 * x

    x = torch.randn(4, 3)
    _, found = relprop.LRP(Ignores(), "lrp0").attribute((x, torch.randn(4, 2)), 0, micro_batch=3)
    assert torch.equal(found, torch.zeros(4, 2))


def test_inputs_that_cannot_be_split() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(0)

    with pytest.raises(InputError, match=r"no input has them there \(x: \(5, 2, 3\)\)"):
        relprop.LRP(Steps(), "lrp0").attribute(torch.randn(5, 2, 3), 1, micro_batch=1)

    with pytest.raises(InputError, match=r"for 1 samples .* the output has 2"):
        relprop.LRP(Steps(), "lrp0").attribute(torch.randn(2, 2, 3), 1, micro_batch=1)

    class Pairs(nn.Module):
        def forward(self, x: Tensor, crops: Tensor) -> Tensor:
            return x + crops.reshape(2, x.shape[0], 3).sum(0)

    with pytest.raises(InputError, match="Pairs cannot run on these inputs") as refusal:
        relprop.LRP(Pairs(), "lrp0").attribute((torch.randn(4, 3), torch.randn(8, 3)), 1, micro_batch=2)
    assert "samples 0 to 1 of 4: micro_batch=2" in refusal.value.__notes__[0]


def test_samples_in_two_dimensions_cannot_be_split() -> None:
    class Neighbours(nn.Module):
        def forward(self, x: Tensor, near: Tensor) -> Tensor:
            return near * (x[:, :1] + x[:, 0])

    lrp = relprop.LRP(Neighbours(), "lrp0")
    for samples in (3, 4):  # the second one shows both dimensions open
        lrp.attribute((torch.rand(samples, 2), torch.rand(samples, samples)), 1)
    with pytest.raises(InputError, match=r"'near' of shape \(4, 4\) cannot be split"):
        lrp.attribute((torch.rand(4, 2), torch.rand(4, 4)), 1, micro_batch=2)


def test_model_that_is_recorded() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)

    lrp, x = relprop.LRP(Branches().double(), "epsilon"), torch.rand(4, 3).double()
    with pytest.warns(UserWarning, match="recorded"):
        found = lrp.attribute(x, 1, micro_batch=3)
    assert_same(found, lrp.attribute(x, 1), 1e-12)


def test_differentiable(convolutional: relprop.LRP) -> None:
    x = images(3).requires_grad_()
    gradients = []
    for size in (None, 2):
        found = convolutional.attribute(x, 1, create_graph=True, micro_batch=size)
        gradients += torch.autograd.grad(found.square().sum(), x)
    assert_same(gradients[1], gradients[0], 1e-12)


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "8"])
def test_sizes_that_are_none(convolutional: relprop.LRP, size: Any) -> None:
    with pytest.raises(ValueError, match=f"micro_batch must be a whole number of samples, at least 1, got {size!r}"):
        convolutional.attribute(images(), micro_batch=size)


UNSPLIT: dict[str, tuple[Any, str]] = {
    "too many classes": (torch.zeros(6).long(), r"shape \(6,\) cannot be split.*\[5\]"),
    "a matrix": (np.zeros((5, 2), int), r"shape \(5, 2\) cannot be split"),
    "in a list": ([0, torch.zeros(4).long()], r"shape \(4,\) cannot be split"),
    "values of all samples": (
        lambda y: y[:, 0].expand(5) if len(y) == 1 else y[:, 0],
        "returned 5 values for 1 sample",
    ),
}


@pytest.mark.parametrize("target", UNSPLIT)
def test_targets_that_cannot_be_split(convolutional: relprop.LRP, target: str) -> None:
    given, message = UNSPLIT[target]
    with pytest.raises(TargetError, match=message):
        convolutional.attribute(images(5), given, micro_batch=2)


def test_helper_that_holds_something_for_each_sample(convolutional: relprop.LRP) -> None:
    for size in (1, 2):
        with pytest.raises(
            TargetError, match=r"the target function 'class \[2, 0, 1, 1, 2\]' r(aised|eturned)"
        ) as refusal:
            convolutional.attribute(images(5), targets.class_index(CLASSES), micro_batch=size)
        assert f"samples 0 to {size - 1} of 5: micro_batch={size}" in refusal.value.__notes__[0]


def test_error_names_the_samples(convolutional: relprop.LRP) -> None:
    classes = torch.tensor([0, 0, 0, 7, 0])
    with pytest.raises(TargetError, match="out of range") as refusal:
        convolutional.attribute(images(5), classes, micro_batch=2)
    assert "samples 2 to 3 of 5" in refusal.value.__notes__[0]


@pytest.mark.parametrize(("size", "shown"), [(2, [("attribute", 3)]), (5, [])])
def test_progress(
    convolutional: relprop.LRP, monkeypatch: pytest.MonkeyPatch, size: int, shown: list[tuple[str, int]]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(Bar, "shown", [])
    call: Callable[..., Tensor] = convolutional.attribute
    assert torch.equal(call(images(5), micro_batch=size), call(images(5), micro_batch=size, progress=False))
    assert Bar.shown == shown


# ---------------------------------------------------------------------------------------------------------------------
# Explanations
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("target", ["predicted", "a class for each", "several", "function"])
def test_explanations_in_parts(convolutional: relprop.LRP, target: str, size: int) -> None:
    """All that an explanation holds is what it is for all samples at once."""
    x, given = images(5), TARGETS[target]
    whole = convolutional.explain(x, given, record=["conv*"])
    parts = convolutional.explain(x, given, record=["conv*"], micro_batch=size, progress=False)
    for name in ("relevance", "output", "value"):
        assert_same(getattr(parts, name), getattr(whole, name), 1e-12)
    assert list(parts.relevances) == list(whole.relevances)
    for name, relevance in whole.relevances.items():
        assert_same(parts.relevances[name], relevance, 1e-12)
    books = [e.ledger if isinstance(e.ledger, list) else [e.ledger] for e in (parts, whole)]
    for found, expected in zip(*books, strict=True):
        assert_same(found.seed, expected.seed, 1e-12)
        assert found.sinks.keys() == expected.sinks.keys()
        for key, amount in expected.sinks.items():
            assert torch.allclose(found.sinks[key], amount, rtol=1e-10, atol=1e-12)
        assert float(found.residual.abs().max()) < 1e-12
    if isinstance(whole.target, Tensor):
        assert torch.equal(parts.target, whole.target)
    elif callable(whole.target):
        assert parts.target is whole.target


def test_what_all_samples_share_is_summed_in_an_explanation() -> None:
    class Prompts(nn.Module):
        def forward(self, prompts: Tensor, x: Tensor) -> Tensor:
            return x @ prompts.T

    inputs = torch.randn(3, 4).double(), torch.randn(6, 4).double()
    lrp = relprop.LRP(Prompts(), "lrp0")
    whole, parts = lrp.explain(inputs, 1), lrp.explain(inputs, 1, micro_batch=4, progress=False)
    for a, b in zip(parts.relevance, whole.relevance, strict=True):
        assert_same(a, b, 1e-12)
    assert parts.ledger.shared == {"prompts"}
    assert abs(float(parts.ledger.residual.sum())) < 1e-12


def test_an_output_for_all_samples_cannot_be_joined() -> None:
    class Loss(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": 2 * x, "loss": x.square().mean()}

    lrp, x = relprop.LRP(Loss(), "lrp0"), torch.randn(3, 4).double()
    assert_same(lrp.attribute(x, 1, micro_batch=2, progress=False), lrp.attribute(x, 1), 1e-12)
    with pytest.raises(InputError, match=r"output 1 of the model.*cannot be joined"):
        lrp.explain(x, 1, micro_batch=2, progress=False)
