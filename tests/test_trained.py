"""Small networks trained here, on real data: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels each.

What a trained network's explanation must show is that the pixels it names matter: once they are taken out, the score of
the explained class falls faster than if the same number of others is taken out ("pixel flipping", Samek et al. 2017).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop

HELD_OUT = 300


@cache
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


class Rows(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 48, batch_first=True)
        self.out = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x[:, 0])[0][:, -1])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@cache
def trained(kind: Any) -> nn.Module:
    torch.manual_seed(0)
    images, labels = digits()
    model = kind()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(8 if kind is cnn else 30):
        for rows in torch.randperm(len(images) - HELD_OUT).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    return model.eval()


def score_without(model: nn.Module, x: Tensor, order: Tensor, target: Tensor) -> float:
    """Mean score of the explained class while a fifth, two fifths, ... of the ink is taken out, in this order."""
    flat, scores = x.flatten(1), []
    for part in (0.2, 0.4, 0.6):
        removed = flat.scatter(1, order[:, : int(part * order.shape[1])], 0.0)
        with torch.no_grad():
            scores.append(model(removed.reshape(x.shape)).gather(1, target[:, None]).mean())
    return float(torch.stack(scores).mean())


@pytest.mark.parametrize("kind", [cnn, Rows], ids=["cnn", "lstm"])
def test_what_a_trained_network_is_said_to_look_at_is_what_it_needs(kind: Any) -> None:
    model = trained(kind)
    images, labels = (part[-HELD_OUT:] for part in digits())
    with torch.no_grad():
        predicted = model(images).argmax(1)
    assert (predicted == labels).float().mean() > 0.8  # they are of other writers: it was .95 and .87

    explanation = relprop.LRP(model).explain(images, target=predicted)
    relevance = explanation.relevance.flatten(1)
    assert (explanation.ledger.residual.abs() <= 1e-4 * explanation.ledger.seed.abs().clamp(min=1)).all()
    torch.manual_seed(1)
    falls = score_without(model, images, relevance.argsort(1, descending=True), predicted)
    random = score_without(model, images, torch.rand_like(relevance).argsort(1), predicted)
    stays = score_without(model, images, relevance.argsort(1), predicted)
    assert falls < random - 2 < stays - 3


def test_another_class_than_the_predicted_one_has_reasons_of_its_own() -> None:
    model = trained(cnn)
    images, labels = (part[-HELD_OUT:] for part in digits())
    threes = images[labels == 3]
    lrp = relprop.LRP(model)
    three, eight = (lrp.attribute(threes, target=c, seed="unit").flatten(1) for c in (3, 8))
    # ink that speaks for an eight rather than for a three: taken out, the eight loses more than the three does
    order = (eight - three).argsort(1, descending=True)
    target = torch.full((len(threes),), 8)
    flat = threes.flatten(1).scatter(1, order[:, :12], 0.0).reshape(threes.shape)
    with torch.no_grad():
        before, after = model(threes), model(flat)
    assert (before - after).gather(1, target[:, None]).mean() > (before - after)[:, 3].mean()
