"""Recurrent layers against the unrolled reference, against each other, and against torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import relprop
from relprop import composites, rules, select

from . import recurrent_reference as reference

# Denominators of "prop", and of weights without their biases, come close to zero; it is for the numbers to agree.
pytestmark = pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")

POLICIES = ("absorb", "redistribute", "zero")
GATES = ("all", "prop", "abs", "half")
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


class Everything(nn.Module):
    """A recurrent layer with all that goes in, and all that comes out: (output, h_n) or (output, h_n, c_n)."""

    def __init__(self, layer: nn.RNNBase):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        given = (states if isinstance(self.layer, nn.LSTM) else states[0]) if states else None
        output, final = self.layer(x, given)
        return (output, *final) if isinstance(final, tuple) else (output, final)


class Last(nn.Module):
    """A classifier on the last step."""

    def __init__(self, layer: nn.RNNBase, classes: int = 2):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear((getattr(layer, "proj_size", 0) or layer.hidden_size), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def composite(epsilon: float = 0.0, gates: str = "all") -> Any:
    return relprop.Composite([(select.recurrent(), rules.Recurrent(epsilon, gates))], strict=False)


def initial(layer: nn.RNNBase, batch: int) -> tuple[Tensor, ...]:
    """Random initial states."""
    number = layer.num_layers * (2 if layer.bidirectional else 1)
    h = torch.randn(number, batch, layer.proj_size or layer.hidden_size)
    return (h, torch.randn(number, batch, layer.hidden_size)) if isinstance(layer, nn.LSTM) else (h,)


def seeds(target: Callable[..., Tensor]) -> Callable[..., Any]:
    """The relevance that a linear target of (output, states...) starts with, one sample at a time."""

    def seed(output: Tensor, final: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        leaves = [output[None].detach().requires_grad_(), *(f[:, None].detach().requires_grad_() for f in final)]
        gradients = torch.autograd.grad(target(leaves).sum(), leaves, allow_unused=True, materialize_grads=True)
        first, *rest = [(a * c).detach() for a, c in zip(leaves, gradients, strict=True)]
        return first[0], [r[:, 0] for r in rest]

    return seed


def everything(outputs: Any) -> Tensor:
    """A target that uses every step and every final state, each number with a weight of its own."""
    weighted = [torch.cos(torch.arange(a[0].numel() if i == 0 else a[:, 0].numel())) for i, a in enumerate(outputs)]
    first, *rest = outputs
    value = (first.flatten(1) * weighted[0]).sum(1)
    for a, w in zip(rest, weighted[1:], strict=True):
        value = value + (a.transpose(0, 1).flatten(1) * w).sum(1)
    return value


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-8) -> None:
    """Relative to the largest relevance."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max() + 1e-30)


def assert_balanced(explanation: relprop.Explanation) -> None:
    ledger = explanation.ledger
    amounts = [ledger.seed, *ledger.inputs.values(), *ledger.sinks.values()]
    assert float(ledger.residual.abs().max()) <= 1e-9 * float(torch.stack(amounts).abs().max())


def assert_agrees(
    layer: nn.RNNBase, batch: int = 2, steps: int = 4, target: Callable[..., Tensor] = everything
) -> None:
    """Layer, rules and policies against the reference: relevance of the input and of all initial states, and sinks."""
    sequence = torch.randn(batch, steps, layer.input_size)  # for the reference, samples first
    states = initial(layer, batch)
    x = sequence if layer.batch_first else sequence.transpose(0, 1)
    value = target if layer.batch_first else lambda out: target([out[0].transpose(0, 1), *out[1:]])
    lrp = relprop.LRP(Everything(layer))
    gated = GATES if not isinstance(layer, nn.RNN) else ("all",)
    for gates, epsilon, policy in product(gated, (0.0, 0.001), POLICIES):
        explanation = lrp.using(composite(epsilon, gates), bias=policy).explain((x, *states), value)
        ours = [explanation.relevance[0] if layer.batch_first else explanation.relevance[0].transpose(0, 1)]
        ours += [r.transpose(0, 1) for r in explanation.relevance[1:]]
        chosen = reference.Rules(epsilon, gates, policy)
        results = [
            reference.explain(layer, chosen, sequence[b], [s[:, b] for s in states], seeds(target))
            for b in range(batch)
        ]
        for part, theirs in zip(ours, zip(*([r.x, *r.states] for r in results), strict=True), strict=True):
            assert_close(part, torch.stack(theirs))
        assert_balanced(explanation)
        kinds = explanation.ledger.by_kind()
        largest = max(float(amount.abs().max()) for amount in [*kinds.values(), explanation.ledger.received])
        if not epsilon:  # what keeps divisions finite is no part of the equations
            del chosen.absorbed["stabiliser"]
        for kind, amount in chosen.absorbed.items():
            booked = float(kinds[kind].sum()) if kind in kinds else 0.0
            assert booked == pytest.approx(amount, rel=1e-8, abs=1e-8 * largest)


# -- the reference ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("lstm", {"num_layers": 2, "proj_size": 2}),
        ("lstm", {"bias": False, "batch_first": True}),
        ("gru", {"num_layers": 2, "bidirectional": True}),
        ("gru", {"bias": False, "batch_first": True}),
        ("rnn", {"num_layers": 2, "batch_first": True}),
        ("rnn", {"nonlinearity": "relu", "bidirectional": True, "bias": False}),
        ("rnn", {"nonlinearity": "relu", "num_layers": 2}),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_layers_agree_with_the_unrolled_equations(kind: str, options: dict[str, Any]) -> None:
    assert_agrees(KINDS[kind](3, 4, **options), steps=3)


@pytest.mark.usefixtures("float64")
@settings(max_examples=5)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
)
def test_any_shape_agrees_with_the_unrolled_equations(
    kind: str, sizes: tuple[int, ...], layers: int, bidirectional: bool, bias: bool, batch_first: bool
) -> None:
    inputs, hidden, batch, steps = sizes
    layer = KINDS[kind](inputs, hidden, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
    assert_agrees(layer, batch, steps)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "target",
    [
        lambda out: out[0][:, -1].sum(1),
        lambda out: out[0][:, 1, 0],
        lambda out: out[1][-1].sum(1),
        lambda out: out[1][0, :, 1],
        lambda out: out[2][1].sum(1),
    ],
    ids=["last step", "one number", "h_n", "h_n of the lowest layer", "c_n"],
)
def test_relevance_may_start_anywhere(target: Callable[..., Tensor]) -> None:
    assert_agrees(nn.LSTM(2, 3, 2, batch_first=True, proj_size=2), batch=1, steps=3, target=target)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_state_of_zero_gets_its_part_only_where_it_is_redistributed(kind: str) -> None:
    """Zeros contribute nothing, but they are inputs of the neurons whose bias is shared out."""
    layer = KINDS[kind](2, 3, batch_first=True)
    x, zeros = torch.randn(1, 4, 2), [torch.zeros(1, 3)] * (2 if kind == "lstm" else 1)
    lrp = relprop.LRP(Everything(layer))
    for policy in POLICIES:
        explanation = lrp.using(composite(0.001), bias=policy).explain(x, lambda out: out[0].sum((1, 2)))
        theirs = reference.explain(
            layer, reference.Rules(0.001, "all", policy), x[0], zeros, lambda o, f: (o, [r * 0 for r in f])
        )
        assert_close(explanation.relevance[0], theirs.x)
        assert_balanced(explanation)
        kept = explanation.ledger.by_kind()["parameter"]
        assert float(kept) == pytest.approx(sum(float(r.sum()) for r in theirs.states))
        assert (abs(float(kept)) > 1e-6) == (policy == "redistribute")


# -- cells, and cells written by hand ---------------------------------------------------------------------------------


class Loop(nn.Module):
    """Steps taken in Python, with a cell of torch or one written by hand."""

    def __init__(self, step: Callable[..., Any], layer: nn.RNNBase, head: nn.Module):
        super().__init__()
        self.step, self.layer, self.head = step, layer, head

    def forward(self, x: Tensor) -> Tensor:
        state = [
            x.new_zeros(len(x), self.layer.hidden_size) for _ in range(2 if isinstance(self.layer, nn.LSTM) else 1)
        ]
        for x_t in x.unbind(1):
            state = self.step(self.layer, x_t, *state)
        return self.head(state[0])


def cell_of(layer: nn.RNNBase) -> nn.RNNCellBase:
    """A cell of torch with the weights of a layer."""
    cell = CELLS[type(layer).__name__.lower()](layer.input_size, layer.hidden_size, bias=layer.bias)
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in layer.state_dict().items()})
    return cell


def lstm_step(layer: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """As a tutorial has it."""
    z = x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
    i, f, g, o = z.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(layer: nn.GRU, x: Tensor, h: Tensor) -> tuple[Tensor]:
    x_r, x_z, x_n = (x @ layer.weight_ih_l0.T + layer.bias_ih_l0).chunk(3, 1)
    h_r, h_z, h_n = (h @ layer.weight_hh_l0.T + layer.bias_hh_l0).chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_cells_in_a_loop_are_the_layer(kind: str) -> None:
    layer = KINDS[kind](3, 4, batch_first=True)
    fused, cell = Last(layer), cell_of(layer)

    def step(_: Any, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return cell(x, state) if kind == "lstm" else (cell(x, *state),)

    loop = Loop(step, layer, fused.head)
    loop.add_module("cell", cell)
    x = torch.randn(2, 5, 3)
    a, b = relprop.LRP(fused), relprop.LRP(loop)
    for gates, epsilon, policy in product(GATES, (0.0, 0.001), POLICIES):
        of_layer, of_cells = (lrp.using(composite(epsilon, gates), bias=policy).explain(x, 1) for lrp in (a, b))
        assert_close(of_cells.relevance, of_layer.relevance)
        assert_balanced(of_cells)
        for sink, amount in of_layer.ledger.by_kind().items():
            torch.testing.assert_close(of_cells.ledger.by_kind()[sink], amount, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_a_cell_explains_the_states_it_is_given() -> None:
    cell = nn.LSTMCell(3, 4)
    x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    lrp = relprop.LRP(Given(cell), composite(0.001, "abs"))
    explanation = lrp.explain((x, h, c), lambda out: out[0].sum(1) + 2 * out[1].sum(1))
    for b in range(2):
        theirs = reference.explain(
            cell,
            reference.Rules(0.001, "abs"),
            x[b][None],
            [h[b][None], c[b][None]],
            lambda o, f: (o * 0, [f[0], 2 * f[1]]),
        )
        for ours, want in zip(explanation.relevance, [theirs.x[0], *(s[0] for s in theirs.states)], strict=True):
            assert_close(ours[b], want)
    assert_balanced(explanation)


@pytest.mark.usefixtures("float64")
def test_an_lstm_cell_written_by_hand_shares_by_halves() -> None:
    layer = nn.LSTM(3, 4, batch_first=True)
    fused = Last(layer)
    by_hand = relprop.LRP(Loop(lstm_step, layer, fused.head), "lrp0")
    x = torch.randn(2, 5, 3)
    assert_close(by_hand.attribute(x, 0), relprop.LRP(fused, composite(gates="half")).attribute(x, 0))


class Given(nn.Module):
    def __init__(self, cell: nn.LSTMCell):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return self.cell(x, (h, c))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("kind", "step"), [("lstm", lstm_step), ("gru", gru_step)])
def test_a_cell_written_by_hand_is_the_layer_once_its_gates_are_stopped(kind: str, step: Callable[..., Any]) -> None:
    """Its sigmoids are found by their use; the products then give all to the signal, as LRP-all does."""
    layer = KINDS[kind](3, 4, batch_first=True)
    fused = Last(layer)
    by_hand = relprop.LRP(Loop(step, layer, fused.head), [(select.gate(), rules.Stop())])
    torch_s = relprop.LRP(fused, composite())
    x = torch.randn(2, 5, 3)
    a, b = by_hand.explain(x, 0), torch_s.explain(x, 0)
    assert_close(a.relevance, b.relevance)
    assert_balanced(a)


def lstm_step_of_linear_layers(layer: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One linear layer of x and h side by side, in pieces; the two gates of the cell state in one sigmoid."""
    weight = torch.cat([layer.weight_ih_l0, layer.weight_hh_l0], 1)
    z = F.linear(torch.cat([x, h], 1), weight, layer.bias_ih_l0 + layer.bias_hh_l0)
    in_and_out, g, o = z.split([2 * layer.hidden_size, layer.hidden_size, layer.hidden_size], 1)
    i, f = in_and_out.sigmoid().chunk(2, 1)
    c = (f * c).add(i.mul(g.tanh()))
    return o.sigmoid().mul(c.tanh()), c


def gru_step_by_lerp(layer: nn.GRU, x: Tensor, h: Tensor) -> tuple[Tensor]:
    x_gates, x_n = F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0).tensor_split([2 * layer.hidden_size], 1)
    h_gates, h_n = F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0).tensor_split([2 * layer.hidden_size], 1)
    r, z = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
    return (torch.lerp(torch.tanh(x_n + r * h_n), h, z),)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "step", "steps"),
    [
        ("lstm", lstm_step, 200),
        ("lstm", lstm_step_of_linear_layers, 8),
        ("gru", gru_step, 8),
        ("gru", gru_step_by_lerp, 8),
    ],
)
def test_the_signal_takes_all_in_cells_written_by_hand_as_in_the_layer(
    kind: str, step: Callable[..., Any], steps: int
) -> None:
    """To the last digit where ε = 0: two linear layers, whose sum is a layer's one, have an ε each."""
    layer = KINDS[kind](3, 4, batch_first=True)
    fused = Last(layer)
    x = torch.randn(2, steps, 3)
    exactly = composites.signal_takes_all(0.0)
    by_hand = relprop.LRP(Loop(step, layer, fused.head), exactly)
    a, b = by_hand.explain(x, 1), relprop.LRP(fused, exactly).explain(x, 1)
    assert_close(a.relevance, b.relevance)
    assert_balanced(a)
    of_both = by_hand.using("auto").plan(x).composite.name, relprop.LRP(fused).plan(x).composite.name
    assert of_both == ("signal_takes_all", "signal_takes_all")


@pytest.mark.usefixtures("float64")
def test_two_hundred_steps_of_a_cell_are_the_layer() -> None:
    layer = nn.LSTM(3, 4, batch_first=True)
    fused, cell = Last(layer), cell_of(layer)
    loop = Loop(lambda _, x, *state: cell(x, state), layer, fused.head)
    loop.add_module("cell", cell)
    x = torch.randn(2, 200, 3)
    assert_close(relprop.LRP(loop).attribute(x, 1), relprop.LRP(fused).attribute(x, 1))


# -- what holds whatever the numbers ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_forward_run_is_torch_s_own_and_parameters_stay(kind: str) -> None:
    model = Last(KINDS[kind](3, 4, 2, batch_first=True))
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(3, 6, 3)
    explanation = relprop.LRP(model, composite(0.001, "abs"), bias="redistribute").explain(x, 0)
    torch.testing.assert_close(explanation.output, model(x), rtol=1e-14, atol=1e-14)
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())
    assert all(w.grad is None for w in model.parameters())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_batch_is_its_samples(kind: str) -> None:
    lrp = relprop.LRP(Last(KINDS[kind](3, 4, 2, batch_first=True)), composite(0.001))
    x = torch.randn(5, 6, 3)
    together = lrp.explain(x, 0)
    for b in range(5):
        alone = lrp.explain(x[b : b + 1], 0)
        assert_close(together.relevance[b : b + 1], alone.relevance)
        for kind_of_sink, amount in alone.ledger.by_kind().items():
            torch.testing.assert_close(together.ledger.by_kind()[kind_of_sink][b : b + 1], amount)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("layers", "batch"), [(1, 1), (1, 2), (2, 2), (2, 4)])
def test_states_have_their_samples_second(layers: int, batch: int) -> None:
    """Also where as many samples as layers could be mistaken for them, every sample's books balance."""
    layer = nn.GRU(3, 4, layers, batch_first=True)
    lrp = relprop.LRP(Everything(layer), composite(0.001), bias="redistribute")
    explanation = lrp.explain((torch.randn(batch, 3, 3), *initial(layer, batch)), everything)
    assert_balanced(explanation)
    received = explanation.relevance[0].sum((1, 2)) + explanation.relevance[1].sum((0, 2))
    torch.testing.assert_close(received, explanation.ledger.seed)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}], ids=["plain", "both ways"]
)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_sequence_without_samples(kind: str, options: dict[str, Any], policy: str) -> None:
    """[T, D] and states [layers * directions, H]: torch takes it for one sample."""
    layer = KINDS[kind](3, 4, **options)
    x, states = torch.randn(5, 3), initial(layer, 1)
    lrp = relprop.LRP(Everything(layer), composite(0.001), bias=policy)

    def target(out: Any) -> Tensor:
        return out[0][-1].sum()[None] + out[1][0].sum()[None]

    explanation = lrp.explain((x, *(s[:, 0] for s in states)), target)
    theirs = reference.explain(
        layer, reference.Rules(0.001, "all", policy), x, [s[:, 0] for s in states], _last_step_and_first_state
    )
    for part, want in zip(explanation.relevance, [theirs.x, *theirs.states], strict=True):
        assert_close(part, want)
    assert_balanced(explanation)


def _last_step_and_first_state(output: Tensor, final: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    parts = [torch.zeros_like(output), *map(torch.zeros_like, final)]
    parts[0][-1], parts[1][0] = output[-1], final[0][0]
    return parts[0], parts[1:]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_cell_without_samples(kind: str, bias: bool) -> None:
    cell = CELLS[kind](3, 4, bias=bias)
    x, states = torch.randn(3), [torch.randn(4) for _ in range(2 if kind == "lstm" else 1)]

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor, *states: Tensor) -> Tensor:
            return self.cell(x, states)[0] if kind == "lstm" else self.cell(x, *states)

    ours = relprop.LRP(Step(), composite(0.001)).attribute((x, *states), lambda h: h.sum()[None])
    theirs = reference.explain(
        cell, reference.Rules(0.001), x[None], [s[None] for s in states], lambda o, f: (o, [r * 0 for r in f])
    )
    for part, want in zip(ours, [theirs.x[0], *(s[0] for s in theirs.states)], strict=True):
        assert_close(part, want)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_lower_precision(kind: str, precision: torch.dtype) -> None:
    """bfloat16 keeps 8 bits, float16 keeps 11, and activations carry their rounding through time."""
    model = Last(KINDS[kind](3, 4, batch_first=True))
    x = torch.randn(2, 6, 3)
    model, x = model.to(precision), x.to(precision)
    ours = relprop.LRP(model, composite(0.01)).attribute(x, 0)
    exact = relprop.LRP(copy.deepcopy(model).double(), composite(0.01)).attribute(x.double(), 0)
    assert ours.dtype == torch.float32
    assert_close(ours.double(), exact, {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}[precision])


@pytest.mark.usefixtures("float64")
def test_one_capture_serves_every_length() -> None:
    """Also a single step; and a layer is never taken apart into its steps."""
    lrp = relprop.LRP(Last(nn.LSTM(3, 4, 2, batch_first=True)), composite())
    for steps in (5, 7, 1, 300):
        x = torch.randn(2, steps, 3)
        assert_balanced(lrp.explain(x, 0))
    graphs = [capture.graph for captures in lrp._capturer._captures.values() for capture in captures]
    assert len(graphs) == 2  # the length is open from the second one on
    assert all(len(graph.nodes) < 40 for graph in graphs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_thousand_steps(kind: str) -> None:
    lrp = relprop.LRP(Last(KINDS[kind](3, 8, batch_first=True)), composite(0.001))
    explanation = lrp.explain(torch.randn(2, 1000, 3), 0)
    assert_balanced(explanation)
    assert float(explanation.relevance.abs().sum()) < 10 * float(explanation.ledger.seed.abs().sum())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_thousand_steps_hand_on_what_is_redistributed(kind: str) -> None:
    """Every step shares out a bias, and the sum still holds."""
    lrp = relprop.LRP(Last(KINDS[kind](3, 8, batch_first=True)), composite(0.001), bias="redistribute")
    explanation = lrp.explain(torch.randn(2, 1000, 3), 0)
    kept = explanation.ledger.by_kind()["parameter"]  # by the initial states
    torch.testing.assert_close(explanation.relevance.sum((1, 2)) + kept, explanation.ledger.seed)


class Branching(Last):
    """What depends on values is recorded from a real run."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else 2 * x)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:Branching cannot be exported:UserWarning")
def test_a_recorded_model_keeps_its_layers_whole() -> None:
    model = Last(nn.LSTM(3, 4, 2, batch_first=True))
    branching = Branching(model.layer)
    branching.head = model.head
    x = torch.rand(2, 200, 3)
    a, b = relprop.LRP(model, composite(0.001)), relprop.LRP(branching, composite(0.001))
    assert_close(b.attribute(x, 0), a.attribute(x, 0))
    assert len(b.plan(x).graph.nodes) < 40


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_where_a_sum_vanishes_the_coefficient_has_its_limit(kind: str) -> None:
    """x = (1, 1) against weights (w, -w): every pre-activation is zero, and relevance is that of its neighbours."""
    layer = KINDS[kind](2, 3, bias=False, batch_first=True)
    with torch.no_grad():
        layer.weight_ih_l0[:, 1] = -layer.weight_ih_l0[:, 0]
    lrp = relprop.LRP(Everything(layer), composite())
    x = torch.ones(1, 1, 2)
    at, beside = (lrp.attribute(x + d, lambda out: out[0].sum((1, 2))) for d in (0, torch.tensor([1e-7, 0.0])))
    assert bool(at.any())
    assert_close(at, beside, 1e-6)


def test_a_thousand_steps_in_single_precision() -> None:
    lrp = relprop.LRP(Last(nn.LSTM(3, 8, batch_first=True)), composite(0.001))
    explanation = lrp.explain(torch.randn(2, 1000, 3), 0)
    assert float(explanation.ledger.residual.abs().max()) < 1e-3 * float(explanation.ledger.seed.abs().max())


@pytest.mark.usefixtures("float64")
def test_lrp_0_of_a_relu_network_is_gradient_times_input() -> None:
    layer = nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True, bidirectional=True)
    x = torch.randn(2, 5, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0][:, -1].sum(), x)
    ours = relprop.LRP(Everything(layer), composite()).attribute(x.detach(), lambda out: out[0][:, -1].sum(1))
    assert_close(ours, (x * gradient).detach())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"gates": "none"}, "'all', 'prop', 'abs', 'half', got 'none'"),
    ],
)
def test_a_bad_rule(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(relprop.RuleError, match=words):
        rules.Recurrent(**arguments)


def test_the_rule_is_for_recurrent_layers() -> None:
    lrp = relprop.LRP(Last(nn.GRU(3, 4, batch_first=True)), [(select.dense(), rules.Recurrent())])
    with pytest.raises(relprop.RuleError, match="LSTM, GRU and RNN layers and cells"):
        lrp.attribute(torch.randn(1, 2, 3))
