"""A rule alone as composite: it stands for every operation that it is meant for, wherever that is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules, select

from . import reference as ref
from .models import prepared

EPSILON = 0.1


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.norm, self.head = nn.LSTM(3, 4, batch_first=True), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.lstm(x)[0][:, -1]))


def test_epsilon_is_the_composite_of_that_name() -> None:
    torch.manual_seed(0)
    model, x = prepared(Reader()), torch.randn(2, 5, 3, dtype=torch.float64)
    alone, named = (relprop.LRP(model, c) for c in (rules.Epsilon(EPSILON), relprop.composites.epsilon(EPSILON)))
    relevance = alone.attribute(x, target=0)
    assert torch.equal(relevance, named.attribute(x, target=0))
    written_out = [
        (select.recurrent(), rules.Recurrent(EPSILON)),
        (select.norm(), rules.HoldStatistics(EPSILON)),
        (select.dense(), rules.Epsilon(EPSILON)),
    ]
    assert torch.equal(relevance, relprop.LRP(model, written_out).attribute(x, target=0))
    assert "Recurrent(epsilon=0.1" in str(alone.plan(x))


def test_relative_epsilon_is_one_of_layers_alone() -> None:
    model, x = prepared(Reader()), torch.randn(2, 5, 3, dtype=torch.float64)
    for composite in (rules.Epsilon(0.25, relative=True), relprop.composites.epsilon(0.25, relative=True)):
        plan = str(relprop.LRP(model, composite).plan(x))
        assert "Recurrent(epsilon=0.0" in plan
        assert "HoldStatistics(epsilon=0.0" in plan


def centred(x: Tensor, norm: nn.LayerNorm) -> ref.Affine:
    """The norm of one sample as a matrix, its standard deviation held: y = w (x - Σ x / n) / σ + b."""
    n = x.numel()
    sigma = torch.sqrt(x.var(correction=0) + norm.eps)
    matrix = norm.weight.detach()[:, None] * (torch.eye(n).to(x) - 1 / n) / sigma
    return ref.Affine(matrix, torch.ones_like(matrix), norm.bias.detach(), (n,), (n,))


@pytest.mark.parametrize("bias", ref.POLICIES)
def test_epsilon_inside_of_a_norm(bias: str) -> None:
    """What the ε of a norm absorbs is in the books, or redistributed, as that of any linear operation."""
    torch.manual_seed(0)
    norm = prepared(nn.LayerNorm(4))
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        norm.bias.normal_()
    x, v = torch.randn(1, 4, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64)
    layer = centred(x, norm)
    expected = ref.lrp_layer(layer, x, layer.forward(x) * v, ref.Epsilon(EPSILON), bias)
    explanation = relprop.LRP(norm, rules.Epsilon(EPSILON), bias=bias).explain(x, target=lambda y: y @ v)
    torch.testing.assert_close(explanation.relevance, expected.relevance, rtol=0, atol=1e-12)
    assert explanation.ledger.residual.abs().max() < 1e-12
    kept = {kind: float(amount) for (kind, _), amount in explanation.ledger.sinks.items()}
    for kind, amount in expected.sinks.items():
        assert kept.get(kind, 0.0) == pytest.approx(float(amount), abs=1e-12)


def test_other_rules_alone() -> None:
    model, x = prepared(Reader()), torch.randn(2, 5, 3, dtype=torch.float64)
    for rule, where in (
        (rules.Recurrent(EPSILON), "recurrent()"),
        (rules.HoldStatistics(EPSILON), "norm()"),
        (rules.Gradient(), "everything()"),
        (rules.ZPlus(), "(linear() | affine())"),
    ):
        plan = str(relprop.LRP(model, rule).plan(x))
        assert any(str(rule) in line and f"  {where}  " in line for line in plan.splitlines()), plan
