"""What has a share in a sum though no relevance goes there: biases, parameters, other inputs, fixed numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relprop

from .models import assert_same
from .test_operations import Of, tensor

# ---------------------------------------------------------------------------------------------------------------------
# A bias depends on parameters alone
# ---------------------------------------------------------------------------------------------------------------------


class Category(nn.Module):
    """A number for each category is added: an effect of the sample, one column wide."""

    def __init__(self) -> None:
        super().__init__()
        self.effect = nn.Embedding.from_pretrained(tensor([1.0], [2.0], [4.0]))

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        return x * 2 + self.effect(category)


@pytest.mark.parametrize(
    ("model", "other", "kind", "amount"),
    [
        (Of(lambda x, other: x * 2 + other), tensor([10.0], [20.0]), "input", [10.0, 20.0]),
        (Of(lambda x, other: other + x * 2), tensor([10.0], [20.0]), "input", [10.0, 20.0]),
        (Of(lambda x, other: x * 2 - other[:, 0, None]), tensor([10.0], [20.0]), "input", [-10.0, -20.0]),
        (Of(lambda x, other: x * 2 + (x * 3).detach()), tensor([0.0], [0.0]), "stopped", [3.0, 9.0]),
        (Of(lambda x, other: x * 2 + (x.sum() * 3).item()), tensor([0.0], [0.0]), "stopped", [12.0, 12.0]),
        (Category(), torch.tensor([2, 0]), "input", [4.0, 1.0]),
    ],
    ids=["input", "input first", "a column", "detached", "as a number", "category"],
)
def test_what_depends_on_the_sample_is_no_bias(model: nn.Module, other: Tensor, kind: str, amount: list[float]) -> None:
    """x has its own share under every policy: 2 x."""
    x = tensor([1.0], [3.0])
    for policy in ("absorb", "redistribute", "zero"):
        explanation = relprop.LRP(model, bias=policy).explain((x, other), wrt=0)
        assert_same(explanation.relevance[0], x * 2)
        assert {k: v.tolist() for k, v in explanation.ledger.by_kind().items()} == {kind: amount}


def test_parameters_of_any_shape_and_numbers_are_biases() -> None:
    """A vector, a vector as a column, a number, a number of places: all the relevance is x's if biases have none."""
    x = tensor([[1.0, 3.0], [2.0, 5.0]])
    for bias in (tensor(1.0, 2.0), tensor([1.0], [2.0]), tensor(3.0)):
        model = Of(lambda x, b: (x + b).sum((1, 2)), b=bias)
        assert_same(relprop.LRP(model).attribute(x), x)
        assert_same(relprop.LRP(model, bias="zero").attribute(x), x + bias)
    by_size = Of(lambda x: (x + x.shape[1]).sum((1, 2)))
    explanation = relprop.LRP(by_size, bias="absorb").explain(x)
    assert {k: v.tolist() for k, v in explanation.ledger.by_kind().items()} == {"bias": [8.0]}
