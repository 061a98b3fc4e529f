"""Recomputing a network part by part gives the same relevance, and holds less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from benchmarks import memory
from relprop.engine.checkpoint import parts_of

from .models import UNet, assert_same, cnn, images, prepared


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.inner(x))


def encoder() -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), torch.randn(2, 5, 16, dtype=torch.float64)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first = nn.Embedding(20, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.lstm, self.out = nn.LSTM(8, 8, 2, batch_first=True), nn.Sequential(Block(8), Block(8), nn.Linear(8, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.lstm(self.first(self.embed(tokens)))[0].mean(1))


def case(name: str) -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(0)
    if name == "cnn":
        return cnn(), images(3), 1
    if name == "unet":
        return prepared(UNet()), torch.rand(2, 3, 16, 16, dtype=torch.float64), lambda y: y.sum((1, 2, 3))
    if name == "residual":
        model = nn.Sequential(*(Block(6) for _ in range(9)), nn.Linear(6, 4)).double()
        return model.eval(), torch.randn(3, 6, dtype=torch.float64), None
    if name == "transformer":
        model, x = encoder()
        return model.double().eval(), x, lambda y: y[:, 0, 0]
    return Reader().double().eval(), torch.randint(0, 20, (3, 7)), 2


@pytest.mark.parametrize("name", ["cnn", "unet", "residual", "transformer", "lstm"])
@pytest.mark.parametrize("composite", ["lrp0", "epsilon", "epsilon_gamma_box", "epsilon_alpha2_beta1", "auto"])
def test_the_same_relevance_and_the_same_books(name: str, composite: str) -> None:
    model, x, target = case(name)
    if composite == "epsilon_gamma_box":
        composite = relprop.composites.epsilon_gamma_box(-4.0, 4.0)
    lrp = relprop.LRP(model, composite)
    plain, again = (lrp.explain(x, target, checkpoint=c) for c in (False, True))
    assert_same(again.relevance, plain.relevance, 1e-12)
    assert_same(lrp.attribute(x, target, checkpoint=True), plain.relevance, 1e-12)
    assert again.ledger.sinks.keys() == plain.ledger.sinks.keys()
    assert_same(again.ledger.received, plain.ledger.received, 1e-12)
    assert again.ledger.residual.abs().max() < 1e-9 * plain.ledger.seed.abs().max()
    assert len(parts_of(plain.plan)) > 1


def test_several_targets_hidden_relevance_and_masks() -> None:
    model, x, _ = case("residual")
    lrp = relprop.LRP(model, "epsilon")
    options: dict[str, Any] = {"record": ["0.inner.0", "7.inner.2"], "mask": {"4.inner.1": [0, 2, 3]}}
    plain, again = (lrp.explain(x, relprop.targets.several([0, 1, 3]), checkpoint=c, **options) for c in (False, True))
    assert_same(again.relevance, plain.relevance, 1e-12)
    for name in options["record"]:
        assert_same(again.relevances[name], plain.relevances[name], 1e-12)


def test_a_network_four_times_as_deep_takes_about_twice_the_memory() -> None:
    torch.manual_seed(0)
    peaks = {}
    for depth in (16, 64):
        model = nn.Sequential(*(Block(64) for _ in range(depth)), nn.Linear(64, 2)).eval()
        x = torch.randn(512, 64)
        lrp = relprop.LRP(model, "epsilon")
        for checkpoint in (False, True):
            lrp.attribute(x, 0, checkpoint=checkpoint)
            peaks[depth, checkpoint] = memory.peak(
                lambda c=checkpoint, e=lrp, x=x: e.attribute(x, 0, checkpoint=c), x.device
            )
    assert peaks[64, False] > 3 * peaks[16, False]
    assert peaks[64, True] < 2.5 * peaks[16, True]
    assert peaks[64, True] < 0.4 * peaks[64, False]
