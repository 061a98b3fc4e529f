"""Shorthands, products within a tensor, sampling grids, complex magnitudes, models that change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_balanced, assert_same, images, prepared


class Applied(nn.Module):
    """A linear layer, and a function of its output."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function, self.linear = function, nn.Linear(4, 4)
        self.register_buffer("b", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x), self.b)


# Each is linear in x on the samples below, so that with LRP-0 the input receives the output less the biases' share.
SHORT: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "clip": (lambda x, b: x.clip(-9, 9).sum(1), lambda x, b: x.sum(1)),
    "clamp to tensors": (lambda x, b: torch.clamp(x, -9 * b, 9 * b).sum(1), lambda x, b: x.sum(1)),
    "hstack": (lambda x, b: torch.hstack([x, x]).sum(1), lambda x, b: 2 * x.sum(1)),
    "vstack": (lambda x, b: torch.vstack([x, x])[: len(x)].sum(1), lambda x, b: x.sum(1)),
    "tensordot": (lambda x, b: torch.tensordot(x, b[:, None], 1)[:, 0], lambda x, b: x.sum(1)),
    "inner": (lambda x, b: torch.inner(x, b), lambda x, b: x.sum(1)),
    "diag_embed": (lambda x, b: torch.diag_embed(x).sum((1, 2)), lambda x, b: x.sum(1)),
    "index_copy": (
        lambda x, b: x.index_copy(1, torch.tensor([0]), x[:, 1:2]).sum(1),
        lambda x, b: x[:, 1:].sum(1) + x[:, 1],
    ),
    "nansum": (lambda x, b: x.nansum(1), lambda x, b: x.sum(1)),
}


@pytest.mark.parametrize("name", SHORT)
def test_short_for_other_operations(name: str) -> None:
    short, long = SHORT[name]
    torch.manual_seed(0)
    model, x = prepared(Applied(short)), torch.randn(2, 4, dtype=torch.float64)
    explanation = relprop.LRP(model, "lrp0").explain(x)
    assert_balanced(explanation)
    model.function = long
    assert_same(explanation.relevance, relprop.LRP(model, "lrp0").attribute(x))


def test_product_of_the_values_of_a_tensor() -> None:
    """2 * 3 * 4 = 24: each of three factors gets a third."""
    explanation = relprop.LRP(prepared(Product())).explain(torch.tensor([[2.0, 3.0, 4.0]], dtype=torch.float64))
    assert_same(explanation.relevance, torch.full((1, 3), 8.0, dtype=torch.float64))
    assert_balanced(explanation)


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.prod(1)


class Sampled(nn.Module):
    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, align_corners=False).sum((1, 2, 3))


@pytest.mark.parametrize("wrt", [None, 0])
def test_sampling_is_linear_in_the_image(wrt: int | None) -> None:
    """The grid says where, and gets nothing: the image's relevance is gradient x input, and the whole output."""
    x, grid = images(2, 5), torch.rand(2, 3, 3, 2, dtype=torch.float64) * 2 - 1
    explanation = relprop.LRP(Sampled()).explain((x, grid), wrt=wrt)
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Sampled()(given, grid).sum(), given)
    assert_same(explanation.relevance[0], gradient * x)
    assert_balanced(explanation)


def test_magnitudes_of_a_spectrum() -> None:
    """|z| is homogeneous: gradient x input explains all of it."""

    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(x).abs().sum(1)

    x = torch.randn(2, 8, dtype=torch.float64)
    explanation = relprop.LRP(Spectrum()).explain(x)
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Spectrum()(given).sum(), given)
    assert_same(explanation.relevance, gradient * x)
    assert_balanced(explanation)


def test_leaky_relu_is_exact_in_double_precision() -> None:
    """A slope of 0.2 is not the nearest number in single precision."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.LeakyReLU(0.2), nn.Linear(8, 1, bias=False)).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    assert_same(relprop.LRP(model, "lrp0").attribute(x.detach()), (gradient * x).detach(), 1e-14)


@pytest.mark.parametrize("change", ["module", "option", "bias"])
def test_model_that_changes_after_a_call(change: str) -> None:
    """An exchanged module, another slope, no bias: the next explanation is of the model as it is."""
    torch.manual_seed(0)
    model, x = prepared(nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 2))), torch.randn(2, 4).double()
    lrp = relprop.LRP(model)
    lrp.attribute(x)
    if change == "module":
        model[1] = nn.GELU().eval()
    elif change == "option":
        model[1].negative_slope = 0.5
    else:
        model[0].bias = None
    explanation = lrp.explain(x)
    assert_same(explanation.output, model(x).detach())
    assert_balanced(explanation)


def test_targets_from_numpy() -> None:
    torch.manual_seed(0)
    model, x = prepared(nn.Linear(4, 3)), torch.randn(2, 4).double()
    lrp = relprop.LRP(model)
    assert_same(lrp.attribute(x, np.int64(1)), lrp.attribute(x, 1))
    assert_same(lrp.attribute(x, np.array([2, 0])), lrp.attribute(x, torch.tensor([2, 0])))


# ---------------------------------------------------------------------------------------------- odd inputs and outputs


def test_one_sample_that_is_squeezed_to_a_number() -> None:
    class Regression(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).sum(1, keepdim=True).squeeze()

    x, lrp = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), relprop.LRP(Regression())
    for samples in (2, 1, 2):
        explanation = lrp.explain(x[:samples])
        assert_same(explanation.relevance, 2 * x[:samples])
        assert_same(explanation.value, 2 * x[:samples].sum(1))
        assert explanation.ledger.residual.abs().max() == 0
    with pytest.raises(relprop.TargetError, match=r"out of range|index"):
        lrp.attribute(x[:1], 3)


def test_an_input_without_values() -> None:
    """A modality of which a sample has nothing: [B, 0]."""

    class Two(nn.Module):
        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            return x * 2 + other.sum(1, keepdim=True)

    x, other = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 0)
    found = relprop.LRP(Two(), "lrp0").attribute((x, other), target=1)
    assert_same(found[0][:, 1], 2 * x[:, 1])
    assert found[1].shape == (2, 0)


def test_a_nested_tensor_is_refused_with_the_way_out() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])
    with pytest.raises(relprop.InputError, match=r"input 0 is a nested tensor.*padded batch"):
        relprop.LRP(nn.Linear(3, 2)).attribute(nested, 0)


def test_a_distribution_as_output_is_named_with_the_way_out() -> None:
    class Probabilistic(nn.Module):
        def forward(self, x: Tensor) -> object:
            return torch.distributions.Normal(x[:, :1] * 2, x[:, 1:].exp())

    with pytest.raises(relprop.CaptureError, match=r"Probabilistic returns Normal.*Wrap it.*output\.mean"):
        relprop.LRP(Probabilistic()).attribute(torch.tensor([[1.0, 2.0]]), lambda d: d.mean[:, 0])
