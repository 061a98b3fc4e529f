"""BiLRP: pairs of features, written out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import TargetError


def bag(normalise: bool = False) -> nn.Module:
    """A sentence encoder of one layer, without biases: the mean of its tokens' embeddings."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.layer = nn.Embedding(7, 4), nn.Linear(4, 3, bias=False)

        def forward(self, ids: Tensor) -> Tensor:
            phi = self.layer(self.embedding(ids)).relu().mean(1)
            return phi / phi.norm(dim=1, keepdim=True) if normalise else phi

    return Bag().double().eval()


def test_linear_model_by_hand() -> None:
    """φ = W x: R_jk = Σ_m w_mj a_j w_mk b_k, that is a_j (WᵀW)_jk b_k.

    W = [[1, 2], [3, -1]], WᵀW = [[10, -1], [-1, 5]]; a = (1, 2), b = (3, 1):
    R = [[1*10*3, 1*-1*1], [2*-1*3, 2*5*1]] = [[30, -1], [-6, 10]], sum 33.
    φ(a) = (5, 1), φ(b) = (5, 8): 25 + 8 = 33.
    """
    model = nn.Linear(2, 2, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double()
    a, b = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[3.0, 1.0]]).double()
    pairs = relprop.bilrp(relprop.LRP(model, "lrp0"), a, b)
    torch.testing.assert_close(pairs, torch.tensor([[[30.0, -1.0], [-6.0, 10.0]]]).double())


def test_relu_network_by_hand() -> None:
    """A unit that is off on one side leaves no pair: φ = V relu(U x), U = [[1, -1], [1, 1]], V = [[1, 1], [0, 2]].

    a = (2, 1): z = (1, 3), both on, V U = [[2, 0], [2, 2]], so R[φ_1] = (4, 0) and R[φ_2] = (4, 2).
    b = (1, 2): z = (-1, 3), the first off, V U' = [[1, 1], [2, 2]], so R[φ_1] = (1, 2) and R[φ_2] = (2, 4).
    R = (4, 0) ⊗ (1, 2) + (4, 2) ⊗ (2, 4) = [[4 + 8, 8 + 16], [4, 8]], sum 48; φ(a) = (4, 6), φ(b) = (3, 6): 12 + 36.
    """
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    model[0].weight.data = torch.tensor([[1.0, -1.0], [1.0, 1.0]]).double()
    model[2].weight.data = torch.tensor([[1.0, 1.0], [0.0, 2.0]]).double()
    a, b = torch.tensor([[2.0, 1.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    pairs = relprop.bilrp(relprop.LRP(model, "lrp0"), a, b)
    torch.testing.assert_close(pairs, torch.tensor([[[12.0, 24.0], [4.0, 8.0]]]).double())


@pytest.mark.parametrize("normalise", [False, True])
def test_pairs_of_tokens_sum_to_the_similarity(normalise: bool) -> None:
    model, a, b = bag(normalise), torch.randint(7, (3, 5)), torch.randint(7, (3, 2))
    lrp = relprop.LRP(model, "lrp0")
    pairs = relprop.bilrp(lrp, a, b)
    assert pairs.shape == (3, 5, 2)
    torch.testing.assert_close(pairs.sum((1, 2)).double(), (model(a) * model(b)).sum(1).detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(pairs, relprop.bilrp(lrp, b, a).mT)


def test_each_input_runs_once() -> None:
    model = bag()
    lrp = relprop.LRP(model)
    a, b = torch.randint(7, (1, 5)), torch.randint(7, (1, 2))
    relprop.bilrp(lrp, a, b)  # captured
    with torch.profiler.profile() as profile:
        relprop.bilrp(lrp, a, b)
    runs = [event for event in profile.events() if event.name == "aten::embedding"]
    assert len(runs) == 2


def test_reduce_and_wrt() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 5, bias=False)

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.layer(image.flatten(1)) * scale

    lrp = relprop.LRP(Pairs().double(), "lrp0")
    a, b = ({"image": torch.rand(2, 3, 2, 2).double(), "scale": torch.rand(2, 1).double()} for _ in "ab")
    full = relprop.bilrp(lrp, a, b, wrt="image")
    assert full.shape == (2, 3, 2, 2, 3, 2, 2)
    reduced = relprop.bilrp(lrp, a, b, wrt="image", reduce=lambda r: r.sum(1))
    torch.testing.assert_close(reduced, full.sum((1, 4)))
    with pytest.raises(ValueError, match="wrt="):
        relprop.bilrp(lrp, a, b)


def test_what_is_no_pair_of_embeddings() -> None:
    lrp = relprop.LRP(nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="2 samples and b 3"):
        relprop.bilrp(lrp, torch.rand(2, 2).double(), torch.rand(3, 2).double())
    with pytest.raises(TargetError, match="one embedding per sample"):
        relprop.bilrp(lrp, torch.rand(2, 3, 2).double(), torch.rand(2, 3, 2).double())


class Bar:
    """Stands in for tqdm."""

    shown: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, things: list, desc: str, **options: object):
        self.shown.append((desc, len(things)))
        self.things = things

    def __iter__(self) -> Iterator:
        return iter(self.things)


def test_progress_is_shown_where_tqdm_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    lrp, x = relprop.LRP(nn.Linear(3, 5)), torch.rand(2, 1, 3)
    without = relprop.bilrp(lrp, *x, progress=False)
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Bar))
    assert torch.equal(relprop.bilrp(lrp, *x), without)
    assert Bar.shown == [("bilrp: a", 5), ("bilrp: b", 5)]
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert torch.equal(relprop.bilrp(lrp, *x), without)
