"""What has a share in a sum though no relevance goes there: biases, parameters, other inputs, fixed numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_balanced, assert_same
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


# ---------------------------------------------------------------------------------------------------------------------
# Relevance sent as such, through a sigmoid, to places that hold an input or a constant
# ---------------------------------------------------------------------------------------------------------------------

K = torch.tensor([[-1, 0], [3, 7]])
ROWS, TWICE = torch.tensor([1, 0]), torch.tensor([1, 1])
MASK = torch.tensor([[True, False], [True, True]])

PLACING = {
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "pad": lambda x: F.pad(x, (1, 0), value=0.3),
    "im2col": lambda x: F.unfold(x[:, None], 2, padding=1),
    "masked_fill": lambda x: x.masked_fill(MASK, 0.3),
    "masked_fill with a tensor": lambda x: x.masked_fill(MASK, torch.tensor(2)),
    "where, integers": lambda x: torch.where(MASK, x, K),
    "where, numbers": lambda x: torch.where(MASK, 2.5, x),
    "cat, integers": lambda x: torch.cat([K.expand(len(x), 2, 2), x], 1),
    "cat, numbers": lambda x: torch.cat([x, torch.full_like(x, 0.3)], 2),
    "cat, nothing": lambda x: torch.cat([x[:, :0], x, x[:, 1:]], 1),
    "stack": lambda x: torch.stack([x, K.expand_as(x)], 1),
    "block_diag": lambda x: torch.stack([torch.block_diag(*r) for r in x]),
    "index_put": lambda x: x.index_put((torch.zeros_like(ROWS), ROWS), K.to(x)),
    "a place put twice": lambda x: x[0].index_put((TWICE, TWICE), x[0, 0])[None],
    "index_fill twice": lambda x: x.index_fill(1, TWICE, 0.3),
    "index_copy": lambda x: torch.zeros_like(x).index_copy(2, ROWS, x),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, K[:1].abs().expand_as(x[:, :1]), x),
    "scatter a number": lambda x: x.scatter(1, K[:1].abs().expand_as(x[:, :1]), 0.3),
    "slice_scatter": lambda x: torch.ones_like(x).slice_scatter(x[:, :1], 1, 1, 2),
    "select_scatter": lambda x: x.select_scatter(K[1].to(x).expand(len(x), 2), 1, 0),
    "diagonal_scatter": lambda x: torch.ones_like(x).diagonal_scatter(x[..., 0], 0, 1, 2),
    "masked_scatter": lambda x: torch.zeros_like(x).masked_scatter(MASK, x),
    "unpooled": lambda x: F.max_unpool2d(x, K[[1, 0]].abs().expand_as(x), 2),
}


@pytest.mark.parametrize("name", PLACING)
def test_places_that_no_input_fills_keep_their_relevance(name: str) -> None:
    """sigmoid(y) is passed on to y: every value of x gets that of its places, which are known as no two are alike."""
    place, x = PLACING[name], tensor([[0.1, 0.2], [-0.4, 0.5]])
    with torch.no_grad():
        y = place(x).double()
    model = Of(lambda x: torch.sigmoid(place(x)).flatten(1).sum(1))
    explanation = relprop.LRP(model, "lrp0").explain(x)
    by_hand = torch.stack([torch.sigmoid(y[y == v]).sum() for v in x.flatten()]).reshape(x.shape)
    assert_same(explanation.relevance, by_hand)
    assert_balanced(explanation)


def test_what_is_put_onto_a_value_is_added() -> None:
    """x0 + x1 = 4: a quarter and three quarters of sigmoid(4), and not all of it twice."""
    rows = torch.arange(1)
    model = Of(lambda x: torch.sigmoid(x[:, :1].index_put((rows, rows), x[:, 1], accumulate=True)).sum(1))
    explanation = relprop.LRP(model, "lrp0").explain(tensor([1.0, 3.0]))
    assert_same(explanation.relevance, torch.sigmoid(tensor(4.0)) * tensor([0.25, 0.75]))
    assert_balanced(explanation)


def test_complex_numbers_are_put_in_places() -> None:
    """The first modes of a spectrum, written into zeros: (x0 + x1 + x2 + x3) / 4 + (x0 - x2) / 2 at the first place."""

    def low_pass(x: Tensor) -> Tensor:
        f = torch.fft.rfft(x)
        out = torch.zeros_like(f)
        out[:, :2] = f[:, :2]
        return torch.fft.irfft(out, n=4)[:, 0]

    explanation = relprop.LRP(Of(low_pass), "lrp0").explain(tensor([1.0, 2.0, 3.0, 5.0]))
    assert_same(explanation.relevance, tensor([0.75, 0.5, -0.75, 1.25]))
    assert_balanced(explanation)


@pytest.mark.parametrize("constant", [K[0], MASK[0]], ids=["integers", "truths"])
@pytest.mark.parametrize(
    "largest", [torch.maximum, torch.minimum, torch.fmax, lambda x, k: torch.clamp(x, max=k), torch.add]
)
def test_integers_beside_values_have_a_share(largest: Callable[[Tensor, Tensor], Tensor], constant: Tensor) -> None:
    if largest is torch.add:
        expected = tensor([0.5, -2.0])
    else:
        expected = torch.where(largest(tensor(0.5, -2.0), constant) == tensor(0.5, -2.0), tensor(0.5, -2.0), 0)[None]
    explanation = relprop.LRP(Of(lambda x: largest(x, constant).sum(1)), "lrp0").explain(tensor([0.5, -2.0]))
    assert_same(explanation.relevance, expected)
    assert_balanced(explanation)
