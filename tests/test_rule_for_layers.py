"""A user's rule for a linear operation (``rule_for``): where it applies, and what is stronger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules, select
from relprop.graph.ops import affine
from relprop.rules import TABLE, Message
from relprop.rules.neurons import Neurons

from .models import prepared

aten = torch.ops.aten


@dataclass(frozen=True)
class Half(rules.LinearRule):
    """Half of LRP-0."""

    def propagate(self, n: Neurons) -> Message:
        assert n.message.c is not None
        return Message(c=n.transpose(n.message.c, n.w) / 2)


class Product(nn.Module):
    """A matrix times a constant one, written as an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


MODELS = {
    "dense": (aten.linear, lambda: nn.Linear(4, 3), (2, 4)),
    "convolution": (aten.conv2d, lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), (2, 2, 4, 4)),
    "padded": (aten.conv2d, lambda: nn.Sequential(nn.Conv2d(2, 3, 2, padding="same"), nn.Flatten()), (2, 2, 3, 3)),
    "transposed": (
        aten.conv_transpose2d,
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten()),
        (2, 2, 3, 3),
    ),
    "matrix": (aten.matmul, Product, (2, 4)),
    "norm in front of a layer": (aten.linear, lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), (2, 4)),
    "norm in front of padding": (
        aten.conv2d,
        lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1), nn.Flatten()),
        (2, 2, 3, 3),
    ),
    "norm alone": (affine, lambda: nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), (2, 4)),
}
GENERIC = [None, "auto", "epsilon", "lrp0", "epsilon_gamma_box", "attnlrp", rules.Epsilon(0.1), rules.ZPlus()]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)


def made(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model, inputs and gradient x input of class 0, which is LRP-0."""
    torch.manual_seed(0)
    _, make, shape = MODELS[name]
    model, x = prepared(make()), torch.randn(shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(model(x.requires_grad_())[:, 0].sum(), x)
    return model, x.detach(), gradient * x.detach()


@pytest.mark.parametrize("composite", GENERIC, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_stronger_than_composites_for_every_architecture(name: str, composite: object) -> None:
    model, x, lrp0 = made(name)
    relprop.rule_for(MODELS[name][0])(Half())
    lrp = relprop.LRP(model, composite)
    torch.testing.assert_close(lrp.attribute(x, target=0), lrp0 / 2, rtol=0, atol=1e-12)
    (row,) = [line for line in str(lrp.plan(x)).splitlines() if "Half()" in line]
    assert "  rule_for  " in row


@pytest.mark.parametrize("name", MODELS)
def test_weaker_than_selectors_of_ones_own(name: str) -> None:
    model, x, lrp0 = made(name)
    relprop.rule_for(MODELS[name][0])(Half())
    composite = relprop.Composite([(select.linear() | select.affine(), rules.LRP0())])
    relevance = relprop.LRP(model, composite).attribute(x, target=0)
    torch.testing.assert_close(relevance, lrp0, rtol=0, atol=1e-12)


def test_where_no_selector_matches() -> None:
    """The last layer is selected, the first one has the rule that was registered: 2 layers, 1 half."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    relprop.rule_for(aten.linear)(Half())
    relevance = relprop.LRP(model, [(select.module("1"), rules.LRP0())]).attribute(x, target=0)
    w = (model[1].weight @ model[0].weight)[0].detach()
    torch.testing.assert_close(relevance, x * w / 2, rtol=0, atol=1e-12)


def test_the_gradient_stays_the_gradient() -> None:
    model, x, lrp0 = made("dense")
    relprop.rule_for(aten.linear)(Half())
    torch.testing.assert_close(relprop.LRP(model, "gradient").attribute(x, target=0), lrp0, rtol=0, atol=1e-12)


def test_a_function() -> None:
    """y = W x + b, and all relevance of y in equal parts to x."""
    model, x, _ = made("dense")

    @relprop.rule_for(aten.linear)
    def equally(call, message):
        relevance = message.relevance(call.output)
        return Message(r=(relevance.sum(-1, keepdim=True) / 4).expand(2, 4))

    expected = (model(x)[:, :1] / 4).expand(2, 4).detach()
    torch.testing.assert_close(relprop.LRP(model).attribute(x, target=0), expected, rtol=0, atol=1e-12)


def test_one_model_asked_before_and_after() -> None:
    """A plan that was made before the rule is not used again."""
    model, x, lrp0 = made("dense")
    lrp = relprop.LRP(model, "lrp0")
    torch.testing.assert_close(lrp.attribute(x, target=0), lrp0, rtol=0, atol=1e-12)
    relprop.rule_for(aten.linear)(Half())
    torch.testing.assert_close(lrp.attribute(x, target=0), lrp0 / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("operation", [aten.addmm, aten.batch_norm, aten.glu.default, aten.addcmul])
def test_an_operation_that_no_rule_ever_meets(operation: object) -> None:
    with pytest.raises(relprop.RuleError, match="no rule ever meets"):
        relprop.rule_for(operation)
