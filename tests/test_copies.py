"""Copies and pickles of what a user holds."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import composites, rules, select

from .models import assert_same, cnn, images


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@pytest.fixture(scope="module")
def lrp() -> relprop.LRP:
    used = relprop.LRP(cnn(), "epsilon_plus", bias="redistribute")
    used.explain(images(2, 16), 1)
    return used


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_an_lrp_that_was_used(lrp: relprop.LRP, again: Any) -> None:
    """It has a model of its own, and explains as the other one does."""
    other, x = again(lrp), images(2, 16)
    before = lrp.attribute(x, 1)
    assert_same(other.attribute(x, 1), before)
    with torch.no_grad():
        for p in other._capturer.model.parameters():
            p.zero_()
    assert_same(lrp.attribute(x, 1), before)


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_an_lrp_of_an_exported_program(again: Any) -> None:
    x = images(2, 16)
    lrp = relprop.LRP(torch.export.export(cnn(), (x,)), "lrp0")
    before = lrp.attribute(x, 1)
    assert_same(again(lrp).attribute(x, 1), before)


def contrast(y: Tensor) -> Tensor:
    return y[:, 0] - y[:, 1]


@pytest.mark.parametrize("target", [1, None, lambda y: y[:, 0], [0, contrast]])
def test_an_explanation(lrp: relprop.LRP, target: Any) -> None:
    """It is data: tensors, the ledger, the plan as text, and the name of a function."""
    first = lrp.explain(images(2, 16), target, record="*")
    for other in (copy.deepcopy(first), pickled(first)):
        assert_same(other.relevance, first.relevance)
        assert_same(other.inputs, first.inputs)
        assert other.relevances.keys() == first.relevances.keys()
        assert repr(other) == repr(first)
        assert str(other.plan) == str(first.plan)
    if callable(target):
        assert copy.deepcopy(first).target is target
    buffer = io.BytesIO()
    torch.save(first, buffer)
    buffer.seek(0)
    assert repr(torch.load(buffer, weights_only=False)) == repr(first)


def test_picture_of_a_pickled_explanation() -> None:
    """A series whose channels come first is drawn like the original."""
    pytest.importorskip("matplotlib")
    first = relprop.LRP(nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(18, 2))).explain(torch.rand(1, 2, 8))
    drawn = [e.figure().axes[0].get_xlim() for e in (first, pickled(first))]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", sorted(composites.NAMED))
def test_named_composites(name: str) -> None:
    bounds = (-3.0, 3.0) if "box" in name else ()
    made = composites.NAMED[name](*bounds)
    for other in (copy.deepcopy(made), pickled(made)):
        assert other == made
        assert str(other.pairs) == str(made.pairs)


def test_a_composite_of_every_selector(lrp: relprop.LRP) -> None:
    """Pickled, it chooses what it chose."""
    chosen = select.first(select.convolution()) | select.last(select.dense() & ~select.module("*9"))
    chosen = chosen & select.depth(0, 1) & (select.everything() | select.average_pool() | select.gate())
    chosen = chosen | select.op(torch.ops.aten.relu) | select.module_type(nn.Linear) | select.state_space()
    made = relprop.Composite([(chosen & select.linear(), rules.Epsilon(0.1)), (select.linear(), rules.Gamma())])
    x = images(2, 16)
    assert str(lrp.using(pickled(made)).plan(x)) == str(lrp.using(made).plan(x))
    assert len({str(s.rule) for s in lrp.using(made).plan(x).steps.values()} & {"Epsilon(epsilon=0.1, relative=False)"})


def test_a_compiled_program_says_what_to_do_instead(lrp: relprop.LRP) -> None:
    compiled = lrp.using("lrp0").compile(images(2, 16), 1)
    for again in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"lrp\.export"):
            again(compiled)
