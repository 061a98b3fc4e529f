"""What fused.py computes in place is what linear.py says: the same numbers, and the same number of products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import relprop
from relprop import rules
from relprop.rules.base import TWINS

from .models import prepared
from .reference import POLICIES

RULES = [
    rules.Epsilon(0.1),
    rules.Epsilon(0.25, relative=True),
    rules.Gamma(0.3),
    rules.Gamma(100.0, stabilizer=1e-3),
    rules.Gamma(0.0),
    rules.AlphaBeta(),
    rules.AlphaBeta(1.7, 0.7, stabilizer=0.1),
    rules.AlphaBeta(1.0, 0.0),
    rules.ZPlus(),
    rules.ZPlus(stabilizer=0.1),
]

pytestmark = pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")  # some of these networks cancel on purpose


class Branches(nn.Module):
    """Layers in front of a ReLU and not, behind one and not; a sum whose summands get one message."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.side = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 1, bias=False)
        self.inner, self.norm = nn.Conv2d(3, 3, 2, padding="same"), nn.BatchNorm2d(3)
        self.leave, self.last = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        x = (self.norm(self.inner(x)) + self.side(x)).relu()
        return self.last(torch.tanh(self.leave(nn.functional.avg_pool2d(x, 2).flatten(1))))


class OneSided(nn.Module):
    """Neurons of which all contributions have one sign, and one without any."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 2, 3], [-1, -2, -3], [0, 0, 0], [1, -1, 2]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "branches": (Branches, lambda: torch.randn(2, 2, 4, 4)),
    "one-sided": (OneSided, lambda: torch.rand(2, 3)),
    "one-sided behind a ReLU": (lambda: nn.Sequential(nn.ReLU(), OneSided()), lambda: torch.rand(2, 3)),
}


@pytest.fixture
def without_fused() -> Iterator[Callable[[], None]]:
    """Switches fused.py off."""
    before = dict(TWINS)
    yield TWINS.clear
    TWINS.update(before)


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, inputs = MODELS[name]
    return prepared(model()), inputs().double()


def numbers(lrp: relprop.LRP, x: Tensor) -> dict[Any, Tensor]:
    """Relevance and everything that the ledger says."""
    explanation = lrp.explain(x, target=lambda y: y @ torch.tensor([1.0, -2.0, 0.5]).double())
    assert explanation.ledger.residual.abs().max() < 1e-12
    return {"relevance": explanation.relevance, **explanation.ledger.sinks}


@pytest.mark.parametrize("bias", POLICIES)
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_same_numbers(model: str, rule: rules.Rule, bias: str, without_fused: Callable[[], None]) -> None:
    net, x = made(model)
    lrp = relprop.LRP(net, rule, bias=bias)
    fused = numbers(lrp, x)
    without_fused()
    plain = numbers(lrp, x)
    assert plain.keys() == fused.keys()
    for key, value in plain.items():
        torch.testing.assert_close(fused[key], value, rtol=1e-12, atol=1e-12)


def test_same_sums_with_a_stabiliser(without_fused: Callable[[], None]) -> None:
    """``Norm`` at sums and pools, which these composites have."""
    net, x = made("branches")
    lrp = relprop.LRP(net, relprop.composites.epsilon_plus(stabilizer=0.1))
    fused = numbers(lrp, x)
    without_fused()
    for key, value in numbers(lrp, x).items():
        torch.testing.assert_close(fused[key], value, rtol=1e-12, atol=1e-12)


def test_derivatives_are_those_of_the_formulas() -> None:
    """Who differentiates relevance gets the same numbers: those of linear.py itself."""
    net, x = made("branches")
    for rule in RULES:
        lrp = relprop.LRP(net, rule)
        relevance = lrp.attribute(x.clone().requires_grad_(), target=0, create_graph=True)
        torch.testing.assert_close(relevance.detach(), lrp.attribute(x, target=0), rtol=1e-12, atol=1e-12)


PRODUCTS = {torch.ops.aten.convolution.default, torch.ops.aten.addmm.default, torch.ops.aten.mm.default}


class Products(TorchDispatchMode):
    """Counts products with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += operation in PRODUCTS
        return operation(*args, **(kwargs or {}))


def products(lrp: relprop.LRP, x: Tensor) -> int:
    lrp.attribute(x, target=0)  # weights that are kept
    with Products() as products:
        lrp.attribute(x, target=0)
    return products.count


@pytest.mark.parametrize(
    ("rule", "behind_relu", "in_front", "more"),
    [
        (rules.LRP0(), True, True, 1),
        (rules.Epsilon(), True, True, 1),
        (rules.Gamma(), True, True, 2),  # γ for a >= 0 and z >= 0 is one weight
        (rules.Gamma(), True, False, 3),  # z⁺, and one product for each of s⁺ and s⁻
        (rules.Gamma(), False, True, 3),
        (rules.Gamma(), False, False, 3),
        (rules.AlphaBeta(), True, True, 3),
        (rules.AlphaBeta(), True, False, 3),
        (rules.AlphaBeta(), False, True, 3),
        (rules.AlphaBeta(), False, False, 3),
        (rules.ZPlus(), True, True, 2),  # z⁺ for a >= 0 is one weight, whatever z
        (rules.ZPlus(), True, False, 2),
        (rules.ZPlus(), False, True, 3),
        (rules.ZPlus(), False, False, 3),
    ],
    ids=str,
)
def test_products(
    rule: rules.Rule, behind_relu: bool, in_front: bool, more: int, without_fused: Callable[[], None]
) -> None:
    """One forward, and those that the rule needs: one back, or up to three in all."""
    layers = [nn.ReLU()] * behind_relu + [nn.Linear(3, 4)] + [nn.ReLU()] * in_front
    net, x = prepared(nn.Sequential(*layers)), torch.randn(2, 3, dtype=torch.float64)
    lrp = relprop.LRP(net, rule)
    assert products(lrp, x) == 1 + more
    without_fused()
    assert products(lrp, x) == 1 + more
