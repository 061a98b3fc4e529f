"""The ledger keeps an account for every sample, however a model cuts, turns round or joins its batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import relprop

from .models import assert_same


class Cut(nn.Module):
    """A layer with a bias, applied to the batch in pieces."""

    def __init__(self, how: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.layer, x).square()


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "chunks": lambda f, x: torch.cat([f(part) for part in x.chunk(2)]),
    "chunks, last first": lambda f, x: torch.cat([f(part) for part in x.chunk(2)][::-1]).roll(2, 0),
    "rows": lambda f, x: torch.stack([f(row) for row in x]),
    "rows by number": lambda f, x: torch.stack([f(x[i]) for i in (0, 1, 2, 3)]),
    "rows of one": lambda f, x: torch.cat([f(x[i : i + 1]) for i in range(4)]),
    "sizes": lambda f, x: torch.cat([f(part) for part in x.split([1, 3])]),
    "halves": lambda f, x: torch.cat([f(x[:2]), f(x[2:])]),
    "every second": lambda f, x: torch.stack([f(x[::2]), f(x[1::2])], 1).flatten(0, 1),
    "narrow": lambda f, x: torch.cat([f(x.narrow(0, 0, 3)), f(x.narrow(0, 3, 1))]),
    "flip": lambda f, x: f(x.flip(0)).flip(0),
    "roll": lambda f, x: f(x.roll(1, 0)).roll(-1, 0),
    "shuffle": lambda f, x: f(x[torch.tensor([2, 0, 3, 1])])[torch.tensor([1, 3, 0, 2])],
    "unsqueeze": lambda f, x: f(x[None]).squeeze(0),
    "transposed": lambda f, x: f(x.T.T[:, None].transpose(0, 1))[0],
}


@pytest.mark.parametrize("way", WAYS)
def test_pieces_of_a_batch_have_the_accounts_of_the_whole(way: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3).double()
    cut, whole = Cut(WAYS[way]).double(), Cut(lambda f, x: f(x)).double()
    whole.load_state_dict(cut.state_dict())
    found = relprop.LRP(cut, "epsilon").explain(x, target=1)
    expected = relprop.LRP(whole, "epsilon").explain(x, target=1)
    assert_same(found.relevance, expected.relevance)
    assert_same(found.ledger.by_kind()["bias"], expected.ledger.by_kind()["bias"])
    assert_same(found.ledger.received, expected.ledger.received)
    assert not found.ledger.mixed
    assert found.ledger.residual.abs().max() < 1e-12


def test_steps_may_come_before_samples() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0).double().eval()

    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return layer(x).mean(0)

    x = torch.randn(5, 3, 8).double()  # [T, B, F]
    lrp = relprop.LRP(Encoder())
    found = lrp.explain(x, target=1)
    for i in range(3):
        alone = lrp.explain(x[:, i : i + 1].contiguous(), target=1)
        for reason, amount in alone.ledger.by_kind().items():
            assert_same(found.ledger.by_kind()[reason][i : i + 1], amount, 1e-9)
    assert found.ledger.residual.abs().max() < 1e-9


class GraphNetwork(nn.Module):
    """One round of messages, and a sum over the nodes of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.message, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        h = torch.relu(self.node(x))
        h = torch.relu(h + torch.zeros_like(h).index_add(0, edges[1], self.message(h[edges[0]])))
        pooled = h.new_zeros(2, 4).index_add(0, graph, h)
        return self.head(pooled)


def test_nodes_of_several_graphs_have_the_account_of_their_graph() -> None:
    torch.manual_seed(0)
    model = GraphNetwork().double()
    x, graph = torch.randn(5, 3).double(), torch.tensor([0, 0, 0, 1, 1])
    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 0, 4, 3]])
    lrp = relprop.LRP(model, "epsilon")
    found = lrp.explain((x, edges, graph), target=1)
    assert found.ledger.residual.abs().max() < 1e-12
    assert not found.ledger.mixed
    for number in (0, 1):  # the other graph's nodes have no relevance for this one's output
        mine = graph == number
        only = lrp.explain((x, edges, graph), target=lambda y, n=number: y[n : n + 1, 1].expand(1)).relevance[0]
        assert_same(found.relevance[0][mine], only[mine])
        assert_same(found.ledger.received[number], only.sum())


def test_samples_that_are_mixed_are_said_to_be() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    x = torch.tensor([[1.0], [5.0]]).double()  # -2 and 2: each explained by both samples
    found = relprop.LRP(Centred()).explain(x)
    assert found.ledger.mixed
    assert found.ledger.residual.abs().max() < 1e-12
    assert "could not be told apart" in str(found.ledger)
