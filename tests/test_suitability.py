"""A rule that is given an operation which it is not for says so when the plan is made, and never fails inside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import RuleError, rules, select

FLATTEN = torch.ops.aten.flatten.using_ints
RULES = [
    *(rules.Norm(), rules.Epsilon(0.1), rules.Gamma(), rules.Flat(), rules.ZBox(-3, 3), rules.WSquare()),
    *(rules.AlphaBeta(), rules.ZPlus(), rules.AttnLRP(), rules.CPLRP(), rules.Uniform(), rules.Identity()),
    *(rules.HoldStatistics(), rules.Recurrent(), rules.WinnerTakeAll(), rules.Stop(), rules.Gradient()),
]
POOLS = {
    "maximum": nn.MaxPool2d(2),
    "dilated maximum": nn.MaxPool2d(2, dilation=2),
    "adaptive maximum": nn.AdaptiveMaxPool2d(2),
    "average": nn.AvgPool2d(2),
    "adaptive average": nn.AdaptiveAvgPool2d(2),
}


SELECTORS = [select.convolution(), select.activation(), select.pool(), select.dense(), select.op(FLATTEN)]


@pytest.mark.parametrize("pool", POOLS)
def test_a_rule_serves_an_operation_or_refuses_it(pool: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), POOLS[pool], nn.Flatten(), nn.LazyLinear(3)).double().eval()
    x = 2 * torch.rand(2, 3, 7, 7, dtype=torch.float64) - 1
    model(x)
    captured = relprop.LRP(model).session.capturer
    for rule, selector in product(RULES, SELECTORS):
        lrp = relprop.LRP(model, relprop.Composite([(selector, rule)], strict=False))
        lrp.session.capturer = captured
        try:
            lrp.plan(x)
        except RuleError:  # which nothing else but a plan raises in time
            continue
        explanation = lrp.explain(x, 1)
        assert torch.isfinite(explanation.relevance).all()
        if not isinstance(rule, rules.Gradient):
            assert explanation.ledger.residual.abs().max() < 1e-12


class Parts(nn.Module):
    """An operation with several results between two dense layers."""

    def __init__(self, take: Callable[[Tensor], Tensor]):
        super().__init__()
        self.dense, self.take, self.cell = nn.Linear(6, 8), take, nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dense(x)
        if self.take is Tensor.view:
            steps, (_, c) = self.cell(h.view(-1, 2, 4))
            return steps[:, -1] + c[0]
        return self.take(h)


@pytest.mark.parametrize(
    "take",
    [
        lambda h: torch.add(*h.relu().chunk(2, 1)),
        lambda h: h.topk(3, 1).values,
        lambda h: h.view(-1, 2, 4).max(1).values,
        Tensor.view,  # through the LSTM
    ],
    ids=["chunk", "topk", "max", "lstm"],
)
def test_all_that_reaches_a_stopped_operation_with_several_results_is_booked(take: Callable[[Tensor], Tensor]) -> None:
    model, x = Parts(take).double().eval(), torch.randn(2, 6, dtype=torch.float64)
    explanation = relprop.LRP(model, [(~select.dense(), rules.Stop())]).explain(x, 0)
    assert torch.equal(explanation.relevance, torch.zeros_like(x))
    assert set(explanation.ledger.by_reason()) == {"stopped"}
    assert torch.allclose(explanation.ledger.by_reason()["stopped"], model(x)[:, 0].detach(), rtol=1e-12, atol=0)
