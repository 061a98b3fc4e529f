"""torch.autocast around a call has no say in it; within a model it is part of the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InputError

from .models import assert_same, cnn, images


class Adapted(nn.Module):
    """A layer whose weight is a product of parameters, which is computed once and kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.down, self.up = (nn.Parameter(torch.randn(s)) for s in ((4, 6), (2, 6), (4, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight + self.up @ self.down).relu()


class Branches(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) > 0 else -x


def under(dtype: torch.dtype = torch.bfloat16) -> torch.autocast:
    return torch.autocast("cpu", dtype=dtype)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "cnn": lambda: (cnn().float(), images().float()),
    "attention": lambda: (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
        torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)),
    ),
    "adapted": lambda: (Adapted(), torch.rand(3, 6, generator=torch.Generator().manual_seed(0))),
    "recorded": lambda: (Branches(), torch.rand(3, 6, generator=torch.Generator().manual_seed(0))),
}


def target(y: Tensor) -> Tensor:
    return y.flatten(1)[:, 1]


@pytest.mark.parametrize("captured", ["outside", "within"])
@pytest.mark.parametrize("model", MODELS)
def test_same_under_autocast(model: str, captured: str) -> None:
    torch.manual_seed(0)
    net, x = MODELS[model]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = relprop.LRP(net).explain(x, target)
        lrp = relprop.LRP(net)
        if captured == "outside":
            lrp.attribute(x, target)
        with under():
            assert torch.equal(lrp.attribute(x, target), expected.relevance)
            found = lrp.explain(x, target)
            assert torch.is_autocast_enabled("cpu")
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert found.output.dtype == torch.float32
        assert torch.equal(found.output, expected.output)
        assert torch.equal(found.ledger.residual, expected.ledger.residual)
        assert torch.equal(lrp.attribute(x, target), expected.relevance)


def test_parts_pairs_and_programs() -> None:
    net, x = MODELS["adapted"]()
    lrp = relprop.LRP(net)
    pairs, relevance = relprop.bilrp(lrp, x, x), lrp.attribute(x, 1)
    with under():
        lrp = relprop.LRP(net)
        assert torch.equal(relprop.bilrp(lrp, x, x), pairs)
        assert torch.equal(lrp.attribute(x, 1, micro_batch=2), relevance)
        compiled = lrp.compile(x, 1)
        torch.testing.assert_close(compiled.attribute(x, 1), relevance)


def test_inputs_that_only_fit_under_autocast() -> None:
    net, x = MODELS["cnn"]()
    with under():
        net(x.bfloat16())
        with pytest.raises(InputError, match="cannot run on these inputs") as refusal:
            relprop.LRP(net).attribute(x.bfloat16(), 1)
    assert refusal.value.__notes__ == ["torch.autocast is off within the call: the model runs in its own precision."]


class Mixed(nn.Module):
    """The first layer in half precision, the second in single."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with under():
            y = self.a(x).relu()
        with torch.autocast("cpu", enabled=False):
            return self.b(y.float())


def test_autocast_within_the_model_is_part_of_it() -> None:
    model, x = Mixed().eval(), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    explanation = relprop.LRP(model, "lrp0").explain(x, 1)
    assert_same(explanation.output, model(x).detach(), 1e-6)
    assert explanation.relevance.dtype == torch.float32
    model.a.bfloat16()
    half = relprop.LRP(nn.Sequential(model.a, nn.ReLU()), "lrp0").explain(x.bfloat16(), lambda y: y @ model.b.weight[1])
    torch.testing.assert_close(explanation.relevance, half.relevance, rtol=0.03, atol=0.01)
