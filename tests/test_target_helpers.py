"""Target helpers: what each of them explains, written out."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import targets
from relprop.errors import TargetError


class Returns(nn.Module):
    """A linear map into any shape, so that relevance is x * w for the scalar that a target picks."""

    def __init__(self, *shape: int):
        super().__init__()
        self.layer, self.shape = nn.Linear(4, torch.Size(shape).numel(), bias=False), shape

    def forward(self, x: Tensor) -> Any:
        return {"logits": self.layer(x).unflatten(1, self.shape), "hidden": x * 2}


class Detects(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Any:
        scores = self.layer(x)
        return [{"scores": scores[0], "labels": torch.ones(3).long()}, {"scores": scores[1]}]


X = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[1, 0, 4], [2, 2, 3]])
REGION = torch.tensor([[True, False], [True, True]])
CASES = {
    "class": ((5,), targets.class_index(3), lambda z: z[:, 3]),
    "class per sample": ((5,), targets.class_index(torch.tensor([3, 1])), lambda z: z[[0, 1], [3, 1]]),
    "token": ((6, 5), targets.token(-1, 2), lambda z: z[:, -1, 2]),
    "token per sample": ((6, 5), targets.token(torch.tensor([2, 4]), 2), lambda z: z[[0, 1], [2, 4], 2]),
    "span": ((6, 5), targets.span(2, [1, 0]), lambda z: z[:, 1, 1] + z[:, 2, 0]),
    "span per sample": ((6, 5), targets.span(-3, IDS), lambda z: z[:, 2:5].gather(2, IDS[..., None]).sum((1, 2))),
    "classes": ((5,), targets.contrast(3, 1), lambda z: z[:, 3] - z[:, 1]),
    "tokens": (
        (6, 5),
        targets.contrast(targets.token(-1, 2), targets.token(-1, 4)),
        lambda z: z[:, -1, 2] - z[:, -1, 4],
    ),
    "mask": ((3, 2, 2), targets.mask(REGION, 1), lambda z: z[:, 1, 0, 0] + z[:, 1, 1, 0] + z[:, 1, 1, 1]),
    "class region": ((3, 2, 2), targets.class_region(1), lambda z: (z[:, 1] * (z.argmax(1) == 1)).sum((1, 2))),
    "box": ((4, 3), targets.box(2, number=1), lambda z: z[:, 1, 2]),
    "best box": ((4, 3), targets.box(2), lambda z: z[:, :, 2].amax(1)),
}


@pytest.mark.parametrize("name", CASES)
def test_explains_what_it_says(name: str) -> None:
    shape, target, value = CASES[name]
    torch.manual_seed(0)
    model = Returns(*shape).double()
    explanation = relprop.LRP(model, "lrp0").explain(X, target=target)
    leaf = X.clone().requires_grad_()
    expected = value(model(leaf)["logits"])
    torch.testing.assert_close(explanation.value, expected.detach())
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(explanation.relevance, X * gradient)
    assert explanation.ledger.residual.abs().max() <= 1e-12


Z = torch.tensor([[2.0, 1.0, 0.5], [-1.0, 3.0, 2.0]], dtype=torch.float64)  # of an identity, where R is the seed itself


def identity() -> relprop.LRP:
    layer = nn.Linear(3, 3, bias=False).double()
    layer.weight.data = torch.eye(3).double()
    return relprop.LRP(layer, "lrp0")


def test_a_class_against_the_rest() -> None:
    """y = (2, 1, 1/2), class 0: (2, -1, -1). y = (-1, 3, 2), class 1: (-3/2, 3, -3/2)."""
    explanation = identity().explain(Z, targets.against_rest(torch.tensor([0, 1])))
    expected = torch.tensor([[2.0, -1.0, -1.0], [-1.5, 3.0, -1.5]], dtype=torch.float64)
    torch.testing.assert_close(explanation.relevance, expected)
    torch.testing.assert_close(explanation.value, torch.zeros(2, dtype=torch.float64))
    assert explanation.ledger.residual.abs().max() < 1e-12


def test_the_gradient_of_the_softmax() -> None:
    """z = (ln 2, ln 4, ln 2) has p = (1/4, 1/2, 1/4); of class 0: (3/16, -1/8, -1/16)."""
    z = torch.tensor([[2.0, 4.0, 2.0]], dtype=torch.float64).log()
    explanation = identity().explain(z, targets.softmax_gradient(0))
    torch.testing.assert_close(explanation.relevance, torch.tensor([[3.0, -2.0, -1.0]], dtype=torch.float64) / 16)
    gradient = torch.autograd.functional.jacobian(lambda z: z.softmax(1)[0, 0], z)
    torch.testing.assert_close(explanation.relevance, gradient)


def test_seeds_are_for_classes() -> None:
    for target in (targets.against_rest(0), targets.softmax_gradient(0)):
        with pytest.raises(TargetError, match=r"\[B, C\]"):
            relprop.LRP(Returns(6, 5).double(), "lrp0").attribute(X, target)


def test_a_small_difference_of_large_outputs_does_not_count_as_growth() -> None:
    """Two outputs may differ by next to nothing, and what they are made of by much: that is no growth."""
    layer = nn.Linear(2, 2, bias=False).double()
    layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    x = torch.tensor([[1.0, 1.0 + 1e-9]], dtype=torch.float64)
    relevance = relprop.LRP(layer, "lrp0").attribute(x, targets.contrast(0, 1))  # a warning is an error here
    torch.testing.assert_close(relevance, x * torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_detections_as_a_list() -> None:
    model = Detects().double()
    explanation = relprop.LRP(model, "lrp0").explain(X, target=targets.box(None))
    best = model.layer(X).argmax(1)
    torch.testing.assert_close(explanation.relevance, X * model.layer.weight[best].detach())


def test_the_reference_of_a_regression_is_in_the_books() -> None:
    model = nn.Linear(4, 1, bias=False).double()
    explanation = relprop.LRP(model, "lrp0").explain(X, target=targets.regression(0.25))
    torch.testing.assert_close(explanation.value, (model(X)[:, 0] - 0.25).detach())
    torch.testing.assert_close(explanation.relevance.sum(1), model(X)[:, 0].detach())
    torch.testing.assert_close(explanation.ledger.by_kind()["target"], torch.full((2,), -0.25, dtype=torch.float64))


def test_wrong_targets_say_so() -> None:
    lrp = relprop.LRP(Returns(6, 5).double(), "lrp0")
    with pytest.raises(TargetError, match="2 dimensions"):
        lrp.attribute(X, target=targets.class_index(1))
    with pytest.raises(TargetError, match="position 0"):
        targets.span(0, [1])


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def margin(output: Tensor) -> Tensor:
    return output[:, 0] - output[:, 1:].amax(1)


@targets.titled("at least {low} of class {index}")
def above(output: Tensor, index: int, low: float = 0.5) -> Tensor:
    """A target of somebody's own."""
    return (output[:, index] - low).relu()


NAMES = {
    "class 3": targets.class_index(3),
    "class [3, 1]": targets.class_index(torch.tensor([3, 1])),
    "token 2 at position -1": targets.token(-1, 2),
    "tokens [1, 0] from 2": targets.span(2, [1, 0]),
    "class 281 - class 282": targets.contrast(281, 282),
    "token 2 at position -1 - margin": targets.contrast(targets.token(-1, 2), margin),
    "class 3 against the rest": targets.against_rest(3),
    "probability of class 3": targets.softmax_gradient(3),
    "class 1 within a region": targets.mask(REGION, 1),
    "class 1 where it wins": targets.class_region(1),
    "best box, class 2": targets.box(2),
    "box 1, class any": targets.box(None, number=1),
    "output 0 - 0.25": targets.regression(0.25),
    "at least 0.5 of class 1": above(1),
    "margin": margin,
    "y[:, 3] - y[:, 1]": lambda y: y[:, 3] - y[:, 1],
    "y.softmax(1)[:, 0]": lambda y: y.softmax(
        1  # on lines of its own
    )[:, 0],
    "a function of the output": lambda y: (
        y[:, 0] + y[:, 1] + y[:, 2] + y[:, 3] - 2 * y[:, 4].abs().clamp(min=0.25).sqrt()
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_targets_have_names(name: str) -> None:
    assert targets.name_of(NAMES[name]) == name


@pytest.mark.parametrize("name", [n for n, t in NAMES.items() if isinstance(t, targets.Titled)])
def test_helpers_are_values_that_can_be_pickled(name: str) -> None:
    target = NAMES[name]
    again = pickle.loads(pickle.dumps(target))
    assert again == target
    assert hash(again) == hash(target)
    assert all(target != other for n, other in NAMES.items() if n != name)
    assert str(target) == name


def test_a_lambda_without_source_is_a_function_of_the_output() -> None:
    assert targets.name_of(eval("lambda y: y[:, 0]")) == "a function of the output"


def test_a_picture_is_titled_with_the_name_of_its_target() -> None:
    lrp, x = relprop.LRP(nn.Linear(4, 3)), torch.rand(2, 4)
    for target, name in [
        (targets.contrast(torch.tensor([0, 2]), 1), "class 2 - class 1"),
        (lambda y: y[:, 0], "y[:, 0]"),
        (margin, "margin"),
        (2, "target 2"),
    ]:
        explanation = lrp.explain(x, target)
        assert explanation.figure(1).get_suptitle().split("\n")[0] == f"{name}: {float(explanation.value[1]):.4g}"
    again = pickle.loads(pickle.dumps(lrp.explain(x, targets.contrast(0, 1))))
    assert again.target == targets.contrast(0, 1)
    assert repr(again).startswith("Explanation of class 0 - class 1\n")
    again = pickle.loads(pickle.dumps(lrp.explain(x, lambda y: y[:, 0])))
    assert again.figure(1).get_suptitle().startswith("y[:, 0]: ")


def test_a_target_of_ones_own_is_one_function() -> None:
    explanation = relprop.LRP(nn.Linear(4, 3)).explain(torch.rand(2, 4), above(1, low=0.25))
    torch.testing.assert_close(explanation.value, (explanation.output[:, 1] - 0.25).relu())
    assert above(1, 0.25) == above(index=1, low=0.25)
    with pytest.raises(TypeError, match="index"):
        above()
