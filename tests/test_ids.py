"""Ids that a model edits before it looks them up: each row's relevance goes to the id that chose it.

The table has one dimension and the row 2 ** n for the id n, and the model sums the rows: the relevance of a row is its
value, whatever the rule, and every number below can be read off.
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
from relprop import InputError

from .models import assert_balanced, assert_same, prepared


class Reader(nn.Module):
    """The sum of the rows that edited ids choose."""

    def __init__(self, edit: Callable[..., Tensor]):
        super().__init__()
        self.edit, self.table = edit, nn.Embedding(32, 1)
        self.table.weight.data = 2.0 ** torch.arange(32, dtype=torch.float64)[:, None]
        self.register_buffer("remap", torch.tensor([3, 0, 2, 1]))

    def forward(self, *ids: Tensor) -> Tensor:
        rows = self.table(self.edit(*ids))
        return rows.flatten(1).sum(1)


def shifted_right(ids: Tensor) -> Tensor:
    """What T5 makes of labels: a start token, and padding in the place of what is ignored."""
    shifted = ids.new_zeros(ids.shape)
    shifted[..., 1:] = ids[..., :-1].clone()
    shifted[..., 0] = 4
    return shifted.masked_fill_(shifted == -100, 0)


def replicated(ids: Tensor) -> Tensor:
    return F.pad(ids[:, None].float(), (1, 1), mode="replicate").long()


def ended(ids: Tensor) -> Tensor:
    """A start that is made of the first id, and an end that is not."""
    return torch.cat([ids[:, :1] * 0 + 3, ids, ids.new_ones(len(ids), 1)], 1)


def started(ids: Tensor) -> Tensor:
    ids = ids.clone()
    ids[:, 0] = 4
    return ids


IDS = [[0, 1, 2], [2, 1, 1]]
ROWS = [[1, 2, 4], [4, 2, 2]]
# edit: ids, relevance of the ids, and what each sample leaves to rows that the model put in itself
EDITS: dict[str, tuple[Callable[[Tensor], Tensor], Any, Any, float]] = {
    # moved
    "as they are": (lambda i: i, IDS, ROWS, 0),
    "rolled": (lambda i: i.roll(1, 1), IDS, ROWS, 0),
    "flipped": (lambda i: i.flip(1), IDS, ROWS, 0),
    "cut": (lambda i: i[:, 1:], IDS, [[0, 2, 4], [0, 2, 2]], 0),
    "transposed": (lambda i: i.t().contiguous().t(), IDS, ROWS, 0),
    "flattened": (lambda i: i.flatten().view(-1, 3), IDS, ROWS, 0),
    "repeated": (lambda i: i.repeat(1, 2), IDS, [[2, 4, 8], [8, 4, 4]], 0),
    "repeated in place": (lambda i: i.repeat_interleave(2, 1), IDS, [[2, 4, 8], [8, 4, 4]], 0),
    "expanded": (lambda i: i[:, None].expand(-1, 3, -1), IDS, [[3, 6, 12], [12, 6, 6]], 0),
    "expanded like another": (lambda i: i[:, :1].expand_as(i), IDS, [[3, 0, 0], [12, 0, 0]], 0),
    "stacked": (lambda i: torch.stack([i, i.flip(1)], 2), IDS, [[2, 4, 8], [8, 4, 4]], 0),
    "split": (lambda i: torch.cat(i.split([1, 2], 1)[::-1], 1), IDS, ROWS, 0),
    "windows": (lambda i: i.unfold(1, 2, 1), IDS, [[1, 4, 4], [4, 4, 2]], 0),
    "picked": (lambda i: i[:, torch.tensor([2, 2, 0])], IDS, [[1, 0, 8], [4, 0, 4]], 0),
    "gathered": (lambda i: i.gather(1, i), IDS, [[1, 2, 4], [0, 4, 2]], 0),  # of [2, 1, 1] the places 2, 1, 1
    "sorted": (lambda i: i.sort(1).values, IDS, ROWS, 0),
    "the largest": (lambda i: i.max(1, keepdim=True).values, IDS, [[0, 0, 4], [4, 0, 0]], 0),
    "the two largest": (lambda i: i.topk(2, 1).values, [[0, 1, 2], [2, 1, 0]], [[0, 2, 4], [4, 2, 0]], 0),
    # computed one by one
    "offset": (lambda i: i + 3, IDS, [[8, 16, 32], [32, 16, 16]], 0),
    "offset by column": (lambda i: i + torch.tensor([0, 3, 6]), IDS, [[1, 16, 256], [4, 16, 128]], 0),
    "negative": (lambda i: torch.where(i < 0, i + 5, i), [[0, 1, -3], [-3, 1, 1]], ROWS, 0),
    "remainder": (lambda i: i % 3, [[3, 4, 5], [2, 1, 7]], ROWS, 0),
    "divided": (lambda i: i // 2, [[0, 3, 4], [5, 2, 3]], ROWS, 0),
    "by floats": (lambda i: (i.float() / 2).floor().long(), [[0, 3, 4], [5, 2, 3]], ROWS, 0),
    "clamped": (lambda i: i.clamp(0, 2), [[-1, 1, 7], [2, 1, 1]], ROWS, 0),
    "at most": (lambda i: torch.minimum(i, torch.tensor(2)), [[0, 1, 7], [2, 1, 1]], ROWS, 0),
    "cast": (lambda i: i.int(), IDS, ROWS, 0),
    "hashed": (lambda i: (i * 7 + 3) % 4, [[3, 0, 1], [1, 3, 0]], [[1, 8, 4], [4, 1, 8]], 0),
    "hashed of itself": (lambda i: i * 3 - 2 * i, IDS, ROWS, 0),
    "another table": (lambda i: torch.tensor([3, 0, 2, 1])[i], IDS, [[8, 1, 4], [4, 1, 1]], 0),
    "unknown": (lambda i: torch.where(i > 9, 2, i), [[0, 1, 99], [99, 1, 1]], ROWS, 0),
    "unknown, filled": (lambda i: i.masked_fill(i > 9, 2), [[0, 1, 99], [99, 1, 1]], ROWS, 0),
    "a question": (lambda i: (i > 0).long(), IDS, [[1, 2, 2], [2, 2, 2]], 0),
    "a question, chosen": (lambda i: torch.where(i > 0, 3, 2), IDS, [[4, 8, 8], [8, 8, 8]], 0),
    # computed of several: equal parts of 2 ** (3 a + b), then of 2 ** (a + b + c)
    "pairs": (lambda i: 3 * i[:, :-1] + i[:, 1:], IDS, [[1, 17, 16], [64, 72, 8]], 0),
    "triples": (lambda i: i.sum(1, keepdim=True), [[1, 1, 1], [2, 0, 1]], [[8 / 3] * 3, [8 / 3] * 3], 0),
    "windows, summed": (lambda i: i.unfold(1, 2, 1).sum(-1), IDS, [[1, 5, 4], [4, 6, 2]], 0),
    "pairs with a start": (lambda i: 3 * F.pad(i, (1, 0))[:, :-1] + i, IDS, [[2, 17, 16], [68, 72, 8]], 0),
    # put in by the model
    "padded": (lambda i: F.pad(i, (1, 0), value=3), IDS, ROWS, 8),
    "padded by its own": (replicated, IDS, [[2, 2, 8], [8, 2, 4]], 0),
    "begun": (lambda i: torch.cat([i.new_full((i.shape[0], 1), 3), i], 1), IDS, ROWS, 8),
    "begun and ended": (ended, IDS, [[9, 2, 4], [12, 2, 2]], 2),
    "first one replaced": (started, IDS, [[0, 2, 4], [0, 2, 2]], 16),
    "column filled": (lambda i: i.index_fill(1, torch.tensor([2]), 4), IDS, [[1, 2, 0], [4, 2, 0]], 16),
    "written over": (lambda i: i.scatter(1, i[:, :1] * 0 + 1, 4), IDS, [[1, 0, 4], [4, 0, 2]], 16),
    "masked at places": (lambda i: i.masked_fill(torch.arange(3) < 1, 4), IDS, [[0, 2, 4], [0, 2, 2]], 16),
    "shifted right": (shifted_right, [[0, 1, 2], [-100, 1, 1]], [[1, 2, 0], [1, 2, 0]], 16),
    "lower triangle": (lambda i: i[:, None].expand(-1, 3, -1).tril(), IDS, [[3, 4, 4], [12, 4, 2]], 3),
}  # fmt: skip
SOME = ["padded", "offset", "negative", "pairs", "sorted", "shifted right", "begun"]
"""Edits of every sort, for what takes long."""


@pytest.mark.parametrize("name", EDITS)
def test_relevance_of_edited_ids(name: str) -> None:
    edit, ids, relevance, models = EDITS[name]
    ids, lrp = torch.tensor(ids), relprop.LRP(Reader(edit))
    for bias in ("absorb", "redistribute", "zero"):
        explanation = lrp.using(bias=bias).explain(ids)
        assert_same(explanation.relevance, torch.tensor(relevance, dtype=torch.float64))
        assert_balanced(explanation)
        kinds = explanation.ledger.by_kind()
        assert set(kinds) == ({"parameter"} if models else set())
        assert_same(kinds.get("parameter", torch.zeros(2)), torch.full((2,), float(models), dtype=torch.float64))


@pytest.mark.parametrize("name", EDITS)
def test_a_batch_of_edited_ids_is_its_samples(name: str) -> None:
    edit, ids, *_ = EDITS[name]
    ids, lrp = torch.tensor(ids), relprop.LRP(Reader(edit))
    assert_same(lrp.attribute(ids), torch.cat([lrp.attribute(row[None]) for row in ids]))


class Network(nn.Module):
    """Attention over the rows of edited ids."""

    def __init__(self, edit: Callable[[Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.edit, self.table = edit, nn.Embedding(32, 8)
        self.layer, self.out = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.layer(self.table(self.edit(ids))).mean(1))


@pytest.mark.parametrize("composite", ["auto", "epsilon", "attnlrp"])
@pytest.mark.parametrize("name", SOME)
def test_edited_inside_is_edited_outside(name: str, composite: str) -> None:
    """The ids that enter the table have the relevance that they have when they are edited before."""
    edit, ids, _, models = EDITS[name]
    ids = torch.tensor(ids)
    inside = prepared(Network(edit))
    outside = prepared(Network(lambda i: i))
    explanation = relprop.LRP(inside, composite).explain(ids, target=1)
    assert_balanced(explanation)
    expected = relprop.LRP(outside, composite).attribute(edit(ids), target=1)
    parameter = explanation.ledger.by_kind().get("parameter", torch.zeros(2, dtype=torch.float64))
    assert_same(explanation.relevance.sum(1) + parameter * bool(models), expected.sum(1))
    if name in ("offset", "negative"):
        assert_same(explanation.relevance, expected)
    if name in ("padded", "begun"):
        assert_same(explanation.relevance, expected[:, 1:])
        assert_same(parameter, expected[:, 0])
    if name == "pairs":
        assert_same(explanation.relevance, (F.pad(expected, (1, 0)) + F.pad(expected, (0, 1))) / 2)


# -- several inputs ---------------------------------------------------------------------------------------------------


def test_ids_of_two_inputs_in_one_sequence() -> None:
    """A question and a text with a separator, 8, between them."""
    lrp = relprop.LRP(Reader(lambda a, b: torch.cat([a, b.new_full((len(b), 1), 3), b], 1)))
    a, b = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[2], [0]])
    explanation = lrp.explain((a, b))
    assert_same(explanation.relevance[0], torch.tensor([[1.0, 2], [2, 2]]).double())
    assert_same(explanation.relevance[1], torch.tensor([[4.0], [1]]).double())
    assert_balanced(explanation)
    assert set(explanation.ledger.inputs) == set(lrp.plan((a, b)).input_names)
    assert_same(explanation.ledger.by_kind()["parameter"], torch.tensor([8.0, 8]).double())

    narrowed = lrp.explain((a, b), wrt=0)  # the other text is an input that keeps its share
    assert narrowed.relevance[1] is None
    assert_same(narrowed.relevance[0], explanation.relevance[0])
    assert_same(narrowed.ledger.by_kind()["input"], torch.tensor([4.0, 1]).double())
    assert narrowed.ledger.residual.abs().max() < 1e-9


def test_ids_that_are_combined_across_inputs() -> None:
    """The row 2 ** (3 a + b) has two owners."""
    a, b = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[2, 0], [0, 1]])
    found = relprop.LRP(Reader(lambda a, b: 3 * a + b)).attribute((a, b))
    assert_same(found[0], torch.tensor([[2.0, 4], [4, 8]]).double())
    assert_same(found[1], found[0])


def test_a_mask_that_is_given_puts_in_a_token_of_the_model() -> None:
    ids, mask = torch.tensor([[0, 1, 2], [2, 1, 1]]), torch.tensor([[0, 0, 1], [1, 0, 0]])
    for given in (mask, mask.bool()):
        explanation = relprop.LRP(Reader(lambda i, m: i.masked_fill(m != 0, 4))).explain((ids, given))
        assert_same(explanation.relevance[0], torch.tensor([[1.0, 2, 0], [0, 2, 2]]).double())
        assert explanation.relevance[1] is None
        assert_same(explanation.ledger.by_kind()["parameter"], torch.tensor([16.0, 16]).double())


def test_ids_without_samples_are_shared() -> None:
    """One row of ids for every sample, beside numbers."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reader = Reader(lambda i: F.pad(i, (1, 0), value=3))

        def forward(self, ids: Tensor, x: Tensor) -> Tensor:
            return self.reader(ids[None].expand(len(x), -1)) + x[:, 0]

    ids, x = torch.tensor([0, 2]), torch.tensor([[0.5], [0.25], [1.0]], dtype=torch.float64)
    explanation = relprop.LRP(Shared()).explain((ids, x))
    assert_same(explanation.relevance[0], torch.tensor([3.0, 12.0]).double())
    assert_same(explanation.relevance[1], x)
    assert_same(explanation.ledger.by_kind()["parameter"], torch.tensor([8.0, 8, 8]).double())
    assert explanation.ledger.residual.abs().max() < 1e-9


# -- what is nobody's -------------------------------------------------------------------------------------------------


class Positions(nn.Module):
    """Words and their places, the places counted as RoBERTa and OPT count them, or from zero."""

    def __init__(self, places: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.places = places
        self.words, self.positions = nn.Embedding(8, 2), nn.Embedding(8, 2)
        for table, base in ((self.words, 2.0), (self.positions, 3.0)):
            table.weight.data = (base ** torch.arange(8, dtype=torch.float64)[:, None]).expand(8, 2) / 2

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.words(ids) + self.positions(self.places(ids, mask))
        return (h * mask[..., None]).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("reason", "places"),
    [
        ("parameter", lambda ids, mask: torch.arange(ids.shape[1])[None]),
        ("stopped", lambda ids, mask: ids.ne(7).long().cumsum(1) * ids.ne(7) - 1),
        ("input", lambda ids, mask: mask.cumsum(1) - 1),
    ],
)
def test_positions_are_nobodys(reason: str, places: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Positions 0, 1, 2 have the rows 1, 3, 9."""
    ids, mask = torch.tensor([[0, 1, 2], [2, 1, 1]]), torch.ones(2, 3, dtype=torch.long)
    explanation = relprop.LRP(Positions(places)).explain((ids, mask))
    assert_same(explanation.relevance[0], torch.tensor(ROWS).double())
    assert explanation.relevance[1] is None
    assert_balanced(explanation)
    assert_same(explanation.ledger.by_kind()[reason], torch.tensor([13.0, 13]).double())


def test_ids_that_a_network_chooses_are_nobodys() -> None:
    """A code book: the row is the network's own choice, 2 ** 1, of scores (x, 3 x)."""

    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.reader = nn.Linear(1, 2, bias=False), Reader(lambda i: i)
            self.score.weight.data = torch.tensor([[1.0], [3.0]]).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.reader(self.score(x).argmax(1)[:, None]) + x[:, 0]

    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    explanation = relprop.LRP(Coded()).explain(x)
    assert_same(explanation.relevance, x)
    assert_same(explanation.ledger.by_kind()["stopped"], torch.tensor([2.0, 2]).double())
    assert_balanced(explanation)


def test_places_picked_by_ids_are_not_the_ids() -> None:
    """The last token's state, found by looking for it: the place receives nothing, the token that is there does."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = Reader(lambda i: i).table

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids)[torch.arange(len(ids)), (ids == 3).int().argmax(1)].sum(1)

    explanation = relprop.LRP(Last()).explain(torch.tensor([[0, 3, 1], [3, 1, 1]]))
    assert_same(explanation.relevance, torch.tensor([[0.0, 8, 0], [8, 0, 0]]).double())
    assert_balanced(explanation)


def test_rows_of_a_table_that_is_explained_are_the_tables() -> None:
    """F.embedding of something explained moves it; who chose the rows receives nothing."""
    table, ids = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64), torch.tensor([[0, 2, 2]])

    class Moved(nn.Module):
        def forward(self, table: Tensor, ids: Tensor) -> Tensor:
            return F.embedding(ids, table).flatten(1).sum(1)

    found = relprop.LRP(Moved()).attribute((table, ids))
    assert_same(found[0], torch.tensor([[1.0], [0], [8]]).double())
    assert found[1] is None


# -- what cannot be followed ------------------------------------------------------------------------------------------


def mixed(ids: Tensor) -> Tensor:
    return (ids @ torch.tensor([[1], [2], [4]])) % 32


def test_ids_that_cannot_be_followed() -> None:
    ids = torch.tensor(IDS)
    with pytest.raises(InputError) as caught:
        relprop.LRP(Reader(mixed)).attribute(ids)
    for word in ("'", "aten.matmul", "aten.embedding", "wrt=", __file__.rpartition("/")[2]):
        assert word in str(caught.value)

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reader = Reader(mixed)

        def forward(self, ids: Tensor, x: Tensor) -> Tensor:
            return self.reader(ids) + x[:, 0]

    lrp, x = relprop.LRP(Beside()), torch.tensor([[0.5], [0.25]], dtype=torch.float64)
    with pytest.raises(InputError, match=r"'ids'.*aten\.matmul"):  # not None, silently
        lrp.attribute((ids, x))
    explanation = lrp.explain((ids, x), wrt="x")
    assert explanation.relevance[0] is None
    assert_same(explanation.relevance[1], x)
    assert explanation.ledger.residual.abs().max() < 1e-9


def test_ids_that_only_count_are_no_tokens() -> None:
    with pytest.raises(InputError, match="nothing to explain"):
        relprop.LRP(Reader(lambda i: i.cumsum(1))).attribute(torch.tensor(IDS))


# -- the other ways to ask --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_edited_ids_in_parts_and_for_several_targets(name: str) -> None:
    edit, ids, *_ = EDITS[name]
    ids = torch.tensor([*ids, *ids, ids[0]])
    lrp = relprop.LRP(prepared(Network(edit)), "epsilon")
    whole = lrp.attribute(ids, target=1)
    assert_same(lrp.attribute(ids, target=1, micro_batch=2), whole)
    assert_same(lrp.attribute(ids, target=1, checkpoint=True), whole)
    several = lrp.attribute(ids, relprop.targets.several([0, 1]))
    assert_same(several[1], whole)
    again = lrp.attribute(ids, target=1, create_graph=True)
    assert_same(again.detach(), whole)
    again.square().sum().backward()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SOME)
def test_edited_ids_as_a_program(name: str, tmp_path: Path) -> None:
    edit, ids, *_ = EDITS[name]
    ids = torch.tensor([*ids, *ids, ids[0]])
    lrp = relprop.LRP(prepared(Network(edit)), "epsilon")
    program = torch.export.load(lrp.export(tmp_path / "ids.pt2", ids, target=1)).module()
    more = torch.cat([ids, ids.flip(0)])[:7]
    _, found = program(more, torch.ones(7, dtype=torch.long))
    assert_same(found, lrp.attribute(more, target=1))
