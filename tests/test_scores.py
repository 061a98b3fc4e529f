"""A model that ends in a softmax or sigmoid: relevance of a class starts at the score in front of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import targets

from .models import assert_same, cnn, images


class Ending(nn.Module):
    """A network whose scores become probabilities in some way."""

    def __init__(self, end: Callable[[Tensor], Tensor], classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.end = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, classes)), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x))


ENDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(1),
    "log softmax": lambda z: z.log_softmax(-1),
    "log of softmax": lambda z: z.softmax(1).log(),
    "sigmoid": torch.sigmoid,
    "log sigmoid": nn.functional.logsigmoid,
    "softmax, then views": lambda z: z[:, :, None].softmax(1).squeeze(2),
}


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("target", [None, 2, torch.tensor([0, 4])], ids=["predicted", "class", "class of each"])
def test_an_index_explains_the_score(end: str, target: int | Tensor | None) -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()
    model = Ending(ENDINGS[end]).double().eval()
    found = relprop.LRP(model, "epsilon").explain(x, target)
    expected = relprop.LRP(model.body, "epsilon").explain(x, target)
    assert_same(found.relevance, expected.relevance)
    assert_same(found.value, expected.value)
    assert_same(found.output, model(x).detach())
    assert found.ledger.residual.abs().max() < 1e-12
    assert "the score in front of" in str(found.ledger)
    assert "relevance starts at" in str(found.plan)
    assert_same(relprop.LRP(model, "epsilon").attribute(x, target), expected.relevance)


@pytest.mark.parametrize(
    "end",
    [lambda z: z.sigmoid().squeeze(1), lambda z: z.sigmoid()[:, 0], torch.sigmoid],
    ids=["[B]", "[B] cut", "[B, 1]"],
)
def test_one_probability(end: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()
    model = Ending(end, 1).double().eval()
    assert_same(relprop.LRP(model, "lrp0").attribute(x), relprop.LRP(model.body, "lrp0").attribute(x))


def test_a_function_explains_the_probability() -> None:
    """With a first-order expansion of the softmax: p (z - Σ p z) at the scores, by LRP-0 back from them."""
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()
    model = Ending(ENDINGS["softmax"]).double().eval()
    lrp = relprop.LRP(model, "lrp0")
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(y)[:, 2].sum(), y)  # a ReLU network: LRP-0 is gradient x input
    for function in (lambda output: output[:, 2], targets.class_index(2)):
        found = lrp.explain(x, function)
        assert_same(found.relevance, gradient * x)
        assert_same(found.value, model(x)[:, 2].detach())
    both = lrp.attribute(x, [2, targets.class_index(2)])
    assert_same(both[0], relprop.LRP(model.body, "lrp0").attribute(x, 2))
    assert_same(both[1], gradient * x)


def test_auto_explains_a_classifier_that_ends_in_softmax_as_one_that_does_not() -> None:
    body, x = cnn().double().eval(), images(2, 16)
    found = relprop.LRP(nn.Sequential(body, nn.Softmax(1)).eval()).attribute(x, 1)
    assert_same(found, relprop.LRP(body).attribute(x, 1))


def test_a_program_starts_there_too(tmp_path: object) -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()
    model = Ending(ENDINGS["softmax"]).double().eval()
    lrp = relprop.LRP(model, "epsilon")
    path = lrp.export(f"{tmp_path}/explained.pt2", x, 1)
    output, relevance = torch.export.load(path).module()(x, torch.tensor([2, 0]))
    assert_same(output, model(x).detach())
    assert_same(relevance, lrp.attribute(x, torch.tensor([2, 0])))


def test_several_outputs_and_gates_stay_as_they_are() -> None:
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x) * x  # the sigmoid is not the last

    x = torch.tensor([[1.0, -2.0]]).double()
    found = relprop.LRP(Gated()).explain(x, 0)
    assert "the score" not in str(found.ledger)
    assert_same(found.value, nn.functional.silu(x)[:, 0])
