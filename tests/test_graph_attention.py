"""Attention over the edges of a graph is attention with a mask: the same weights, by edges and as matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_balanced, assert_same, prepared
from .test_operations import Of

NODES, WIDTH, HEADS = 4, 3, 2
SOURCE = torch.tensor([0, 1, 2, 3, 0, 3, 1, 2])
TARGET = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])  # in order, as segments are
LENGTHS = torch.tensor([3, 2, 1, 2])
OFFSETS = torch.tensor([0, 3, 5, 6, 8])
ADJACENT = torch.zeros(NODES, NODES, dtype=torch.bool).index_put((TARGET, SOURCE), torch.tensor(True))


def scatter_add(z: Tensor) -> Tensor:
    index = TARGET[:, None].expand_as(z)
    most = torch.full((NODES, z.shape[1]), -torch.inf, dtype=z.dtype).scatter_reduce(0, index, z, "amax")
    e = (z - most.detach()[TARGET]).exp()
    return e / (torch.zeros_like(most).scatter_add(0, index, e) + 1e-16)[TARGET]


def index_add(z: Tensor) -> Tensor:
    e = torch.exp(z)
    return e / z.new_zeros(NODES, z.shape[1]).index_add(0, TARGET, e).index_select(0, TARGET).clamp_min(1e-16)


def scatter_reduce(z: Tensor) -> Tensor:
    index = TARGET[:, None].repeat(1, z.shape[1])
    e = torch.exp(z - z.amax())
    return e / torch.zeros(NODES, z.shape[1], dtype=z.dtype).scatter_reduce(0, index, e, "sum").gather(0, index)


def index_put(z: Tensor) -> Tensor:
    e = torch.exp(z)
    return e / z.new_zeros(NODES, z.shape[1]).index_put((TARGET,), e, accumulate=True)[TARGET]


def segments(z: Tensor) -> Tensor:
    most = torch.segment_reduce(z, "max", lengths=LENGTHS)
    e = torch.exp(z - most.repeat_interleave(LENGTHS, 0))
    return e / torch.segment_reduce(e, "sum", lengths=LENGTHS).repeat_interleave(LENGTHS, 0)


def between_offsets(z: Tensor) -> Tensor:
    e = torch.exp(z)
    sums = torch.segment_reduce(e, "sum", offsets=OFFSETS)
    return e / sums.repeat_interleave(OFFSETS[1:] - OFFSETS[:-1], 0)


class Edges(nn.Module):
    """Graph attention (Veličković et al. 2018) by edges: scores, softmax over those that enter a node, sum."""

    def __init__(self, softmax: Callable[[Tensor], Tensor]):
        super().__init__()
        self.softmax, self.linear = softmax, nn.Linear(5, HEADS * WIDTH)
        self.a, self.b = (nn.Parameter(torch.randn(HEADS, WIDTH)) for _ in range(2))

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.linear(x).unflatten(-1, (HEADS, WIDTH))
        return h, (h * self.a).sum(-1), (h * self.b).sum(-1)

    def forward(self, x: Tensor) -> Tensor:
        h, source, target = self.scores(x[0])
        weights = self.softmax(F.leaky_relu(source[SOURCE] + target[TARGET], 0.2))
        return torch.zeros_like(h).index_add(0, TARGET, weights[..., None] * h[SOURCE]).tanh()[None]


class Matrices(Edges):
    def forward(self, x: Tensor) -> Tensor:
        h, source, target = self.scores(x[0])
        z = F.leaky_relu(source + target[:, None], 0.2)  # [target, source, head]
        weights = z.masked_fill(~ADJACENT[..., None], -torch.inf).softmax(1)
        return torch.einsum("tsh,shw->thw", weights, h).tanh()[None]


def explained(model: nn.Module, x: Tensor, composite: str) -> Tensor:
    explanation = relprop.LRP(model, composite).explain(x, lambda y: y[:, 0].sum((1, 2)) + y[:, 3, 0, 0])
    assert_balanced(explanation)
    return explanation.relevance


WRITTEN = (scatter_add, index_add, scatter_reduce, index_put, segments, between_offsets)


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "auto"])
@pytest.mark.parametrize("softmax", WRITTEN, ids=lambda f: f.__name__)
def test_softmax_over_groups(softmax: Callable[[Tensor], Tensor], composite: str) -> None:
    model, x = prepared(Edges(softmax)), torch.randn(1, NODES, 5, dtype=torch.float64)
    dense = Matrices(softmax).double()
    dense.load_state_dict(model.state_dict())
    assert_same(model(x), dense(x))
    assert_same(explained(model, x, composite), explained(dense, x, composite))


@pytest.mark.parametrize(
    "divided",
    [
        lambda e: e / e.new_zeros(NODES, HEADS).index_add(0, SOURCE, e)[TARGET],  # the sums of other groups
        lambda e: e / e.new_ones(NODES, HEADS).index_add(0, TARGET, e)[TARGET],  # less than one in all
        lambda e: e / e.new_zeros(NODES, HEADS).index_add(0, TARGET, e + 1)[TARGET],  # sums of something else
    ],
)
def test_other_quotients_stay_what_they_are(divided: Callable[[Tensor], Tensor]) -> None:
    plan = relprop.LRP(Of(lambda z: divided(z[0].exp())[None])).plan(torch.randn(1, len(SOURCE), HEADS).double())
    assert "quotient" in {step.kind for step in plan.steps.values()}


@pytest.mark.parametrize(
    "masked",
    [
        lambda e: e * ADJACENT.double(),
        lambda e: e.masked_fill(~ADJACENT, 0),
        lambda e: torch.where(ADJACENT, e, 0.0),
    ],
)
def test_masks_over_exponentials(masked: Callable[[Tensor], Tensor]) -> None:
    x, w = torch.randn(1, NODES, NODES, dtype=torch.float64), torch.randn(NODES, dtype=torch.float64)

    def written(x: Tensor) -> Tensor:
        e = masked(x.exp())
        return ((e / e.sum(-1, keepdim=True)) @ w).sum(1)

    by_name = Of(lambda x: (x.masked_fill(~ADJACENT, -torch.inf).softmax(-1) @ w).sum(1))
    relevances = [relprop.LRP(m, "attnlrp").explain(x, lambda y: y).relevance for m in (Of(written), by_name)]
    assert_same(*relevances)


# -- PyTorch Geometric ------------------------------------------------------------------------------------------------


def gat(layer: nn.Module, x: Tensor) -> Tensor:
    h = layer.lin(x).unflatten(-1, (HEADS, WIDTH))
    source, target = (h * layer.att_src).sum(-1), (h * layer.att_dst).sum(-1)
    return mixed(F.leaky_relu(source + target[:, None], 0.2), h) + layer.bias


def gatv2(layer: nn.Module, x: Tensor) -> Tensor:
    source, target = (part(x).unflatten(-1, (HEADS, WIDTH)) for part in (layer.lin_l, layer.lin_r))
    return mixed((F.leaky_relu(source + target[:, None], 0.2) * layer.att).sum(-1), source) + layer.bias


def transformer(layer: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (m(x).unflatten(-1, (HEADS, WIDTH)) for m in (layer.lin_query, layer.lin_key, layer.lin_value))
    return mixed(torch.einsum("thw,shw->tsh", q, k) / WIDTH**0.5, v) + layer.lin_skip(x)


def mixed(z: Tensor, v: Tensor) -> Tensor:
    weights = z.masked_fill(~ADJACENT[..., None], -torch.inf).softmax(1)
    return torch.einsum("tsh,shw->thw", weights, v).flatten(1)


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_layers_of_pytorch_geometric(name: str) -> None:
    geometric = pytest.importorskip("torch_geometric.nn", reason="GRAPH ATTENTION OF PyTorch Geometric IS NOT TESTED")
    dense = {"GATConv": gat, "GATv2Conv": gatv2, "TransformerConv": transformer}[name]
    loops = {} if name == "TransformerConv" else {"add_self_loops": False}
    layer, edges = prepared(getattr(geometric, name)(5, WIDTH, HEADS, **loops)), torch.stack([SOURCE, TARGET])
    x = torch.randn(1, NODES, 5, dtype=torch.float64)

    class Model(nn.Module):
        def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]):
            super().__init__()
            self.layer, self.function = layer, function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(self.layer, x[0]).tanh()[None]

    by_edges, by_matrices = Model(lambda layer, x: layer(x, edges)), Model(dense)
    assert_same(by_edges(x), by_matrices(x))
    for composite in ("attnlrp", "cp_lrp", "auto"):
        maps = []
        for model in (by_edges, by_matrices):
            explanation = relprop.LRP(model, composite).explain(x, lambda y: y[:, 0].sum(1))
            assert_balanced(explanation)
            maps.append(explanation.relevance)
        assert_same(*maps)
