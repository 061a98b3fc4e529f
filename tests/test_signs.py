"""What is known of signs never changes an answer.

γ, αβ and z⁺ compute half as much where an input cannot be negative, so a wrong belief is a wrong number with balanced
books. Behind a second negation, ``-(-h)``, no sign is believed: that is the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import relprop
from relprop import rules

from .models import assert_same

RULES = [rules.Gamma(0.5), rules.ZPlus(), rules.AlphaBeta(2.0, 1.0)]

pytestmark = pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")  # some of these networks cancel on purpose


class Between(nn.Module):
    """A function between a ReLU and a dense layer."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], in_doubt: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(4, 6).double(), nn.LazyLinear(3).double()
        self.function, self.in_doubt = function, in_doubt
        self.register_buffer("sign", torch.tensor([1, -1, 1, 1, -1, 1]))
        self.register_buffer("scale", torch.tensor([1.0, -1.0, 0.5, 2.0, -2.0, 0.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.enter(x))
        h = self.function(h, self)
        h = h.reshape(len(x), -1)
        return self.leave(torch.neg(torch.neg(h)) if self.in_doubt else h)


def assert_signs_do_not_matter(function: Callable[..., Tensor]) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sure, in_doubt = Between(function), Between(function, in_doubt=True)
    sure(x)
    in_doubt(x)
    in_doubt.load_state_dict(sure.state_dict())
    for rule in RULES:
        found, expected = (relprop.LRP(m, rule).explain(x, 0) for m in (sure, in_doubt))
        assert_same(found.relevance, expected.relevance)
        assert_same(found.ledger.received + found.ledger.absorbed, found.ledger.seed)


@pytest.mark.parametrize(
    "function",
    [
        lambda h, m: h * -2,
        lambda h, m: h * -2.0,
        lambda h, m: h + -1,
        lambda h, m: h - 1,
        lambda h, m: 1 - h,
        lambda h, m: h / -2,
        lambda h, m: torch.add(h, h, alpha=-2),
        lambda h, m: torch.lerp(h, h.flip(1), 2.0),
        lambda h, m: torch.linalg.cross(h[:, :3], h[:, 3:]),
        lambda h, m: h * m.sign,
        lambda h, m: h * m.scale,
        lambda h, m: m.sign + h,
        lambda h, m: h * (m.sign > 0),
        lambda h, m: torch.addcmul(h, h, h, value=-2),
        lambda h, m: torch.where(h > 0.5, h, -1),
        lambda h, m: torch.where(h > 0.5, h, -1.0),
        lambda h, m: h.masked_fill(h > 0.5, -2),
        lambda h, m: F.pad(h, (1, 2), value=-1.0),
        lambda h, m: h.scatter(1, torch.tensor([[0], [2], [5]]), -1),
        lambda h, m: h.index_fill(1, torch.tensor([0, 2]), -1),
        lambda h, m: h.clamp(-1, 0.5),
        lambda h, m: (h - 1).clamp(-0.5, 0.5),
        lambda h, m: F.hardtanh(h - 1),
        lambda h, m: F.threshold(h - 1, -0.5, -0.7),
        lambda h, m: F.elu(h, -1.0),
        lambda h, m: F.leaky_relu(h - 1, -0.1),
        lambda h, m: F.softplus(h, -1),
        lambda h, m: F.interpolate(h.reshape(3, 1, 2, 3), scale_factor=2.0, mode="bicubic"),
        lambda h, m: F.interpolate(h.reshape(3, 1, 2, 3), scale_factor=2.0, mode="bilinear"),
        lambda h, m: torch.fft.rfft(h).real,
        lambda h, m: torch.diff(h),
        lambda h, m: h.cumsum(1),
        lambda h, m: h.kthvalue(2, 1).values,
        lambda h, m: torch.quantile(h, 0.5, 1),
        lambda h, m: F.avg_pool2d(h.reshape(3, 1, 2, 3), 2, 1, divisor_override=-3),
        lambda h, m: (h * -2).sum(1) / h.shape[1],
        lambda h, m: h**3,
        lambda h, m: (h - 1) ** 2,
        lambda h, m: (h - 1) ** 3,
        lambda h, m: 0.5**h,
        lambda h, m: h * (h * 100).to(torch.int8),  # wraps around
        lambda h, m: h * torch.full_like(h, -1),
        lambda h, m: h * h.new_full((6,), -1),
        lambda h, m: h * torch.linspace(-1, 1, 6, dtype=torch.float64),
        lambda h, m: torch.log(h + 0.1),
        lambda h, m: h @ (m.scale.new_ones(6, 2) * -1),
    ],
    ids=range(46),
)
def test_an_operation_with_numbers_of_any_sign(function: Callable[..., Tensor]) -> None:
    assert_signs_do_not_matter(function)


OPERATIONS: dict[str, Callable[[Tensor, float, Tensor], Tensor]] = {
    "times": lambda h, k, s: h * k,
    "plus": lambda h, k, s: h + k,
    "less": lambda h, k, s: h - k,
    "from": lambda h, k, s: k - h,
    "over": lambda h, k, s: h / (k if k else 2),
    "add": lambda h, k, s: torch.add(h, h.flip(1), alpha=k),
    "mixed": lambda h, k, s: torch.lerp(h, h.flip(1), float(k)),
    "where": lambda h, k, s: torch.where(h > 0.3, h, k),
    "filled": lambda h, k, s: h.masked_fill(h > 0.6, k),
    "at least": lambda h, k, s: h.clamp(min=k),
    "at most": lambda h, k, s: h.clamp(max=k),
    "signed": lambda h, k, s: h * s,
    "powers": lambda h, k, s: h.square() * k,
    "running": lambda h, k, s: h.cumsum(1) * 0.5,
    "turned": lambda h, k, s: h.roll(1, 1),
    "relu": lambda h, k, s: F.relu(h),
    "gelu": lambda h, k, s: F.gelu(h),
    "padded": lambda h, k, s: F.pad(h, (1, 0), value=float(k))[:, 1:],
}
NUMBERS = st.sampled_from([-2, -1, 0, 1, 2, -2.0, -0.5, 0.5, 2.0])


@given(steps=st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), NUMBERS), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_random_networks(steps: list[tuple[str, float]]) -> None:
    def function(h: Tensor, m: Between) -> Tensor:
        for name, k in steps:
            h = OPERATIONS[name](h, k, m.sign)
        return h

    assert_signs_do_not_matter(function)


@given(steps=st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(-2, 2)), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_an_integer_is_the_float_that_it_equals(steps: list[tuple[str, int]]) -> None:
    def function(kind: type) -> Callable[[Tensor, Between], Tensor]:
        def apply(h: Tensor, m: Between) -> Tensor:
            for name, k in steps:
                h = OPERATIONS[name](h, kind(k), m.sign.to(torch.float64) if kind is float else m.sign)
            return h

        return apply

    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, broken = Between(function(int)), Between(function(float))
    whole(x)
    broken(x)
    broken.load_state_dict(whole.state_dict())
    for rule in RULES:
        assert_same(*(relprop.LRP(m, rule).attribute(x, 0) for m in (whole, broken)))
