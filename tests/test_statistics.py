"""Norms and deviations: constants where they scale what they come from, explained where they are what is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop

from .models import assert_balanced, assert_same
from .test_operations import Of, tensor

X = tensor([1.0, 5.0, -2.0], [0.5, -1.0, 3.0])


@pytest.mark.parametrize(
    ("degree", "function"),
    [
        (1, lambda x: x.norm(dim=1)),
        (1, lambda x: torch.linalg.vector_norm(x, 1, dim=1)),
        (1, lambda x: x.std(1)),
        (1, lambda x: torch.stack([x.mean(1), x.std(1, correction=0)], 1).sum(1)),
        (1, lambda x: (x[:, :1] - x[:, 1:]).norm(dim=1)),
        (2, lambda x: x.var(1)),
    ],
)
def test_statistic_that_is_the_answer(degree: int, function: Callable[[Tensor], Tensor]) -> None:
    """Homogeneous of this degree: gradient x input, over it (Euler)."""
    explanation = relprop.LRP(Of(function), "lrp0").explain(X)
    y = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(y).sum(), y)
    assert_same(explanation.relevance, X * gradient / degree)
    assert_balanced(explanation)


def test_length_by_hand() -> None:
    assert_same(relprop.LRP(Of(lambda x: x.norm(dim=1))).attribute(tensor([3.0, 4.0])), tensor([1.8, 3.2]))


@pytest.mark.parametrize(
    ("function", "held"),
    [
        (lambda x: F.normalize(x, dim=1)[:, 0], lambda x: (x / x.norm(dim=1, keepdim=True).detach())[:, 0]),
        (
            lambda x: (x * (x.var(1, keepdim=True) + 0.1).rsqrt())[:, 0],
            lambda x: (x * (x.var(1, keepdim=True) + 0.1).rsqrt().detach())[:, 0],
        ),
        (
            lambda x: (x / (x.std(1, keepdim=True) + 0.1))[:, 0],
            lambda x: (x / (x.std(1, keepdim=True) + 0.1).detach())[:, 0],
        ),
    ],
)
def test_statistic_that_scales_is_held_constant(function: Callable, held: Callable) -> None:
    assert_same(relprop.LRP(Of(function), "lrp0").attribute(X), gradient_times_input_of(held))


def gradient_times_input_of(function: Callable[[Tensor], Tensor]) -> Tensor:
    y = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(y).sum(), y)
    return X * gradient
