"""Look-ups that are no embeddings of ids: relevance of a row goes to the value that chose it.

The table's rows are 2 ** n, as in tests/test_ids.py, in two equal parts: relevance of a row is 2 ** n under any rule.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_balanced, assert_same, prepared

EDGES = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)


class Looking(nn.Module):
    """The sum of the rows of a parameter that are looked up in some way."""

    def __init__(self, look: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.look = look
        self.w = nn.Parameter((2.0 ** torch.arange(4, dtype=torch.float64)[:, None]).expand(4, 2) / 2)
        self.register_buffer("edges", EDGES)

    def forward(self, x: Tensor) -> Tensor:
        return self.look(self, x).flatten(1).sum(1)


def scattered(m: Any, i: Tensor, dtype: torch.dtype) -> Tensor:
    hot = torch.zeros(i.shape[0], i.shape[1], 4, dtype=dtype)
    return hot.scatter_(2, i[..., None], 1).to(m.w.dtype) @ m.w


def put(m: Any, i: Tensor) -> Tensor:
    hot = torch.zeros(i.shape[0], 4, dtype=torch.float64)
    hot[torch.arange(i.shape[0])[:, None], i] = 1.0
    return hot @ m.w


IDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "parameter[ids]": lambda m, i: m.w[i],
    "column by column": lambda m, i: m.w.t()[:, i].transpose(0, 1),
    "index_select": lambda m, i: m.w.index_select(0, i.flatten()).view(i.shape[0], 2, 2),
    "gather": lambda m, i: m.w.expand(i.shape[0], 4, 2).gather(1, i[..., None].expand(-1, -1, 2)),
    "take": lambda m, i: 2 * m.w[:, 0].take(i),
    "functional": lambda m, i: F.embedding(i, m.w),
    "normalised table": lambda m, i: (m.w / m.w.sum())[i] * m.w.sum(),
    "one-hot": lambda m, i: F.one_hot(i, 4).to(m.w.dtype) @ m.w,
    "one-hot, linear": lambda m, i: F.linear(F.one_hot(i, 4).to(m.w.dtype), m.w.t()),
    "one-hot by comparison": lambda m, i: (i[..., None] == torch.arange(4)).double() @ m.w,
    "one-hot by hand": lambda m, i: ((i[..., None] == torch.arange(4))[..., None] * m.w).sum(2),
    "one-hot of floats, scattered": lambda m, i: scattered(m, i, torch.float64),
    "one-hot of integers, scattered": lambda m, i: scattered(m, i, torch.int64),
    "rows of the identity": lambda m, i: torch.eye(4, dtype=torch.float64)[i] @ m.w,
}
TOGETHER: dict[str, Callable[[Any, Tensor], Tensor]] = {  # of different ids: one vector for all
    "counted words": lambda m, i: F.one_hot(i, 4).sum(1).to(m.w.dtype) @ m.w,
    "counted vectors": lambda m, i: F.one_hot(i, 4).to(m.w.dtype).sum(1) @ m.w,
    "put": put,
}


@pytest.mark.parametrize("name", [*IDS, *TOGETHER])
def test_looked_up_by_ids(name: str) -> None:
    look, ids = {**IDS, **TOGETHER}[name], torch.tensor([[0, 2], [1, 3], [2, 1]])
    lrp = relprop.LRP(Looking(look), "lrp0" if name in TOGETHER else "auto")
    for bias in ("absorb", "redistribute", "zero"):
        explanation = lrp.using(lrp.session.composite, bias=bias).explain(ids)
        assert_same(explanation.relevance, torch.tensor([[1, 4], [2, 8], [4, 2]]).double())
        assert_balanced(explanation)
    assert_same(torch.cat([lrp.attribute(row[None]) for row in ids]), explanation.relevance)


NUMBERS: dict[str, tuple[Callable[[Any, Tensor], Tensor], Any, Any]] = {
    "cast": (lambda m, x: m.w[x.long()], [[0.0, 2.0], [3.0, 1.0]], [[1, 4], [8, 2]]),
    "a column": (lambda m, x: m.w[x[:, 1].int()], [[0.5, 2.0], [0.5, 1.0]], [[0, 4], [0, 2]]),
    "scaled and rounded": (lambda m, x: m.w[(2 * x).round().clamp(0, 3).long()], [[0.5, 9], [1, -1]], [[2, 8], [4, 1]]),
    "an interval": (lambda m, x: m.w[torch.bucketize(x, m.edges)], [[-2.0, -0.5], [0.5, 7]], [[1, 2], [4, 8]]),
    "one by hand": (lambda m, x: m.w[(x[..., None] > m.edges).sum(-1)], [[-2.0, -0.5], [0.5, 7]], [[1, 2], [4, 8]]),
    "one-hot": (lambda m, x: F.one_hot(x.long(), 4).double() @ m.w, [[0.0, 2.0], [3.0, 1.0]], [[1, 4], [8, 2]]),
    "of two": (lambda m, x: torch.where(x[..., None] > 0, m.w[3], m.w[2]), [[-1.0, 2.0], [3, 1]], [[4, 8], [8, 8]]),
    "the largest": (lambda m, x: m.w[x.argmax(1)], [[0.5, 2.0], [3.0, 1.0]], [[0, 2], [1, 0]]),
    "filled": (lambda m, x: m.w[torch.where(x > 9, 1.0, x).long()], [[0.0, 99.0], [3.0, 1.0]], [[1, 2], [8, 2]]),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_looked_up_by_numbers(name: str) -> None:
    look, x, rows = NUMBERS[name]
    x, rows = (torch.tensor(v, dtype=torch.float64) for v in (x, rows))
    explanation = relprop.LRP(Looking(look)).explain(x)
    assert_same(explanation.relevance, rows)
    assert_balanced(explanation)
    # what the numbers get otherwise is added: here, themselves

    def beside(m: Any, x: Tensor) -> Tensor:
        return look(m, x).flatten(1).sum(1, keepdim=True) + x.sum(1, keepdim=True)

    explanation = relprop.LRP(Looking(beside)).explain(x)
    assert_same(explanation.relevance, rows + x)
    assert_balanced(explanation)
    assert set(explanation.ledger.by_kind()) == set()


def test_a_category_in_a_table_of_numbers() -> None:
    """A network over a column that is a category is that over the rows given from outside."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rows = nn.Embedding(4, 3)
            self.net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(torch.cat([self.rows(x[:, 1].long()), x[:, ::2]], 1))

    model = prepared(Table())
    x = torch.tensor([[0.3, 2.0, -1.0], [0.5, 0.0, 0.7]], dtype=torch.float64)
    for composite in ("epsilon", "epsilon_plus", "epsilon_alpha2_beta1"):
        explanation = relprop.LRP(model, composite).explain(x, target=1)
        inside = torch.cat([model.rows(x[:, 1].long()), x[:, ::2]], 1).detach()
        expected = relprop.LRP(model.net, composite).attribute(inside, target=1)
        assert_same(explanation.relevance[:, 1], expected[:, :3].sum(1))
        assert_same(explanation.relevance[:, ::2], expected[:, 3:])
        assert_balanced(explanation)


@pytest.mark.parametrize(
    "vectors",
    [
        lambda i: F.one_hot(i, 4).double(),
        lambda i: torch.eye(4, dtype=torch.float64)[i],
        lambda i: (i[..., None] == torch.arange(4)).double(),
    ],
)
def test_letters_of_dna(vectors: Callable[[Tensor], Tensor]) -> None:
    """A convolution over one-hot letters: each letter gets what its vector gets, under any rule."""

    class Letters(nn.Module):
        def __init__(self, vectors: Callable[[Tensor], Tensor]):
            super().__init__()
            torch.manual_seed(0)
            self.vectors, self.conv, self.out = vectors, nn.Conv1d(4, 5, 3, padding=1), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.conv(self.vectors(x).transpose(1, 2))).amax(2))

    ids = torch.tensor([[0, 3, 2, 1, 1, 0], [2, 2, 0, 1, 3, 3], [1, 0, 0, 2, 3, 1]])
    model, plain = prepared(Letters(vectors)), prepared(Letters(lambda x: x))
    for composite in ("epsilon", "epsilon_gamma_box", "epsilon_plus_flat"):
        args = {"low": 0.0, "high": 1.0} if composite == "epsilon_gamma_box" else {}
        chosen = getattr(relprop.composites, composite)(**args)
        explanation = relprop.LRP(model, chosen).explain(ids, target=1)
        assert_same(explanation.relevance, relprop.LRP(plain, chosen).attribute(vectors(ids), target=1).sum(2))
        assert_balanced(explanation)


class Factor(nn.Module):
    """Rows as factors of something explained."""

    def __init__(self, rows: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.rows = rows
        self.learned = nn.Parameter(torch.tensor([1.0, 2, 3], dtype=torch.float64))
        self.register_buffer("fixed", torch.tensor([1.0, 2, 3], dtype=torch.float64))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return (x * self.rows(self, ids)).sum(1)


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        (lambda m, i: m.fixed[i], False),  # as the cosines of rotary positions
        (lambda m, i: F.one_hot(i, 3)[..., 1].double(), False),  # as a mask, and as the routing to experts
        (lambda m, i: (i == 2).double(), False),
        (lambda m, i: m.learned[i], True),
    ],
)
def test_fixed_rows_that_scale_are_constants(rows: Callable[[Any, Tensor], Tensor], shared: bool) -> None:
    model, ids = Factor(rows), torch.tensor([[0, 1, 2], [2, 1, 1]])
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    explanation = relprop.LRP(model).explain((x, ids))
    product = (x * rows(model, ids)).detach()
    assert_same(explanation.relevance[0], product / 2 if shared else product)
    assert (explanation.relevance[1] is not None) == shared
    if shared:
        assert_same(explanation.relevance[1], product / 2)
    assert explanation.ledger.residual.abs().max() < 1e-9


def test_rows_times_rows() -> None:
    """A recommendation, <u, v>: user and item get half each, whether the tables are embeddings or parameters."""

    class Recommend(nn.Module):
        def __init__(self, parameters: bool):
            super().__init__()
            torch.manual_seed(0)
            self.parameters_alone, self.u, self.v = parameters, nn.Embedding(4, 3), nn.Embedding(5, 3)

        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            if self.parameters_alone:
                return (self.u.weight[user] * self.v.weight[item]).sum(1)
            return (self.u(user) * self.v(item)).sum(1)

    ids = (torch.tensor([0, 3, 1]), torch.tensor([4, 2, 2]))
    for parameters in (False, True):
        explanation = relprop.LRP(Recommend(parameters).double()).explain(ids)
        for relevance in explanation.relevance:
            assert_same(relevance, explanation.value / 2)
        assert explanation.ledger.residual.abs().max() < 1e-9


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_looked_up_in_programs_and_parts(tmp_path: Path) -> None:
    class Scores(nn.Module):
        def __init__(self, look: Callable[[Any, Tensor], Tensor]):
            super().__init__()
            self.rows = Looking(look)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.rows(x), 3 * self.rows(x)], 1)

    looks = (IDS["one-hot"], IDS["parameter[ids]"], TOGETHER["counted words"])
    ids = torch.tensor([[0, 2], [1, 3], [2, 1], [0, 0], [3, 3]])
    for n, look in enumerate(looks):
        lrp = relprop.LRP(Scores(look), "lrp0")
        expected = 3 * 2.0 ** ids.double()
        assert_same(lrp.attribute(ids, 1, micro_batch=2), expected)
        assert_same(lrp.attribute(ids, 1, checkpoint=True), expected)
        program = torch.export.load(lrp.export(tmp_path / f"{n}.pt2", ids, 1)).module()
        assert_same(program(ids[:3], torch.tensor([1, 1, 1]))[-1], expected[:3])
