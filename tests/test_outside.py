"""Models that leave what can be followed: for NumPy, for derivatives of themselves, with a new number at every call."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import CaptureError, TargetError

from .models import assert_same

# ---------------------------------------------------------------------------------------------------------------- NumPy


class Part(nn.Module):
    """W x and what NumPy makes of x."""

    def __init__(self, how: str):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(4, 3, bias=False).double(), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "all":
            return self.layer(torch.from_numpy(np.tanh(x.detach().numpy())))
        if self.how == "factor":
            return self.layer(x) * torch.tensor(x.detach().numpy().mean())
        if self.how == "mask":
            return self.layer(x * torch.as_tensor((np.asarray(x.detach()) > 0.5).astype(np.float64)))
        if self.how == "parameters":
            return self.layer(x) + torch.from_numpy(self.layer.weight.detach().numpy().sum(1)) + 0 * float(x.sum() > 0)
        return self.layer(x) + torch.asarray(np.asarray(x.detach()).sum(1, keepdims=True))


x = torch.rand(2, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("how", ["factor", "mask", "summand"])
def test_numpy_parts_are_constants_and_told(how: str) -> None:
    """Gradient x input of W x with what NumPy found held constant; a summand of it is booked as stopped."""
    model = Part(how)
    with pytest.warns(UserWarning, match=r"NumPy.*test_outside\.py:\d+.*counts as a constant"):
        found = (lrp := relprop.LRP(model, "lrp0")).explain(x, 1)
    factor = {"factor": x.mean(), "mask": (x > 0.5).double(), "summand": 1.0}[how]
    assert_same(found.relevance, x * model.layer.weight[1].detach() * factor)
    stopped = {node: v for (reason, node), v in found.ledger.sinks.items() if reason == "stopped"}
    assert_same(sum(stopped.values(), torch.zeros(2).double()), x.sum(1) if how == "summand" else 0 * x[:, 0])
    assert found.ledger.residual.abs().max() < 1e-12
    other = lrp.explain(x + 0.3, 1)  # told once
    assert_same(other.output, model(x + 0.3).detach())


def test_nothing_is_left_without_numpy() -> None:
    with pytest.warns(UserWarning, match="NumPy.*constant"), pytest.raises(TargetError, match="does not depend"):
        relprop.LRP(Part("all"), "lrp0").attribute(x, 1)


def test_parameters_in_numpy_are_constants_anyway() -> None:
    with pytest.warns(UserWarning, match="recorded") as told:
        relprop.LRP(Part("parameters"), "lrp0").attribute(x, 1)
    assert not any("NumPy or lists" in str(w.message) for w in told)


# ---------------------------------------------------------------------------------------------------------- derivatives


class Force(nn.Module):
    """The derivative of an energy."""

    def __init__(self, how: str):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(4, 1).double(), how

    def energy(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh().sum()

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "func":
            return torch.func.vmap(torch.func.grad(self.energy))(x)
        if self.how == "jvp":
            return torch.func.jvp(lambda x: self.layer(x).tanh(), (x,), (torch.ones_like(x),))[1]
        if self.how == "jacobian":
            return torch.autograd.functional.jacobian(self.energy, x)  # type: ignore[no-any-return]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            if self.how == "backward":
                self.energy(x).backward()
                return x.grad  # type: ignore[return-value]
            return torch.autograd.grad(self.energy(x), x)[0]


@pytest.mark.parametrize("how", ["grad", "backward", "func", "jvp", "jacobian"])
def test_models_that_differentiate_themselves(how: str) -> None:
    model = Force(how)
    with pytest.raises(CaptureError, match=r"Force differentiates in its forward.*Explain the function that it"):
        relprop.LRP(model).attribute(x, 0)
    assert all(p.grad is None for p in model.parameters())


# -------------------------------------------------------------------------------------------------------------- numbers


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return self.layer(x) * scale


def test_what_is_kept_for_numbers_that_never_come_back() -> None:
    """Graphs and plans are forgotten together; those in use stay."""
    lrp, graphs = relprop.LRP(Scaled(), "lrp0"), []
    first = lrp.attribute((x, 1.0), 1)
    for i in range(40):
        assert_same(lrp.attribute((x, 2.0 + i), 1)[0], (2.0 + i) * first[0])
        graphs += [weakref.ref(graph) for graph in lrp.session.capturer.graphs[-1:]]
        assert_same(lrp.attribute((x, 1.0), 1)[0], first[0])
    gc.collect()
    assert sum(graph() is not None for graph in graphs) <= lrp.session.capturer.limit
    assert len(lrp.session._plans) <= lrp.session.capturer.limit + 1
