"""A trace: what every operation received, handed on and booked."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import Message, rules, select, targets
from relprop.rules.base import Call, Step
from relprop.rules.message import Form

from .models import cnn, images


def test_one_layer_by_hand() -> None:
    """z = 3*1 - 1*2 + 1 = 2: contributions 3 and -2, and 1 of the bias. LRP-0 hands on 3 - 2 = 1, in sizes 5."""
    layer = nn.Linear(2, 1).double()
    layer.weight.data, layer.bias.data = torch.tensor([[3.0, -1.0]]).double(), torch.tensor([1.0]).double()
    trace = relprop.LRP(layer, "lrp0").trace(torch.tensor([[1.0, 2.0]]).double())
    (row,) = trace.rows
    assert (row.size_out, row.out, row.size_in, row.sent) == pytest.approx((2, 2, 5, 1))
    assert row.booked == pytest.approx({"bias": 1})
    assert row.missing == pytest.approx(0)
    assert trace.seed == pytest.approx(2)
    assert row.rule == "LRP0()"
    assert row.form == "c"


@pytest.mark.parametrize("composite", ["lrp0", "epsilon", "epsilon_plus", "gamma", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("bias", ["absorb", "redistribute", "zero"])
def test_books_of_every_operation_balance(composite: str, bias: str) -> None:
    """Also where a ReLU's output stands for its input, and the ReLU applies no mask."""
    lrp, x = relprop.LRP(cnn(), composite, bias=bias), images(2)
    trace, explanation = lrp.trace(x, 1), lrp.explain(x, 1)
    assert len(trace.rows) == len(explanation.plan.steps)
    for row in trace.rows:
        assert abs(row.missing) < 1e-9 * max(row.size_out, row.size_in, trace.seed)
    assert trace.rows[-1].out == pytest.approx(float(explanation.ledger.seed.sum()))
    assert trace.rows[0].sent == pytest.approx(float(explanation.relevance.sum()))
    for reason, amount in explanation.ledger.by_reason().items():
        booked = sum(row.booked.get(reason, 0) for row in trace.rows)
        assert booked == pytest.approx(float(amount.sum()), abs=1e-9)


class Recurs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, (h, c) = self.lstm(x)
        return self.out(y[:, -1] + h[0] * c[0])


def test_relevance_of_several_outputs_arrives_together() -> None:
    torch.manual_seed(0)
    trace = relprop.LRP(Recurs().double(), "epsilon").trace(torch.rand(2, 5, 3).double(), 0)
    row = next(row for row in trace.rows if "lstm" in row.place)
    assert abs(row.missing) < 1e-9 * trace.seed
    assert row.size_out > 0


class Doubled(rules.Rule):
    """For a ReLU: R_in = 2 R_out."""

    def saves(self, step: rules.base.Step) -> set[torch.fx.Node]:
        return {step.node}

    def form(self, step: rules.base.Step) -> rules.message.Form:
        return step.form

    def backward(self, call: rules.base.Call, message: relprop.Message) -> list[relprop.Message]:
        return [message.scaled(2.0 * (call.output > 0))]


def test_the_operation_with_a_wrong_rule_is_found() -> None:
    broken = relprop.Composite(
        [(select.activation() & select.last(select.activation()), Doubled()), (select.linear(), rules.Epsilon())],
    )
    trace = relprop.LRP(cnn(), broken).trace(images(2), 1)
    unbalanced = [row.rule for row in trace.rows if abs(row.missing) > 1e-9 * trace.seed]
    assert unbalanced == ["Doubled"]
    assert trace.worst.rule == "Doubled"
    assert trace.worst.missing == pytest.approx(-trace.worst.out)
    (line,) = [line for line in str(trace).splitlines() if "Doubled" in line]
    assert f"{trace.worst.missing:.2g}" in line
    assert __name__.rpartition(".")[0].replace(".", "/") + "/models.py:" in line


def test_a_trace_follows_one_target() -> None:
    with pytest.raises(relprop.TargetError, match="one target at a time"):
        relprop.LRP(cnn()).trace(images(2), targets.several([0, 1]))


def test_a_plan_names_the_class_of_every_rule() -> None:
    plan = relprop.LRP(cnn(), "epsilon_plus").plan(images(2))
    for step in plan.steps.values():
        (line,) = [line for line in str(plan).splitlines() if line.startswith(step.node.name + " ")]
        assert type(step.rule).__name__ in line


class Loses(rules.Rule):
    """A rule that forgets a tenth of what reaches it."""

    def form(self, step: Step) -> Form:
        return step.form

    def backward(self, call: Call, message: Message) -> list[Message]:
        return [Message(c=0.9 * message.c)]


def test_books_that_do_not_balance_are_told_once_with_the_operation() -> None:
    model, x = cnn(), images(2)
    lrp = relprop.LRP(model, [(select.activation(), Loses()), (select.linear(), rules.LRP0())])
    with pytest.warns(relprop.RelevanceWarning, match=r"does not balance.*aten.relu.*where Loses receives") as told:
        explanation = lrp.explain(x, 1)
    assert len(told) == 1
    lrp.explain(x, 1)  # not again
    assert explanation.ledger.residual.abs().max() > 1e-3 * explanation.ledger.seed.abs().max()
    lrp.attribute(x, 1)  # which keeps no books


def test_large_numbers_that_cancel_are_no_lack_of_balance() -> None:
    """10⁹ times what is explained moves through the network, and its rounding is beyond 1e-9 of the rest."""

    class Cancels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Linear(7, 1, bias=False, dtype=torch.float64) for _ in "ab")
            self.two.weight.data = self.one.weight.data * (1 - 1e-9)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(1e9 * x) - self.two(1e9 * x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", relprop.RelevanceWarning)
        warnings.filterwarnings("error", "the ledger does not balance")
        ledger = relprop.LRP(Cancels(), "lrp0").explain(torch.rand(2, 7).double(), 0).ledger
    assert 1e-9 * ledger.seed.abs().max() < ledger.residual.abs().max() < 1e-6
