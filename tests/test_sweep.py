"""The reverse sweep: what an error inside of a rule says, and that a plan is a value."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules, select
from relprop.errors import RuleError
from relprop.rules.base import Call

from .models import assert_same


@dataclass(frozen=True)
class Broken(rules.Rule):
    """Raises on the way back."""

    error: Exception
    forwards: bool = False

    def forward(self, call: Call) -> Tensor:
        if self.forwards:
            raise self.error
        return call.run()

    def backward(self, call: Call, message: relprop.Message) -> list[relprop.Message]:
        raise self.error

    def __str__(self) -> str:
        return "Broken()"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x) * 2)


def explained(error: Exception, at: select.Selector, forwards: bool = False) -> BaseException:
    lrp = relprop.LRP(Net().double().eval(), [(at, Broken(error, forwards)), (select.linear(), rules.Epsilon())])
    with pytest.raises(type(error) if forwards or isinstance(error, relprop.RelpropError) else RuleError) as caught:
        lrp.attribute(torch.rand(1, 3).double(), 0)
    return caught.value


def test_an_error_inside_of_a_rule_names_operation_module_line_and_rule() -> None:
    error = ZeroDivisionError("no such luck")
    found = explained(error, select.module("inner.0"))
    for part in ("Broken()", "inner.0 (aten.linear)", f"{__file__}:", "ZeroDivisionError: no such luck"):
        assert part in str(found)
    assert found.__cause__ is error


def test_an_error_at_an_operation_of_no_module_names_the_line_of_the_model() -> None:
    found = explained(KeyError("x"), select.product())
    line = Net.forward.__code__.co_firstlineno + 1
    assert "aten.mul" in str(found)
    assert f"{__file__}:{line}" in str(found)


@pytest.mark.parametrize("error", [relprop.TargetError("of mine"), relprop.InputError("of mine")])
def test_errors_of_relprop_stay_what_they_are_with_a_note(error: relprop.RelpropError) -> None:
    found = explained(error, select.module("inner.0"))
    assert found is error
    (note,) = found.__notes__
    assert "Broken()" in note
    assert "inner.0 (aten.linear)" in note


def test_an_error_on_the_way_forward_is_the_models_own_with_a_note() -> None:
    found = explained(IndexError("out of range"), select.module("head"), forwards=True)
    (note,) = found.__notes__
    assert "head (aten.linear)" in note


def test_plans_and_steps_are_values() -> None:
    lrp, x = relprop.LRP(Net().double().eval()), torch.rand(2, 3).double()
    plan = lrp.plan(x)
    step = next(iter(plan.steps.values()))
    for thing, name in ((plan, "steps"), (step, "rule"), (plan.schedule, "keep")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, None)


def test_a_plan_is_the_same_after_it_ran() -> None:
    """All that a step holds, but what is looked up once, and the nodes themselves, which are shared by all plans."""

    def state(plan: relprop.engine.plan.Plan) -> list[object]:
        fields = [[getattr(step, f) for f in step.__dataclass_fields__] for step in plan.steps.values()]
        return [fields, [sorted(map(str, node.meta)) for node in plan.graph.nodes], str(plan)]

    lrp, x = relprop.LRP(Net().double().eval(), "epsilon_plus"), torch.rand(2, 3).double()
    plan = lrp.explain(x, 1).plan
    before = state(plan)
    assert lrp.explain(x, 0).plan is plan
    assert state(plan) == before


class Masked(nn.Module):
    """A mask that the first and the last layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(9))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu() * mask
        return x


def test_recomputed_parts_find_an_input_that_all_of_them_read() -> None:
    torch.manual_seed(0)
    inputs = {"x": torch.rand(2, 4).double(), "mask": torch.tensor([[1, 0, 1, 1]])}
    lrp = relprop.LRP(Masked().double().eval(), "epsilon")
    found = lrp.attribute(inputs, target=0, checkpoint=True)
    assert_same(found["x"], lrp.attribute(inputs, target=0)["x"], 1e-12)
