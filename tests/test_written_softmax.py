"""Normalised exponentials that are written out are softmax."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import relprop

from .models import assert_balanced, assert_same
from .test_operations import Of


def by_hand(z: Tensor, dim: int = -1) -> Tensor:
    e = torch.exp(z - z.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


@pytest.mark.parametrize(
    "written",
    [
        by_hand,
        lambda z: z.exp() / z.exp().sum(-1, keepdim=True),
        lambda z: (e := z.exp()) / (e.sum(-1, keepdim=True)),
        lambda z: (e := z.exp()) / e.sum(-1).unsqueeze(-1),
    ],
)
def test_softmax_by_hand_is_softmax(written: Callable[[Tensor], Tensor]) -> None:
    x, w = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    functions = (lambda z: z.softmax(-1), written)
    models = [Of(lambda x, f=f: (f(x) @ w).sum(1)) for f in functions]
    explained = [relprop.LRP(model, "attnlrp").explain(x) for model in models]
    assert_same(explained[1].relevance, explained[0].relevance)
    assert_balanced(explained[1])
