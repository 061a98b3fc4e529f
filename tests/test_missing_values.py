"""Values that are NaN because they are missing, and that the model fills: what fills them is the model's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop

from .models import assert_same

FILL = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
HALF = torch.full((4,), 0.5).double()
x = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)).double()
x[0, 1] = x[1, 3] = x[1, 0] = float("nan")


def in_place(x: Tensor, fill: Tensor) -> Tensor:
    x = x.clone()
    x[torch.isnan(x)] = 0.5
    return x


def by_mask(x: Tensor, fill: Tensor) -> Tensor:
    x, missing = x.clone(), torch.isnan(x)
    x[missing] = fill.expand_as(x)[missing]
    return x


WAYS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "where": (lambda x, fill: torch.where(torch.isnan(x), fill, x), FILL),
    "not itself": (lambda x, fill: torch.where(x == x, x, fill), FILL),
    "nan_to_num": (lambda x, fill: torch.nan_to_num(x, nan=0.5), HALF),
    "masked_fill": (lambda x, fill: x.masked_fill(x.isnan(), 0.5), HALF),
    "in place": (in_place, HALF),
    "by mask": (by_mask, FILL),
    "larger": (lambda x, fill: torch.fmax(x, torch.full_like(x, -2.0)), -4 * HALF),
    "smaller": (lambda x, fill: torch.fmin(x, torch.full_like(x, 5.0)), 10 * HALF),
}


class Fills(nn.Module):
    def __init__(self, way: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.way = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double(), way
        self.fill = nn.Parameter(FILL)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.way(x, self.fill))


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "epsilon_plus_flat"])
@pytest.mark.parametrize("name", WAYS)
def test_what_is_missing_has_no_relevance(name: str, composite: str) -> None:
    """The relevance of the filled inputs, but for what was filled: that is booked."""
    way, fill = WAYS[name]
    model, missing = Fills(way), x.isnan()
    found = relprop.LRP(model, composite).explain(x, 1)
    filled = relprop.LRP(model.net, composite).attribute(torch.where(missing, fill, x), 1)
    assert_same(found.relevance, torch.where(missing, 0, filled), 1e-9)
    if name == "by mask":  # values of all samples in one list: their share is told for all together
        assert_same(found.ledger.absorbed.sum() + found.relevance.sum(), found.ledger.seed.sum(), 1e-9)
        return
    kept = sum(
        (v for (reason, _), v in found.ledger.sinks.items() if reason in ("parameter", "constant")),
        torch.zeros(3).double(),
    )
    assert_same(kept, torch.where(missing, filled, 0).sum(1), 1e-9)
    assert found.ledger.residual.abs().max() < 1e-12
