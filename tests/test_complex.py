"""Complex numbers inside of a network: the relevance of a = x + iy is Re(conj(a) c), that of x and y together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules

from .models import assert_balanced, assert_same, gradient_times_input, prepared
from .test_operations import Of, tensor

TURN = torch.tensor([[1j]], dtype=torch.complex128)


def times_i(x: Tensor, w: Tensor = TURN) -> Tensor:
    return (torch.complex(x[:, :1], x[:, 1:]) @ w).imag[:, 0]


def test_constant_matrix_goes_back_conjugated() -> None:
    """i (3 + 4i) = -4 + 3i: the imaginary part is from x0."""
    explanation = relprop.LRP(Of(times_i), "lrp0").explain(tensor([3.0, 4.0]))
    assert_same(explanation.relevance, tensor([3.0, 0.0]))
    assert_balanced(explanation)


def test_epsilon_is_compared_with_the_size() -> None:
    """|z| = 5, so that 5 / (5 + 5) of the relevance 3 is handed on, and the rest kept by the stabiliser."""
    explanation = relprop.LRP(Of(times_i), rules.Epsilon(5.0)).explain(tensor([3.0, 4.0]))
    assert_same(explanation.relevance.sum(), tensor(1.5)[0])
    assert_same(explanation.ledger.by_kind()["stabiliser"], tensor(1.5))
    assert_balanced(explanation)


@pytest.mark.parametrize("bias", [5j, 2.0, 1 - 2j])
def test_imaginary_part_of_a_bias_is_in_the_books(bias: complex) -> None:
    function = lambda x: (torch.complex(x[:, :1], x[:, 1:]) @ TURN + bias).imag[:, 0]  # noqa: E731
    explanation = relprop.LRP(Of(function), "lrp0").explain(tensor([3.0, 4.0]))
    assert_same(explanation.relevance, tensor([3.0, 0.0]))
    assert_same(explanation.ledger.absorbed, tensor(complex(bias).imag))


class Fourier(nn.Module):
    """A layer of a Fourier neural operator as it is published: some modes times a complex weight, the others zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 4, dtype=torch.complex64))
        self.plain, self.lift, self.head = nn.Conv1d(2, 3, 1), nn.Linear(1, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x[..., None]).mT
        modes = torch.fft.rfft(h)
        out = torch.zeros(len(x), 3, modes.shape[-1], dtype=modes.dtype, device=x.device)
        out[:, :, :4] = torch.einsum("bim,iom->bom", modes[:, :, :4], self.weight)
        return self.head(torch.relu(torch.fft.irfft(out, n=x.shape[-1]) + self.plain(h)).mean(-1))


def test_fourier_neural_operator() -> None:
    """A ReLU network: LRP-0 is gradient x input."""
    model, x = prepared(Fourier()), torch.randn(2, 10, dtype=torch.float64)
    model.weight.data = model.weight.data.to(torch.complex128)
    for composite in ("lrp0", "auto"):
        explanation = relprop.LRP(model, composite).explain(x, 1)
        assert_balanced(explanation)
    assert_same(relprop.LRP(model, "lrp0").attribute(x, 1), gradient_times_input(model, x))
