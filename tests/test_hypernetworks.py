"""Layers whose weight, bias or norm parameters are explained, and constants that something explained divides."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop

from .models import assert_balanced, assert_same
from .test_operations import Of, tensor

B, GROWING = tensor(1.0, -2.0, 0.5), torch.linspace(1, 3, 12, dtype=torch.float64)


@pytest.mark.parametrize(
    ("layer", "x", "w"),
    [(F.linear, torch.randn(1, 4), torch.randn(3, 4)), (F.conv2d, torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3))],
    ids=["linear", "convolution"],
)
def test_bias_keeps_its_summand_and_input_and_weight_share_the_rest(layer: Callable, x: Tensor, w: Tensor) -> None:
    """Of W x + b, half of W x each, and b is b's."""
    x, w = x.double(), w.double()[None]
    model = Of(lambda x, w, b: layer(x, w[0], b[0]).flatten(1).sum(1))
    explanation = relprop.LRP(model, "lrp0").explain((x, w, B[None]))
    product = layer(x, w[0])
    rx, rw, rb = explanation.relevance
    assert_same(rx.sum(), product.sum() / 2)
    assert_same(rw.sum(), product.sum() / 2)
    assert_same(rb, B[None] * (product.numel() / 3))
    assert_balanced(explanation)
    with warnings.catch_warnings():  # of an output that is small beside its bias, which is all that is explained here
        warnings.simplefilter("ignore", relprop.RelevanceWarning)
        only = relprop.LRP(model, "gamma").explain((x, w, B[None]), wrt=2)
    assert_same(only.relevance[2], rb)


@pytest.mark.parametrize(
    "norm",
    [
        lambda c, w, b: F.layer_norm(c, (4,), w, b),
        lambda c, w, b: F.rms_norm(c, (4,), w) + b,
        lambda c, w, b: F.group_norm(c.reshape(1, 4, 3), 2, w, b),
        lambda c, w, b: F.instance_norm(c.reshape(1, 4, 3), weight=w, bias=b),
    ],
    ids=["layer", "rms", "group", "instance"],
)
def test_norm_of_a_constant_is_linear_in_weight_and_bias(norm: Callable) -> None:
    """A learned constant in the style of the input: gradient x input."""
    constant, w, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(1, 4).double(), torch.randn(1, 4).double()
    model = Of(lambda w, b, c: (norm(c, w[0], b[0]).flatten() * GROWING).sum().reshape(1), c=constant)
    explanation = relprop.LRP(model, "lrp0").explain((w, b))
    leaves = [v.clone().requires_grad_() for v in (w, b)]
    gradients = torch.autograd.grad(model(*leaves).sum(), leaves)
    for relevance, v, g in zip(explanation.relevance, (w, b), gradients, strict=True):
        assert_same(relevance, v * g)
    assert_balanced(explanation)


@pytest.mark.parametrize("divide", [lambda x, k: k / x, lambda x, k: torch.div(k, x), lambda x, k: k[0] / x])
def test_constant_that_something_explained_divides(divide: Callable) -> None:
    """As of 1 / x: relevance goes to what varies."""
    x, k = tensor([1.0, 2.0, 4.0]), tensor(3.0, -1.0, 2.0)
    explanation = relprop.LRP(Of(lambda x, k: divide(x, k).sum(1), k=k), "lrp0").explain(x)
    assert_same(explanation.relevance, divide(x, k))
    assert_balanced(explanation)


def test_template_sampled_at_explained_places_is_booked() -> None:
    template, x = torch.rand(1, 1, 3, 3, dtype=torch.float64), torch.rand(1, 2, 2, 2, dtype=torch.float64)
    model = Of(
        lambda x, t: F.grid_sample(t, x, align_corners=False).flatten(1).sum(1) + x.flatten(1).sum(1), t=template
    )
    explanation = relprop.LRP(model, "lrp0").explain(x)
    assert_same(explanation.relevance, x)
    assert set(explanation.ledger.by_kind()) == {"stopped"}
    assert_balanced(explanation)


def test_template_sampled_at_explained_places_has_all_of_the_relevance() -> None:
    """Where nothing else is left, zeros would be no answer."""
    template, x = torch.rand(1, 1, 3, 3, dtype=torch.float64), torch.rand(1, 6, dtype=torch.float64)

    def sampled(x: Tensor, t: Tensor) -> Tensor:
        grid = F.affine_grid(x.reshape(-1, 2, 3), (1, 1, 2, 2), align_corners=False)
        return F.grid_sample(t, grid, align_corners=False).flatten(1)

    for name in ("softmax", "sum"):
        model = Of(lambda x, t, name=name: getattr(sampled(x, t), name)(1), t=template)
        with pytest.raises(relprop.TargetError, match="only by way of grid_sampler"):
            relprop.LRP(model, "lrp0").attribute(x)
