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


LAYERS = {
    "conv1d": lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2, dtype=torch.complex128),
    "conv2d": lambda: nn.Conv2d(2, 3, (3, 2), padding=(1, 0), dilation=(1, 2), dtype=torch.complex128),
    "conv3d": lambda: nn.Conv3d(2, 1, 2, dtype=torch.complex128),
    "same": lambda: nn.Conv1d(2, 3, 2, padding="same", dtype=torch.complex128),
    "conv_transpose1d": lambda: nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, groups=2, dtype=torch.complex128),
    "conv_transpose2d": lambda: nn.ConvTranspose2d(2, 3, 2, stride=2, output_padding=1, dtype=torch.complex128),
}


class Convolved(nn.Module):
    """Σ |z| of a complex convolution: what it hands back to z is sgn(z)."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.complex(x, x.flip(1))).abs().flatten(1).sum(1)


@pytest.mark.parametrize("name", LAYERS)
def test_convolution_goes_back_as_its_matrix_conjugated(name: str) -> None:
    """R_j = Re(conj(a_j) Σ_k conj(w_kj) s_k) with s = z / (|z| + ε), from the matrix of the convolution."""
    layer, epsilon = LAYERS[name](), 0.3
    dims = layer.weight.ndim - 2
    x = torch.randn(2, 2, *[4, 5, 3][:dims], dtype=torch.float64)
    a = torch.complex(x, x.flip(1))
    with torch.no_grad():
        units = torch.eye(a[0].numel(), dtype=a.dtype).unflatten(1, a.shape[1:])
        at_zero = layer(0 * units)
        matrix = (layer(units) - at_zero).flatten(1).mT  # [out, in]
        z = a.flatten(1) @ matrix.mT + at_zero[0].flatten()
        s = z / (z.abs() + epsilon)
        c = (s @ matrix.conj()).unflatten(1, a.shape[1:])
    explanation = relprop.LRP(Convolved(layer), rules.Epsilon(epsilon)).explain(x)
    assert_same(explanation.relevance, x * (c.real + c.imag.flip(1)))
    assert_same(explanation.ledger.by_kind()["bias"], (at_zero[0].flatten().conj() * s).real.sum(1))
    for policy in ("absorb", "zero", "redistribute"):
        for composite in ("lrp0", "auto"):
            assert_balanced(relprop.LRP(Convolved(layer), composite, bias=policy).explain(x))


@pytest.mark.parametrize("rule", [rules.Gamma(), rules.AlphaBeta(), rules.ZPlus(), rules.ZBox(-1, 1), rules.Flat()])
@pytest.mark.parametrize("name", ["conv1d", "dense"])
def test_rules_that_ask_for_signs_refuse_complex_numbers(name: str, rule: rules.Rule) -> None:
    x, dense = torch.randn(1, 2, 5, dtype=torch.float64), nn.Linear(5, 3, dtype=torch.complex128)
    lrp = relprop.LRP(Convolved(LAYERS[name]() if name in LAYERS else dense), rule)
    with pytest.raises(relprop.RuleError, match=r"complex numbers have no sign.*Epsilon and LRP0"):
        lrp.attribute(x)


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
