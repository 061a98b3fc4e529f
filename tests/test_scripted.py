"""TorchScript models: the same relevance as of the model that they were made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop

from .models import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


def pictures() -> nn.Module:
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(4, 4, 2, stride=2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), up, nn.Flatten(1), nn.Linear(784, 3))
    net[1].running_var.uniform_(0.5, 2.0)
    return net.double().eval()


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.LSTM(3, 4, batch_first=True).double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.cell(x)
        return self.head(hidden[:, -1]), hidden


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if bool(x.sum() > 0):  # noqa: SIM108 (TorchScript)
            y = 2 * y
        else:
            y = 3 * y
        return y


images = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1)).double()
MAKERS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "script": lambda m, x: torch.jit.script(m),
    "trace": torch.jit.trace,
    "freeze": lambda m, x: torch.jit.freeze(torch.jit.script(m)),
    "inside": lambda m, x: nn.Sequential(torch.jit.script(m), nn.Identity()),
}


@pytest.mark.filterwarnings("ignore:.*recorded from one real run")
@pytest.mark.parametrize("how", MAKERS)
def test_scripted_pictures(how: str) -> None:
    model = pictures()
    lrp, expected = (relprop.LRP(m, "epsilon_plus") for m in (MAKERS[how](model, images), model))
    for x in (images, torch.cat([images, images[:1] + 1]), images[:1]):
        found, right = lrp.explain(x, 1), expected.explain(x, 1)
        assert_same(found.relevance, right.relevance, 1e-9)
        assert found.ledger.residual.abs().max() < 1e-9


def test_parameters_are_live() -> None:
    model = pictures()
    scripted = torch.jit.script(model)
    lrp = relprop.LRP(scripted, "epsilon_plus")
    lrp.attribute(images, 1)
    with torch.no_grad():
        dict(scripted.named_parameters())["5.weight"].mul_(2).add_(0.1)
    assert_same(lrp.attribute(images, 1), relprop.LRP(model, "epsilon_plus").attribute(images, 1), 1e-9)


def test_several_outputs() -> None:
    x = torch.randn(2, 5, 3).double()
    model = Steps()
    found, expected = (
        relprop.LRP(m, "epsilon").explain(x, lambda y: y[0][:, 1]) for m in (torch.jit.script(model), model)
    )
    assert isinstance(found.output, tuple)
    assert_same(found.relevance, expected.relevance, 1e-9)


def test_branches_take_the_way_of_the_model() -> None:
    """y = 2 W x or 3 W x."""
    model = Branch()
    lrp, x = relprop.LRP(torch.jit.script(model), "lrp0"), torch.rand(2, 4).double()
    with pytest.warns(UserWarning, match="branches or loops that depend on values"):
        positive = lrp.attribute(x, 1)
    assert_same(positive, 2 * x * model.layer.weight[1].detach())
    assert_same(lrp.attribute(-x, 1), 3 * -x * model.layer.weight[1].detach())


def test_names_of_inputs() -> None:
    with pytest.raises(relprop.InputError, match=r"wrt='y' names no tensor input; there are 'x'"):
        relprop.LRP(torch.jit.script(Steps())).attribute(torch.rand(2, 5, 3).double(), lambda y: y[0][:, 1], wrt="y")
