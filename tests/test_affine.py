"""A layer is one layer however it is written: biases that are added, batch norms that are frozen or written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules

COMPOSITES = {
    "z+": rules.ZPlus(),
    "gamma": rules.Gamma(0.25),
    "alpha-beta": rules.AlphaBeta(2, 1),
    "epsilon": rules.Epsilon(0.1),
    "flat": "epsilon_plus_flat",
}


class Written(nn.Module):
    """A function of an image and of two numbers per channel."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.function = function
        self.w, self.b = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w, self.b)


def image(v: Tensor) -> Tensor:
    return v.view(1, -1, 1, 1)


# what is written, and the scale and shift of the batch norm that it is
WRITTEN: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]] = {
    "product, sum": (lambda x, w, b: x * image(w) + image(b), lambda w, b: (w, b)),
    "difference, quotient, minus": (lambda x, w, b: -((image(b) - x) / image(w)), lambda w, b: (1 / w, -b / w)),
    "addcmul": (lambda x, w, b: torch.addcmul(image(b), x, image(w)), lambda w, b: (w, b)),
    "channels last": (lambda x, w, b: (x.permute(0, 2, 3, 1) * w + b).permute(0, 3, 1, 2), lambda w, b: (w, b)),
}


def places(layer: nn.Module) -> dict[str, nn.Sequential]:
    """Networks in which a layer follows a convolution, precedes one, and stands alone."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
    found = {
        "after": nn.Sequential(first, layer, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        "before": nn.Sequential(first, nn.ReLU(), layer, second, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        "alone": nn.Sequential(first, nn.ReLU(), layer, nn.MaxPool2d(2, 1), second, nn.Flatten(), nn.Linear(36, 3)),
    }
    return {name: net.double().eval() for name, net in found.items()}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("place", ["after", "before", "alone"])
def test_written_batch_norm_is_one(written: str, place: str) -> None:
    """nn.BatchNorm2d with mean 0 and variance 1 is the same map; the ledgers balance."""
    function, parameters = WRITTEN[written]
    torch.manual_seed(1)
    layer, norm = Written(function).double(), nn.BatchNorm2d(4, eps=0.0)
    norm.weight.data, norm.bias.data = parameters(layer.w.data, layer.b.data)
    model, twin, x = places(layer)[place], places(norm)[place], torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for composite in COMPOSITES.values():
        for bias in ("absorb", "redistribute", "zero"):
            explanation = relprop.LRP(model, composite, bias=bias).explain(x, target=1)
            expected = relprop.LRP(twin, composite, bias=bias).attribute(x, target=1)
            torch.testing.assert_close(explanation.relevance, expected, rtol=1e-9, atol=1e-12)
            assert explanation.ledger.residual.abs().max() < 1e-9


BIASED: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "matmul": lambda layer, x: x @ layer.weight.T + layer.bias,
    "linear": lambda layer, x: layer.bias + nn.functional.linear(x, layer.weight),
    "addmm": lambda layer, x: torch.addmm(layer.bias, x.flatten(0, 1), layer.weight.T).unflatten(0, x.shape[:2]),
    "moved": lambda layer, x: ((x @ layer.weight.T).transpose(1, 2) + layer.bias[:, None]).transpose(1, 2),
}


@pytest.mark.parametrize("written", BIASED)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_added_bias_is_the_bias_of_the_layer(written: str, composite: str) -> None:
    class Net(nn.Module):
        def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.first, self.layer, self.out = first, layer, out

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.first(x).relu()).sum(1)

    torch.manual_seed(0)
    layer, out, x = nn.Linear(3, 4).double(), nn.Linear(4, 2).double(), torch.randn(2, 5, 3, dtype=torch.float64)
    rule = COMPOSITES[composite]
    found = relprop.LRP(Net(lambda x: BIASED[written](layer, x)), rule).attribute(x, target=1)
    torch.testing.assert_close(found, relprop.LRP(Net(layer), rule).attribute(x, target=1), rtol=1e-9, atol=1e-12)


def test_scale_alone_turns_the_layer_round() -> None:
    """y = -2 (x1 - x2) with x = (1, 3) is 4, and x2 alone speaks for it under z⁺; so it is for a scale per channel."""
    for scale in (-2.0, torch.tensor([-2.0], dtype=torch.float64)):
        layer = nn.Linear(2, 1, bias=False).double()
        layer.weight.data = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        model = nn.Sequential(layer, Written(lambda x, w, b, scale=scale: x * scale, 1), nn.ReLU()).double()
        found = relprop.LRP(model, rules.ZPlus(0.0)).attribute(torch.tensor([[1.0, 3.0]], dtype=torch.float64))
        torch.testing.assert_close(found, torch.tensor([[0.0, 4.0]], dtype=torch.float64))


def test_parameters_stay_live() -> None:
    """What is folded is computed from the parameters as they are at every call."""
    layer = Written(WRITTEN["channels last"][0])
    model, x = places(layer)["after"], torch.randn(2, 3, 6, 6, dtype=torch.float64)
    lrp = relprop.LRP(model, rules.ZPlus())
    lrp.attribute(x, target=1)
    with torch.no_grad():
        layer.w.neg_()
        layer.b.add_(1)
    torch.testing.assert_close(lrp.attribute(x, target=1), relprop.LRP(model, rules.ZPlus()).attribute(x, target=1))


def test_recorded_relevance_is_as_the_module_has_it() -> None:
    """A module whose channels are last is recorded in its own shape: here the shift is the module's own."""
    model = places(Written(lambda x, w, b: x.permute(0, 2, 3, 1) + b))["after"]
    model[4] = Written(lambda x, w, b: x)
    model[3] = Written(lambda x, w, b: x)
    model[6] = nn.Linear(64, 3).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    explanation = relprop.LRP(model, rules.Epsilon()).explain(x, target=1, record="1")
    assert explanation.relevances["1"].shape == (2, 4, 4, 4)
    assert model[:2](x).shape == (2, 4, 4, 4)


def test_end_of_a_normalisation_stays_one() -> None:
    """A layer norm by hand ends in scale and shift as well: it remains what nn.LayerNorm is."""

    class Net(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.own, self.norm, self.out = own, norm, out

        def forward(self, x: Tensor) -> Tensor:
            if not self.own:
                return self.out(self.norm(x))
            centred = x - x.mean(-1, keepdim=True)
            scaled = centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
            return self.out(scaled * self.norm.weight + self.norm.bias)

    torch.manual_seed(0)
    norm, out = nn.LayerNorm(6).double(), nn.Linear(6, 2).double()
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(3, 6, dtype=torch.float64)
    found, expected = (relprop.LRP(Net(own), rules.Gamma(0.25)).attribute(x, target=0) for own in (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
