"""Values that are NaN or infinite and have no say, masked rows and missing numbers: a zero c hands nothing on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_balanced, assert_same, prepared
from .test_operations import Of, tensor

KEEP = torch.tensor([[True, True, False, True]])
FILL = tensor(1.0, 2.0, 3.0)
NAN, INF = float("nan"), float("inf")


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def by_hand(scores: Tensor) -> Tensor:
    e = torch.exp(scores - scores.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


class Attends(nn.Module):
    """Attention of x to itself, pairs of what is not kept masked; then layers, and a sum over what is kept."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.qkv = kind, nn.Linear(3, 9)
        self.after = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        pairs = keep[:, :, None] & keep[:, None, :]
        if self.kind == "fused":
            h = F.scaled_dot_product_attention(q, k, v, pairs)
        else:
            scores = (q @ k.mT).masked_fill(~pairs, -INF)
            h = {"softmax": softmax, "by hand": by_hand}[self.kind](scores) @ v
        return self.after(x + h).masked_fill(~keep[..., None], 0.0).sum(1)


@pytest.mark.parametrize("composite", ["lrp0", "epsilon", "attnlrp", "cp_lrp", relprop.rules.Gamma()], ids=str)
@pytest.mark.parametrize("kind", ["softmax", "by hand", "fused"])
def test_rows_that_are_masked_altogether_have_no_say(kind: str, composite: object) -> None:
    """The same as without what is masked, which gets nothing."""
    model, x = prepared(Attends(kind)), torch.randn(1, 4, 3, dtype=torch.float64)
    lrp = relprop.LRP(model, composite)
    short = lrp.attribute((x[:, KEEP[0]], KEEP[:, KEEP[0]]), 0)[0]
    explanation = lrp.explain((x, KEEP), 0)
    assert_same(explanation.relevance[0][:, KEEP[0]], short)
    assert not explanation.relevance[0][:, ~KEEP[0]].any()
    assert_balanced(explanation)
    for options in ({}, {"checkpoint": True}):
        assert_same(lrp.attribute((x, KEEP), 0, **options)[0], explanation.relevance[0])


FILLING = {
    "where": lambda x: torch.where(torch.isnan(x), 0.5, x),
    "where, learned": lambda x: torch.where(torch.isnan(x), FILL, x),
    "masked_fill": lambda x: x.masked_fill(torch.isnan(x), 0.5),
    "nan_to_num": lambda x: torch.nan_to_num(x, 0.5),
    "scaled before": lambda x: torch.nan_to_num(2 * x + 1, 0.5),
    "an indicator beside": lambda x: torch.cat([torch.nan_to_num(x), torch.isnan(x).to(x)], 1),
    "mean of what is there": lambda x: torch.nansum(x, 1, keepdim=True) / (~torch.isnan(x)).sum(1, keepdim=True),
}


@pytest.mark.parametrize("name", FILLING)
def test_missing_numbers_that_the_model_fills_get_zero(name: str) -> None:
    """Gradient x input elsewhere: all is linear."""
    fill, x = FILLING[name], tensor([2.0, NAN, -1.0], [NAN, 4.0, 0.5])
    model = Of(lambda x: fill(x).sum(1))
    explanation = relprop.LRP(model, "lrp0").explain(x)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(y).sum(), y)
    assert_same(explanation.relevance, (gradient * x).nan_to_num(0.0))
    assert_balanced(explanation)


def test_missing_numbers_that_the_model_does_not_fill_are_named() -> None:
    with pytest.raises(relprop.InputError, match=r"input 0 holds 1 values that are NaN.*\[0, 1\]"):
        relprop.LRP(nn.Linear(3, 2).double()).attribute(tensor([2.0, NAN, -1.0]))


def test_relevance_that_is_not_finite_for_another_reason_is_not_hidden() -> None:
    """No value is NaN: it is the rule that fails, and it says so."""

    @relprop.rule_for(torch.ops.aten.special_i0e.default)
    def broken(call, message):
        return relprop.Message(c=torch.full_like(call.output, NAN))

    try:
        with pytest.warns(relprop.RelevanceWarning, match="not finite"):
            relevance = relprop.LRP(Of(lambda x: torch.special.i0e(x).sum(1))).attribute(tensor([1.0, 2.0]))
    finally:
        del relprop.rules.TABLE[torch.ops.aten.special_i0e.default]
    assert relevance.isnan().all()
