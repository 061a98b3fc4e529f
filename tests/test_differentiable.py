"""Relevance can be differentiated: with respect to the inputs, and to the parameters, to train on explanations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relprop

from .models import assert_same, cnn, images, mlp, prepared


class Attention(nn.Module):
    """A norm, attention written by hand, a gate: everything whose derivative has a derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.gate, self.out = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        y = torch.softmax(q @ k.mT / 2, -1) @ v
        return self.out(x + y * torch.sigmoid(self.gate(x))).mean(1)


def smooth() -> nn.Module:
    """No ReLU: finite differences cross no kink."""
    return prepared(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))


MODELS = {
    "dense": (smooth, (2, 4)),
    "convolution": (
        lambda: prepared(nn.Sequential(nn.Conv1d(2, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(9, 2))),
        (2, 2, 4),
    ),
    "attention": (lambda: prepared(Attention()), (1, 3, 4)),
    "group norm": (
        lambda: prepared(nn.Sequential(nn.Conv1d(2, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(12, 2))),
        (2, 2, 4),
    ),
    "instance norm": (
        lambda: prepared(
            nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, affine=True), nn.Flatten(), nn.Linear(9, 2))
        ),
        (2, 2, 4),
    ),
    "rms norm": (lambda: prepared(nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 3))), (2, 4)),
    "lstm": (lambda: prepared(nn.Sequential(nn.LSTM(2, 3, batch_first=True), Last())), (2, 3, 2)),
}


class Last(nn.Module):
    def forward(self, x: tuple[Tensor, ...]) -> Tensor:
        return x[0][:, -1]


@pytest.mark.parametrize("composite", ["lrp0", "epsilon", "gamma", "epsilon_plus", "epsilon_alpha2_beta1", "zones"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")
def test_derivative_of_relevance(name: str, composite: str) -> None:
    """Against finite differences, in double precision."""
    make, shape = MODELS[name]
    lrp = relprop.LRP(make(), composite)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: lrp.attribute(x, 1, create_graph=True), x)


@pytest.mark.parametrize("seed", ["output", "unit"])
def test_target_function(seed: str) -> None:
    """Its own derivative depends on the output, and so on the input."""
    lrp = relprop.LRP(smooth(), "epsilon")
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def target(output: Tensor) -> Tensor:
        return output.square().sum(1)

    torch.autograd.gradcheck(lambda x: lrp.attribute(x, target, seed=seed, create_graph=True), x)


def test_derivative_by_a_parameter() -> None:
    """R_j = x_j w_j for one linear neuron under LRP-0: dR_j / dw_j = x_j, also where the weights were used before."""
    model, x = nn.Linear(3, 1, bias=False).double(), torch.tensor([[2.0, -1.0, 3.0]], dtype=torch.float64)
    lrp = relprop.LRP(model, "lrp0")
    lrp.attribute(x)
    (gradient,) = torch.autograd.grad(lrp.attribute(x, create_graph=True).sum(), model.weight)
    assert_same(gradient, x)


def test_row_of_the_padding_has_no_gradient() -> None:
    """As in training: R = Σ_j e_j² w_j for the row e of the other token has the gradient 2 e w."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(3, 2, padding_idx=0), nn.Linear(2, 1, bias=False)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.table(ids).square().sum(1))

    model = prepared(Reader())
    model.table.weight.data[0] = 1.0
    relprop.LRP(model, "lrp0").attribute(torch.tensor([[0, 2]]), create_graph=True).sum().backward()
    row = model.table.weight[2].detach()
    assert_same(model.table.weight.grad, torch.stack([0 * row, 0 * row, 2 * row * model.out.weight[0].detach()]))


def test_through_folded_batch_norm() -> None:
    """The folded weight is part of the graph: the norm's own parameters have gradients, too."""
    model = cnn()
    relprop.LRP(model, "epsilon").attribute(images(), 1, create_graph=True).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for name, p in model.named_parameters() if "fc.bias" not in name
    )


@pytest.mark.parametrize("composite", ["auto", "epsilon_plus", "epsilon_alpha2_beta1"])
def test_same_relevance_with_and_without_a_graph(composite: str) -> None:
    model, x = cnn(), images()
    lrp = relprop.LRP(model, composite)
    plain, graphed = lrp.attribute(x, 1), lrp.attribute(x, 1, create_graph=True)
    assert not plain.requires_grad
    assert graphed.requires_grad
    assert_same(plain, graphed)


def test_training_on_explanations() -> None:
    """A few steps move relevance away from a feature that should not matter."""
    torch.manual_seed(0)
    model, x = mlp(5, 8, 3), torch.randn(32, 5, dtype=torch.float64)
    lrp = relprop.LRP(model, "epsilon")
    optimiser = torch.optim.Adam(model.parameters(), 0.01)

    def share() -> Tensor:
        relevance = lrp.attribute(x, 1, create_graph=True).abs()
        return relevance[:, 0].sum() / relevance.sum()

    before = float(share().detach())
    for _ in range(20):
        optimiser.zero_grad()
        share().backward()
        optimiser.step()
    assert float(share().detach()) < before / 2


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on nested tensors
def test_through_fused_attention() -> None:
    """The fused kernel's gradient has none itself: another kernel runs."""
    torch.manual_seed(0)
    layer = prepared(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation="gelu"))
    lrp = relprop.LRP(layer)
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: lrp.attribute(x, (1, 2), create_graph=True), x)


@pytest.mark.parametrize("where", ["input", "parameters"])
def test_tensors_made_under_inference_mode(where: str) -> None:
    """They have no graph themselves, but do not stand in the way of the others'."""
    model, x = nn.Linear(3, 2).double(), torch.randn(2, 3, dtype=torch.float64)
    with torch.inference_mode():
        if where == "input":
            x = x.clone()
        else:
            model.weight = nn.Parameter(model.weight.clone(), requires_grad=False)
    variable = model.weight if where == "input" else x.requires_grad_()
    relevance = relprop.LRP(model, "lrp0").attribute(x, 0, create_graph=True)
    (gradient,) = torch.autograd.grad(relevance.square().sum(), variable)
    if where == "input":
        expected = torch.stack([2 * (x.clone().square() * model.weight[0].detach()).sum(0), torch.zeros(3).double()])
    else:
        expected = 2 * x.detach() * model.weight[0].clone().square()
    assert_same(gradient, expected)
