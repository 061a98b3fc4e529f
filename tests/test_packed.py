"""Packed sequences: a sample among longer ones is explained as if it were alone and had never been padded."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence, unpack_sequence

import relprop

from . import recurrent_reference as reference
from .test_recurrent import (
    GATES,
    KINDS,
    POLICIES,
    Everything,
    Last,
    assert_balanced,
    assert_close,
    composite,
    everything,
    initial,
    seeds,
)

# Denominators of "prop", and of weights without their biases, come close to zero; it is for the numbers to agree.
pytestmark = pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")

LENGTHS = torch.tensor([2, 5, 1, 5])


class Packed(Everything):
    """A recurrent layer between packing and padding: output, h_n and c_n."""

    def __init__(self, layer: nn.RNNBase, enforce_sorted: bool = False):
        super().__init__(layer)
        self.enforce_sorted = enforce_sorted

    def forward(self, x: Tensor, lengths: Any, *states: Tensor) -> tuple[Tensor, ...]:
        first = self.layer.batch_first
        packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=self.enforce_sorted)
        output, *final = super().forward(packed, *states)
        return (pad_packed_sequence(output, batch_first=first)[0], *final)


def assert_alone(
    layer: nn.RNNBase,
    lengths: Tensor,
    enforce_sorted: bool = False,
    rules: Any = ((0.001, "all"),),
    policies: Any = POLICIES,
) -> None:
    """Every sample of a packed batch against the same sample alone, and against the unrolled equations."""
    batch, steps = len(lengths), int(lengths.max())
    sequence, states = torch.randn(batch, steps, layer.input_size), initial(layer, batch)
    samples_first = (lambda x: x) if layer.batch_first else (lambda x: x.transpose(0, 1))
    x = samples_first(sequence)

    def target(outputs: Any) -> Tensor:
        return everything([samples_first(outputs[0]), *outputs[1:]])

    packed, padded = relprop.LRP(Packed(layer, enforce_sorted)), relprop.LRP(Everything(layer))
    for (epsilon, gates), policy in product(rules, policies):
        rule = composite(epsilon, gates)
        explanation = packed.using(rule, bias=policy).explain((x, lengths, *states), target)
        for ours, theirs in zip(explanation.output, Packed(layer, enforce_sorted)(x, lengths, *states), strict=True):
            torch.testing.assert_close(ours, theirs)
        assert_balanced(explanation)
        received, _, *of_states = explanation.relevance
        for b, length in enumerate(lengths.tolist()):
            own, its = sequence[b : b + 1, :length], [s[:, b : b + 1] for s in states]
            alone = padded.using(rule, bias=policy).attribute((samples_first(own), *its), target)
            ours = [samples_first(received)[b, :length], *(r[:, b] for r in of_states)]
            for part, one in zip(ours, [samples_first(alone[0])[0], *(r[:, 0] for r in alone[1:])], strict=True):
                assert_close(part, one, 1e-10)
            assert not samples_first(received)[b, length:].any()
            chosen = reference.Rules(epsilon, gates, policy)
            result = reference.explain(layer, chosen, own[0], [s[:, 0] for s in its], seeds(everything))
            for part, one in zip(ours, [result.x, *result.states], strict=True):
                assert_close(part, one)


# -- the relevance of a sample does not depend on the others ----------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("lstm", {"num_layers": 2, "proj_size": 2, "bidirectional": True}),
        ("lstm", {"bias": False, "batch_first": True}),
        ("gru", {"num_layers": 2, "bidirectional": True}),
        ("gru", {"bias": False, "batch_first": True}),
        ("rnn", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("rnn", {"nonlinearity": "relu", "bidirectional": True, "bias": False}),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_a_packed_sample_is_explained_as_if_it_were_alone(kind: str, options: dict[str, Any]) -> None:
    assert_alone(KINDS[kind](3, 4, **options), LENGTHS)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_every_variant_of_the_gates_in_a_packed_sequence(kind: str) -> None:
    layer = KINDS[kind](2, 3, batch_first=True, bidirectional=True)
    assert_alone(layer, torch.tensor([1, 3]), rules=list(product((0.0, 0.001), GATES)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("batch_first", [False, True])
def test_sequences_that_are_sorted_already(batch_first: bool) -> None:
    layer = nn.LSTM(3, 4, bidirectional=True, batch_first=batch_first)
    assert_alone(layer, LENGTHS.sort(descending=True)[0], enforce_sorted=True)


@pytest.mark.usefixtures("float64")
@settings(max_examples=5)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
)
def test_any_lengths(kind: str, lengths: list[int], layers: int, bidirectional: bool, batch_first: bool) -> None:
    layer = KINDS[kind](2, 3, layers, batch_first=batch_first, bidirectional=bidirectional)
    assert_alone(layer, torch.tensor(lengths), policies=("absorb", "redistribute"))


# -- how models pack --------------------------------------------------------------------------------------------------


class Reader(Last):
    """A classifier of packed sequences, which forms its answer as ``read`` says."""

    def __init__(self, read: Callable[[Reader, Tensor, Any], Tensor], layer: nn.RNNBase | None = None):
        super().__init__(nn.LSTM(3, 4, batch_first=True) if layer is None else layer)
        self.read, self.score, self.enter, self.drop = read, nn.Linear(4, 1), nn.Linear(3, 3), nn.Dropout()
        self.norm, self.second = nn.LayerNorm(4), nn.GRU(4, 4, batch_first=True)
        self.eval()

    def forward(self, x: Tensor, lengths: Any) -> Tensor:
        return self.head(self.read(self, x, lengths))

    def packed(self, x: Tensor, lengths: Any) -> PackedSequence:
        return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)

    def steps(self, x: Tensor, lengths: Any, **options: Any) -> Tensor:
        """[B, T, 4]"""
        return pad_packed_sequence(self.layer(self.packed(x, lengths))[0], batch_first=True, **options)[0]


def last_state(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    return m.layer(m.packed(x, lengths))[1][0][-1]


def mean_of_steps(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    return m.steps(x, lengths).sum(1) / lengths[:, None]


def largest_step(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    return m.steps(x, lengths, padding_value=-torch.inf).max(1)[0]


def picked_step(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    return m.steps(x, lengths)[torch.arange(len(x)), lengths - 1]


def attention(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    steps = m.steps(x, lengths)
    beyond = torch.arange(steps.shape[1]) >= lengths[:, None]
    weights = m.score(steps).squeeze(-1).masked_fill(beyond, -torch.inf).softmax(1)
    return (weights[:, None] @ steps).squeeze(1)


def as_long_as_the_batch(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    return m.steps(x, lengths, total_length=x.shape[1]).sum(1)


def work_on_the_packed_data(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    entered = m.packed(x, lengths)
    entered = PackedSequence(
        torch.relu(m.enter(entered.data)), entered.batch_sizes, entered.sorted_indices, entered.unsorted_indices
    )
    between = m.layer(entered)[0]
    return m.second(between._replace(data=m.norm(m.drop(between.data))))[1][-1]


def sorted_by_hand(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    lengths, order = lengths.sort(descending=True)
    state = m.layer(pack_padded_sequence(x[order], lengths, batch_first=True))[1][0][-1]
    return state[order.argsort()]


def taken_apart(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    return torch.stack([steps.mean(0) for steps in unpack_sequence(m.layer(m.packed(x, lengths))[0])])


def packed_twice(m: Reader, x: Tensor, lengths: Tensor) -> Tensor:
    """An encoder's state is the decoder's initial one, and what comes in has an order of its own."""
    state = m.layer(m.packed(x, lengths))[1][0]
    steps = m.layer(m.packed(x, lengths))[0]
    again = pad_packed_sequence(steps, batch_first=True)[0]
    return m.second(m.packed(again, lengths.flip(0)), state)[1][-1]


READERS = [last_state, mean_of_steps, largest_step, picked_step, attention, as_long_as_the_batch]
READERS += [work_on_the_packed_data, sorted_by_hand, taken_apart]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("read", READERS, ids=lambda f: f.__name__)
def test_a_reader_of_packed_sequences(read: Any) -> None:
    """One capture serves all lengths, every sample's books balance, and no sample knows of another."""
    model, x = Reader(read), torch.randn(4, 5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # that it is recorded from a real run
        absorbing = relprop.LRP(model)
        for lrp in (absorbing, absorbing.using(bias="redistribute")):
            for lengths in (LENGTHS, torch.tensor([1, 1, 3, 2]), torch.tensor([5, 4, 3, 2])):
                explanation = lrp.explain((x, lengths), 0)
                torch.testing.assert_close(explanation.output, model(x, lengths))
                assert_balanced(explanation)
                assert not explanation.relevance[0][torch.arange(5) >= lengths[:, None]].any()
            assert len(_graphs(lrp)) == 1
        for b, length in enumerate(lengths):
            alone = lrp.attribute((x[b : b + 1, :length], lengths[b : b + 1]), 0)[0]
            assert_close(explanation.relevance[0][b, :length], alone[0])


def _graphs(lrp: relprop.LRP) -> list[Any]:
    return [capture.graph for captures in lrp._capturer._captures.values() for capture in captures]


@pytest.mark.usefixtures("float64")
def test_books_balance_where_sequences_are_packed_twice_in_different_orders() -> None:
    model, x = Reader(packed_twice), torch.randn(4, 5, 3)
    explanation = relprop.LRP(model, bias="redistribute").explain((x, LENGTHS), 0)
    torch.testing.assert_close(explanation.output, model(x, LENGTHS))
    assert_balanced(explanation)


@pytest.mark.usefixtures("float64")
def test_lengths_from_a_mask_or_written_down() -> None:
    """Counted in forward they follow the input; a list is a constant of the model."""
    x = torch.randn(4, 5, 3) * (torch.arange(5) < LENGTHS[:, None])[..., None]
    counted = Reader(lambda m, x, _: last_state(m, x, (x != 0).any(2).sum(1).cpu()))
    written = Reader(lambda m, x, _: last_state(m, x, LENGTHS.tolist()))
    given = Reader(last_state)
    for model in (counted, written):
        model.load_state_dict(given.state_dict())
    want = relprop.LRP(given).attribute((x, LENGTHS), 0)[0]
    lrp = relprop.LRP(counted)
    assert_close(lrp.attribute((x, LENGTHS), 0)[0], want)
    assert_close(lrp.attribute((x[:, :2], LENGTHS), 0)[0][2], want[2, :2])
    assert_close(relprop.LRP(written).attribute((x, LENGTHS), 0)[0], want)
    assert_close(relprop.LRP(given).attribute((x, LENGTHS.tolist()), 0)[0], want)


@pytest.mark.usefixtures("float64")
def test_tokens_of_packed_sentences() -> None:
    embedding, inner = nn.Embedding(7, 3), Reader(last_state)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.inner = embedding, inner

        def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            return self.inner(self.embedding(tokens), lengths)

    tokens = torch.randint(7, (4, 5))
    explanation = relprop.LRP(Tokens()).explain((tokens, LENGTHS), 0)
    inside = relprop.LRP(inner).attribute((embedding(tokens).detach(), LENGTHS), 0)[0]
    assert_close(explanation.relevance[0], inside.sum(2))
    assert_balanced(explanation)


class Sentences(Last):
    """Takes sequences as a list."""

    def forward(self, sequences: list[Tensor]) -> Tensor:
        return self.head(self.layer(pack_sequence(sequences, enforce_sorted=False))[1][-1])


@pytest.mark.usefixtures("float64")
def test_a_list_of_sequences() -> None:
    model = Sentences(nn.GRU(3, 4, 2, bidirectional=True))
    sequences = [torch.randn(length, 3) for length in (2, 5, 3)]
    lrp = relprop.LRP(model, composite(0.001))
    relevance = lrp.attribute((sequences,), 0)[0]
    for own, sequence in zip(relevance, sequences, strict=True):
        assert_close(own, lrp.attribute(([sequence],), 0)[0][0])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "read",
    [
        lambda m, x, n: nn.functional.adaptive_max_pool1d(m.steps(x, n).transpose(1, 2), 1).squeeze(2),
        lambda m, x, n: sum(m.steps(x, n).unbind(1)),
    ],
    ids=["adaptive pooling", "a loop over the steps"],
)
def test_a_number_of_steps_that_must_be_known_is_taken_from_a_real_run(read: Any) -> None:
    model, x = Reader(read), torch.randn(4, 5, 3)
    lrp = relprop.LRP(model)
    with pytest.warns(UserWarning, match="Reader cannot be exported"):
        explanation = lrp.explain((x, LENGTHS), 0)
    for lengths in (LENGTHS, torch.tensor([3, 1, 2, 1])):
        explanation = lrp.explain((x, lengths), 0)
        torch.testing.assert_close(explanation.output, model(x, lengths))
        assert not explanation.relevance[0][torch.arange(5) >= lengths[:, None]].any()
        assert float(explanation.ledger.residual.sum().abs()) < 1e-12


# -- what holds whatever the numbers ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_a_packed_layer_stays_whole_and_the_model_as_it_was() -> None:
    model = Reader(last_state, nn.GRU(3, 4, 2, batch_first=True, bidirectional=True))
    model.read = lambda m, x, n: m.layer(m.packed(x, n))[1][-1]
    before, check = copy.deepcopy(model.state_dict()), nn.RNNBase.get_expected_hidden_size
    x, lengths = torch.randn(3, 300, 3), torch.tensor([300, 2, 40])
    lrp = relprop.LRP(model)
    assert lrp.check((x, lengths))
    assert "aten.gru.data" in str(lrp.plan((x, lengths)))
    assert_balanced(lrp.explain((x, lengths), 0))
    assert all(len(graph.nodes) < 60 for graph in _graphs(lrp))
    assert nn.RNNBase.get_expected_hidden_size is check
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())


@pytest.mark.usefixtures("float64")
def test_steps_beyond_the_longest_sequence_are_cut_off_as_in_the_model() -> None:
    model, x = Packed(nn.LSTM(3, 4, batch_first=True)), torch.randn(2, 7, 3)
    explanation = relprop.LRP(model).explain((x, torch.tensor([2, 4])), lambda out: out[0].sum((1, 2)))
    assert explanation.output[0].shape == (2, 4, 4)
    assert_balanced(explanation)
    assert not explanation.relevance[0][:, 4:].any()


@pytest.mark.usefixtures("float64")
def test_a_value_for_padding_keeps_its_share() -> None:
    model = Reader(lambda m, x, n: m.steps(x, n, padding_value=1.0).sum(1))
    explanation = relprop.LRP(model, "lrp0").explain((torch.randn(2, 4, 3), torch.tensor([4, 1])), 0)
    assert_balanced(explanation)
    share = 3 * float(model.head.weight[0].detach().sum())
    assert explanation.ledger.by_kind()["constant"].tolist() == pytest.approx([0.0, share])


@pytest.mark.usefixtures("float64")
def test_relevance_of_a_packed_sequence_can_be_differentiated() -> None:
    lrp = relprop.LRP(Reader(last_state), composite(0.001))
    x = torch.randn(4, 5, 3, requires_grad=True)

    def size(x: Tensor) -> Tensor:
        return lrp.attribute((x, LENGTHS), 0, create_graph=True)[0].pow(2).sum()

    assert torch.autograd.gradcheck(size, x)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_packed_sequence_in_lower_precision(precision: torch.dtype) -> None:
    model, x = Reader(last_state).to(precision), torch.randn(4, 5, 3).to(precision)
    ours = relprop.LRP(model, composite(0.01)).attribute((x, LENGTHS), 0)[0]
    exact = relprop.LRP(copy.deepcopy(model).double(), composite(0.01)).attribute((x.double(), LENGTHS), 0)[0]
    assert ours.dtype == torch.float32
    assert_close(ours.double(), exact, 1e-4 if precision == torch.float32 else 0.3)


# -- what is refused, and in which words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "enforce_sorted", "words"),
    [([2, 0, 1], False, "greater than 0"), ([2, 6, 1], False, "6 steps"), ([1, 2, 3], True, "decreasing order")],
)
def test_lengths_that_no_batch_can_have(lengths: list[int], enforce_sorted: bool, words: str) -> None:
    lrp = relprop.LRP(Packed(nn.LSTM(3, 4, batch_first=True), enforce_sorted))
    with pytest.raises(relprop.InputError, match=words):
        lrp.attribute((torch.randn(3, 5, 3), torch.tensor(lengths)), lambda out: out[0].sum((1, 2)))


def test_a_packed_sequence_is_no_input() -> None:
    lrp, packed = relprop.LRP(Last(nn.LSTM(3, 4))), pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    for inputs in (packed, (packed,), {"x": packed}):
        with pytest.raises(relprop.InputError, match="takes the padded batch and the lengths"):
            lrp.attribute(inputs)


def test_dropout_between_packed_layers_must_be_off() -> None:
    model = Packed(nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True))
    with pytest.raises(relprop.CaptureError, match="training mode"):
        relprop.LRP(model).attribute((torch.randn(4, 5, 3), LENGTHS), lambda out: out[0].sum((1, 2)))


class Padded(Last):
    """What the error of a program advises."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][torch.arange(len(x)), lengths - 1])


@pytest.mark.usefixtures("float64")
def test_packed_sequences_are_no_program_and_the_advice_is_sound(tmp_path: Path) -> None:
    packed, x = Reader(last_state), torch.randn(4, 5, 3)
    lrp = relprop.LRP(packed)
    for refused in (lambda: lrp.compile((x, LENGTHS), 0), lambda: lrp.export(tmp_path / "x.pt2", (x, LENGTHS), 0)):
        with pytest.raises(relprop.CaptureError, match=r"output\[torch.arange\(len\(x\)\), lengths - 1\]"):
            refused()
    padded = Padded(packed.layer)
    padded.head = packed.head
    assert_close(relprop.LRP(padded).attribute((x, LENGTHS), 0)[0], lrp.attribute((x, LENGTHS), 0)[0])
