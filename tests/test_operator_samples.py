"""Calls that few models make: those of PyTorch's operator database that were once wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop

from .models import assert_balanced, assert_same
from .test_operations import Of, explained, gradient_times_input, tensor


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_explained_bias_of_a_convolution_of_one_sample_without_a_batch(dims: int, transposed: bool) -> None:
    """The bias of a channel is added at every place of that channel."""
    layer = getattr(F, f"conv{'_transpose' * transposed}{dims}d")
    x, w = torch.rand(2, *[3] * dims, dtype=torch.float64), torch.rand(2, 2, *[2] * dims, dtype=torch.float64)
    b = tensor([1.0, 2.0])
    y = layer(x, w)
    factor = torch.linspace(1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    (relevance,) = explained(Of(lambda b: (layer(x, w, b[0]) * factor).sum()[None]), b)
    assert_same(relevance, b * factor.flatten(1).sum(1))


def test_group_norm_of_no_samples() -> None:
    x = torch.rand(1, 4, dtype=torch.float64)
    model = Of(lambda x: x.sum(1) + F.group_norm(x[:0], 2).sum())
    assert_same(explained(model, x)[0], x)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("initial", [None, 1.5])
def test_segments_that_begin_with_a_number(reduce: str, initial: float | None) -> None:
    """Gradient x input, as all are homogeneous; the number has the rest, in the last segment all of it."""
    x = tensor([3.0, -1.0, 2.0, 4.0])
    lengths = torch.tensor([1, 3] if initial is None else [1, 3, 0])
    model = Of(lambda x: torch.segment_reduce(x[0], reduce, lengths=lengths, initial=initial).sum()[None])
    (relevance,) = explained(model, x)
    (expected,) = gradient_times_input(model, x)
    assert_same(relevance, expected)
    kinds = relprop.LRP(model, "lrp0").explain(x, lambda y: y).ledger.by_kind()
    assert set(kinds) == (set() if initial is None else {"constant"})


@pytest.mark.parametrize("option", [{"padding_idx": 2}, {"scale_grad_by_freq": True}], ids=["padding", "frequency"])
def test_explained_table_of_an_embedding(option: dict[str, object]) -> None:
    """Rows 2, 1, 1 are looked up: what concerns the training of the table changes nothing."""
    table = tensor([[5.0, 6.0], [1.0, -1.0], [3.0, 4.0]])
    model = Of(lambda w: F.embedding(torch.tensor([2, 1, 1]), w[0], **option).sum()[None])
    assert_same(explained(model, table)[0], table * torch.tensor([[[0.0], [2.0], [1.0]]]))


def test_product_of_nothing() -> None:
    """It is 1, a constant; there are no values that could share it, or no products."""
    x = tensor([3.0, -1.0])
    for nothing in (lambda x: x[:, :0].prod(), lambda x: x[:, :0].prod(1).sum(), lambda x: x[:0].prod(1).sum()):
        model = Of(lambda x, nothing=nothing: x.sum(1) + nothing(x))
        assert_same(explained(model, x)[0], x)


class BatchNorm:
    x, mean, variance, weight, bias = (torch.rand(s).double() + 0.5 for s in ((1, 3, 4), (3,), (3,), (3,), (3,)))
    mean = mean / 10
    scale = 1 / (variance + 0.1).sqrt()


@pytest.mark.parametrize("name", ["weight", "bias", "mean"])
def test_explained_vector_of_a_batch_norm(name: str) -> None:
    """y = (x - mean) / σ w + b is linear in each of these; x is a constant here, whose values the outputs are times."""
    n = BatchNorm
    given = {k: getattr(n, k) for k in ("mean", "variance", "weight", "bias")}

    def norm(v: Tensor) -> Tensor:
        return (F.batch_norm(n.x, *{**given, name: v[0]}.values(), eps=0.1) * n.x).sum((1, 2))

    total = n.x.sum((0, 2))
    by_hand = {
        "weight": ((n.x - n.mean[:, None]) * n.x).sum((0, 2)) * n.scale * n.weight,
        "bias": total * n.bias,
        "mean": -total * n.scale * n.weight * n.mean,
    }
    assert_same(explained(Of(norm), given[name][None])[0], by_hand[name][None])


def test_batch_norm_of_explained_input_and_weight() -> None:
    """x w / σ is shared by halves, the mean has its own share: -mean w / σ is a product with a parameter."""
    n = BatchNorm
    model = Of(lambda x, w: F.batch_norm(x, n.mean, n.variance, w[0], n.bias, eps=0.1).sum((1, 2)))
    explanation = relprop.LRP(model, "lrp0").explain((n.x, n.weight[None]), lambda y: y)
    assert_same(explanation.relevance[0], n.x * (n.scale * n.weight)[:, None] / 2)
    normalised = (n.x - n.mean[:, None]) * n.scale[:, None]
    assert_same(explanation.relevance[1], normalised.sum(2) * n.weight / 2)
    assert_balanced(explanation)


def test_batch_norm_whose_variance_alone_is_explained_is_held_constant() -> None:
    n = BatchNorm
    model = Of(lambda v: F.batch_norm(n.x, n.mean, v[0], n.weight, n.bias).sum((1, 2)))
    with pytest.raises(relprop.TargetError, match="held constant"):
        relprop.LRP(model, "lrp0").explain(n.variance[None], lambda y: y)
