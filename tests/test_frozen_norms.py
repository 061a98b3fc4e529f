"""What multiplies and shifts every channel by constants is a batch norm, however it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules

from .models import assert_balanced, assert_same, prepared
from .test_metamorphic import assert_twins
from .test_operations import Of, tensor

RULES = [rules.Gamma(), rules.ZPlus(), rules.AlphaBeta(), rules.Epsilon(0.01)]
POLICIES = ("absorb", "redistribute", "zero")


class Frozen(nn.Module):
    """The map of a batch norm, in one of many ways to write it."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, dims: int, how: Callable[..., Tensor]):
        super().__init__()
        self.norm, self.dims, self.how = norm, dims, how

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm

        def view(v: Tensor) -> Tensor:
            return v.reshape(1, -1, *[1] * self.dims)

        return self.how(x, *map(view, (n.weight, n.bias, n.running_mean, n.running_var)), n.eps)


def torchvision(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    scale = w * (var + eps).rsqrt()
    return x * scale + (b - mean * scale)


SPELLINGS: dict[str, Callable[..., Tensor]] = {
    "torchvision": torchvision,
    "by the deviation": lambda x, w, b, m, v, eps: (x - m) / torch.sqrt(v + eps) * w + b,
    "by its inverse": lambda x, w, b, m, v, eps: w * ((x - m) * torch.pow(v + eps, -0.5)) + b,
    "addcmul": lambda x, w, b, m, v, eps: torch.addcmul(b, (x - m) / (v + eps).sqrt(), w),
    "the other way round": lambda x, w, b, m, v, eps: b - (m - x) / torch.sqrt(v + eps) * w,
    "in place": lambda x, w, b, m, v, eps: x.sub(m).div_((v + eps).sqrt()).mul_(w).add_(b),
    "written out for every place": lambda x, w, b, m, v, eps: (
        (x - m.expand_as(x)) * (w / (v + eps).sqrt()).expand_as(x) + b.expand_as(x)
    ),
    "without a dimension for samples": lambda x, w, b, m, v, eps: torchvision(x, w[0], b[0], m[0], v[0], eps),
    "and back by numbers": lambda x, w, b, m, v, eps: (1 - (3 - torchvision(x, w, b, m, v, eps) * 2 - 2)) / 2,
}


def norm(channels: int, dims: int) -> nn.Module:
    made = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims](channels)
    nn.init.normal_(made.weight)  # also negative
    nn.init.normal_(made.bias)
    made.running_mean.normal_()
    made.running_var.uniform_(0.5, 2)
    return made.double().eval()


def layer(dims: int, ins: int, outs: int, transposed: bool = False) -> nn.Module:
    if not dims:
        return nn.Linear(ins, outs)
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if transposed else (nn.Conv1d, nn.Conv2d)
    return kinds[dims - 1](ins, outs, 3, padding=1)


@pytest.mark.parametrize("how", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("place", ["behind", "behind transposed", "before", "alone"])
@pytest.mark.parametrize("dims", [0, 2])
def test_frozen_norm_is_a_batch_norm(dims: int, place: str, how: Callable[..., Tensor]) -> None:
    n, x = norm(4, dims), torch.randn(2, *(3 if "behind" in place else 4,), *[5] * dims, dtype=torch.float64)

    def network(middle: nn.Module) -> nn.Module:
        torch.manual_seed(1)
        if place == "before":
            return prepared(nn.Sequential(middle, layer(dims, 4, 3), nn.Flatten()))
        if place == "alone":
            return prepared(nn.Sequential(nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5**dims, 2)))
        return prepared(nn.Sequential(layer(dims, 3, 4, place.endswith("transposed")), middle, nn.ReLU(), nn.Flatten()))

    assert_twins(network(n), network(Frozen(n, dims, how)), x, RULES, POLICIES)


def test_normalised_image_is_a_batch_norm_before_a_convolution() -> None:
    """Bounds of z^B are those of what enters the model."""
    mean, std = tensor(0.4, 0.5, 0.6), tensor(0.2, 0.3, 0.25)
    bn = nn.BatchNorm2d(3, eps=0.0, affine=False).double()
    bn.running_mean, bn.running_var = mean, std**2
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, 3, padding=1).double()
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)

    def network(first: nn.Module) -> nn.Module:
        return nn.Sequential(first, conv, nn.ReLU(), nn.Flatten()).eval()

    written = Of(lambda x: (x - mean[:, None, None]) / std[:, None, None])
    assert_twins(network(bn), network(written), x, [rules.ZBox(0.0, 1.0), rules.Gamma()], POLICIES)


def test_numbers() -> None:
    """z = -(x1 - x2) = x2 - x1, then a half and a shift: z+ gives all to x2. Of 2 x - 1, gamma sees what enters."""
    linear = nn.Linear(2, 2, bias=False).double()
    linear.weight.data = tensor([1.0, -1.0], [1.0, -1.0])
    x = tensor([1.0, 3.0])
    for function in (
        lambda x: -linear(x),
        lambda x: linear(x) * -1,
        lambda x: linear(x) / -0.5 * 0.5,
        lambda x: 0 - linear(x),
    ):
        assert_same(relprop.LRP(Of(function), rules.ZPlus(0.0)).attribute(x, 0), tensor([0.0, 2.0]))
    shifted = nn.Linear(2, 2).double()
    shifted.weight.data, shifted.bias.data = 2 * linear.weight.data, tensor(0.0, 0.0)  # (1 - 1) of each
    assert_twins(shifted, Of(lambda x: linear(2 * x - 1)), x, RULES, POLICIES)


def test_bias_that_is_added_on_its_own() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(4, 3).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    for written in (
        Of(lambda x, w, b: torch.nn.functional.linear(x, w) + b, w=linear.weight.data, b=linear.bias.data),
        Of(lambda x, w, b: b + x @ w, w=linear.weight.data.t().contiguous(), b=linear.bias.data),
    ):
        target = [lambda y: y.flatten(1).sum(1)]
        for rule in RULES:
            for policy in POLICIES:
                one, other = (relprop.LRP(m, rule, bias=policy).explain(x, target[0]) for m in (linear, written))
                assert_same(one.relevance, other.relevance)
                assert_balanced(other)


def test_positive_number_changes_no_shares_and_no_weights() -> None:
    """It is left as it is: no copy of the weight is made."""
    linear = nn.Linear(3, 2).double()
    plan = relprop.LRP(Of(lambda x: linear(x) * 0.5)).plan(torch.randn(1, 3, dtype=torch.float64))
    assert [step.kind for step in plan.steps.values()] == ["dense", "product"]


def test_what_depends_on_the_number_of_samples_is_no_channel() -> None:
    """A sample alone has the relevance that it has among others."""
    linear, other = nn.Linear(3, 4).double(), nn.Linear(2, 4).double()
    lrp = relprop.LRP(Of(lambda x: linear(x) + other(x.new_zeros(len(x), 2))), rules.Gamma())
    x = torch.randn(3, 3, dtype=torch.float64)
    assert_same(lrp.attribute(x, 0, micro_batch=1), lrp.attribute(x, 0))


def test_weight_of_another_norm_is_no_batch_norm() -> None:
    """Layer norm by hand, of [B, C]: its scale and shift are the norm's own, as in nn.LayerNorm."""
    own = nn.LayerNorm(4).double()
    nn.init.normal_(own.weight), nn.init.normal_(own.bias)
    head, x = nn.Linear(4, 2).double(), torch.randn(2, 4, dtype=torch.float64)

    def by_hand(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return head(centred / torch.sqrt(variance + own.eps) * own.weight + own.bias)

    assert_twins(
        nn.Sequential(own, head), Of(by_hand), x, RULES[:-1], ("absorb",)
    )  # a bare ε holds in nn.LayerNorm, too
