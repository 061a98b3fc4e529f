"""An explanation is one of the model as it is: the explained output is what ``model(x)`` returns, at every call."""

from __future__ import annotations

import argparse
import functools
import gc
import types
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import relprop
from relprop.capture.reach import Reach
from relprop.capture.state import State

from .models import assert_same, cnn, images

SCALE = 1.0
TABLE = {"scale": 1.0}


def helper(x: Tensor) -> Tensor:
    return x * SCALE * TABLE["scale"]


class Model(nn.Module):
    """Linear in its inputs, by way of everything that Python code can look at."""

    of_class = 1.0
    shared: ClassVar[dict[str, float]] = {"scale": 1.0}

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.flag, self.scale = nn.Linear(3, 2, bias=False), False, 1.0
        self.sizes, self.options, self.queue = [1.0, 2.0], {"a": {"b": 1.0}}, deque([1.0])
        self.config = argparse.Namespace(scale=1.0, inner=types.SimpleNamespace(scales=[1.0]))
        self.function: Callable[[Tensor], Tensor] = lambda x: x
        self.partial = functools.partial(torch.mul, other=1.0)
        self.array, self.tensor = np.ones(3), torch.ones(3, dtype=torch.float64)
        self.names, self.hidden = {"double"}, [nn.Linear(3, 3, bias=False).double()]
        self.settings = Settings()
        self.tensors = [torch.ones(3, dtype=torch.float64)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(helper(self.partial(x)) * self.scale * self.of_class * self.shared["scale"])
        x = x * self.sizes[0] * self.options["a"]["b"] * self.queue[0] * self.config.scale
        x = x * self.config.inner.scales[0] * float(self.array[0]) * self.tensor * self.settings.scale()
        x = self.hidden[0](x) * self.tensors[0]
        if "double" in self.names:
            x = x * 2
        return self.linear(x.flip(1) if self.flag else x) * self.settings.factor


class Settings:
    """An object of the user's own."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.values = (1.0, [1.0])

    def scale(self) -> float:
        return self.values[1][0]


@dataclass
class Times:
    """A function that is an object."""

    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.factor


def closure(factor: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda x: x * factor[0]


FACTOR = [1.0]


def set_global(value: float) -> None:
    global SCALE
    SCALE = value


def other_forward(self: Model, x: Tensor) -> Tensor:
    return self.linear(x) * 7


def other_code(model: Model) -> None:
    """As IPython's autoreload does it: the function stays, its code is another."""

    def helper(x: Tensor) -> Tensor:
        return x * 5 * SCALE * TABLE["scale"]

    globals()["helper"].__code__ = helper.__code__


CHANGES: dict[str, Callable[[Model], Any]] = {
    "attribute": lambda m: setattr(m, "scale", 3.0),
    "attribute that is new": lambda m: setattr(m, "of_class", 3.0),
    "flag": lambda m: setattr(m, "flag", True),
    "class attribute": lambda m: setattr(type(m), "of_class", 3.0),
    "dict of the class": lambda m: type(m).shared.update(scale=3.0),
    "element of a list": lambda m: m.sizes.__setitem__(0, 3.0),
    "list reversed": lambda m: m.sizes.reverse(),
    "nested dict": lambda m: m.options["a"].update(b=3.0),
    "deque": lambda m: m.queue.appendleft(3.0),
    "namespace": lambda m: setattr(m.config, "scale", 3.0),
    "list in a namespace in a namespace": lambda m: m.config.inner.scales.__setitem__(0, 3.0),
    "object": lambda m: setattr(m.settings, "factor", 3.0),
    "list in a tuple of an object": lambda m: m.settings.values[1].__setitem__(0, 3.0),
    "object exchanged": lambda m: setattr(m, "settings", types.SimpleNamespace(factor=3.0, scale=lambda: 1.0)),
    "method of an object's class": lambda m: setattr(Settings, "scale", lambda self: 3.0),
    "set": lambda m: m.names.clear(),
    "function": lambda m: setattr(m, "function", torch.neg),
    "function by an object": lambda m: setattr(m, "function", Times(3.0)),
    "closure": lambda m: FACTOR.__setitem__(0, 3.0),
    "partial": lambda m: m.partial.keywords.update(other=3.0),
    "array in place": lambda m: m.array.__setitem__(0, 3.0),
    "tensor exchanged": lambda m: setattr(m, "tensor", 3 * m.tensor),
    "tensor in place": lambda m: m.tensor.mul_(3),
    "tensor in a list in place": lambda m: m.tensors[0].mul_(3),
    "tensor in a list exchanged": lambda m: m.tensors.__setitem__(0, torch.full((3,), 3.0).double()),
    "unregistered layer in a list": lambda m: m.hidden.__setitem__(0, nn.Linear(3, 3, bias=False).double()),
    "weight of an unregistered layer": lambda m: m.hidden[0].weight.data.mul_(3),
    "layer": lambda m: setattr(m, "linear", nn.Linear(3, 2).double()),
    "layer by another kind": lambda m: setattr(m, "linear", nn.Sequential(nn.Linear(3, 2), nn.ReLU()).double()),
    "parametrization": lambda m: parametrize.register_parametrization(m.linear, "weight", Doubled()),
    "pruning": lambda m: prune.ln_structured(m.linear, "weight", 0.4, n=2, dim=1),
    "weight norm": lambda m: nn.utils.parametrizations.weight_norm(
        m.linear
    ).parametrizations.weight.original0.data.mul_(2),
    "bias added": lambda m: m.linear.register_parameter("bias", nn.Parameter(torch.ones(2).double())),
    "parameter exchanged": lambda m: setattr(m.linear, "weight", nn.Parameter(torch.ones(2, 3).double())),
    "forward hook": lambda m: m.linear.register_forward_hook(lambda module, given, out: out * 3),
    "forward hook with keywords": lambda m: m.linear.register_forward_hook(
        lambda module, given, named, out: out * 3, with_kwargs=True
    ),
    "hook before forward": lambda m: m.linear.register_forward_pre_hook(lambda module, given: (given[0] * 3,)),
    "hook of all modules": lambda m: nn.modules.module.register_module_forward_hook(
        lambda module, given, out: out * 3 if isinstance(module, nn.Linear) else None
    ),
    "forward of the instance": lambda m: setattr(m, "forward", types.MethodType(other_forward, m)),
    "forward of a layer": lambda m: setattr(m.linear, "forward", lambda x: F.linear(x, m.linear.weight) * 3),
    "forward of the class": lambda m: setattr(type(m), "forward", other_forward),
    "forward of torch's class": lambda m: setattr(nn.Linear, "forward", lambda self, x: F.linear(x, self.weight) * 3),
    "class of the instance": lambda m: setattr(m, "__class__", Other),
    "global variable": lambda m: set_global(3.0),
    "global dict": lambda m: TABLE.update(scale=3.0),
    "code of a function": other_code,
    "function of the Python module": lambda m: globals().update(helper=lambda x: x * 3),
    "function of torch's": lambda m: setattr(F, "linear", lambda x, w, b=None: x @ w.t() * 3),
}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Other(Model):
    forward = other_forward


@pytest.fixture(autouse=True)
def _undone() -> Any:
    """What a change does to more than one model is undone."""
    kept: list[tuple[Any, str, Any]] = [(nn.Linear, "forward", nn.Linear.forward), (F, "linear", F.linear)]
    kept += [(Model, "forward", Model.forward), (Model, "of_class", 1.0), (Settings, "scale", Settings.scale)]
    code, function = helper.__code__, helper
    yield
    for owner, name, value in kept:
        setattr(owner, name, value)
    globals().update(helper=function, SCALE=1.0)
    function.__code__ = code
    Model.shared["scale"] = TABLE["scale"] = FACTOR[0] = 1.0
    nn.modules.module._global_forward_hooks.clear()


def assert_is_of(lrp: relprop.LRP, model: nn.Module, x: Tensor) -> None:
    """The output is the model's, and the relevance is gradient × input, as it must be where all is linear."""
    v = x.clone().requires_grad_()
    expected = model(v)
    (gradient,) = torch.autograd.grad(expected[:, 1].sum(), v)
    found = lrp.explain(x, 1)
    assert_same(found.output, expected.detach(), 1e-12)
    assert_same(found.relevance, gradient * x, 1e-10)


@pytest.mark.parametrize("kind", CHANGES)
def test_whatever_changes_is_in_the_next_explanation(kind: str) -> None:
    model, x = Model().double().eval(), torch.rand(2, 3, dtype=torch.float64) + 1
    if kind == "closure":
        model.function = closure(FACTOR)
    lrp = relprop.LRP(model, "lrp0")
    assert_is_of(lrp, model, x)
    before = model(x)
    CHANGES[kind](model)
    assert not torch.allclose(model(x), before), "the change is none"
    assert_is_of(lrp, model, x)
    assert_is_of(lrp, model, x[:1])


def test_what_is_changed_back_needs_no_capture_more() -> None:
    """A hook for an ablation, a flag: each state is captured once."""
    model, x = Model().double().eval(), torch.rand(2, 3, dtype=torch.float64)
    lrp = relprop.LRP(model, "lrp0")
    graphs = set()
    for flag in (False, True, False, True):
        model.flag = flag
        assert_is_of(lrp, model, x)
        graphs.add(id(lrp.plan(x).graph))
    assert len(graphs) == 2
    handle = model.linear.register_forward_hook(lambda module, given, out: out * 0.5)
    assert_is_of(lrp, model, x)
    handle.remove()
    assert_is_of(lrp, model, x)
    assert id(lrp.plan(x).graph) in graphs


class Counts(nn.Module):
    """Counts its calls and keeps what it saw, as many models do, and does something else at the fifth call."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.linear, self.calls, self.seen, self.last, self.late = nn.Linear(3, 2, bias=False), 0, [], None, late

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(float(self.calls))
        self.seen = self.seen[-3:]
        return self.linear(x) * (2 if self.late and self.calls >= 5 else 1)


def test_a_counter_makes_no_captures() -> None:
    model, x = Counts().double(), torch.rand(2, 3, dtype=torch.float64)
    lrp = relprop.LRP(model, "lrp0")
    graphs = set()
    for _ in range(4):
        model(x)
        lrp.attribute(x, 1)
        graphs.add(id(lrp.plan(x).graph))
    assert len(graphs) == 1
    assert model.calls == 4, "explaining is no call that counts"
    assert model.seen == [2.0, 3.0, 4.0]


def test_a_counter_that_matters_at_last() -> None:
    """Its change did not matter for long; the call at which it does is explained as it is."""
    model, x = Counts(late=True).double(), torch.rand(2, 3, dtype=torch.float64)
    lrp = relprop.LRP(model, "lrp0")
    for calls in range(7):  # the next call is the fifth when four are counted
        found = lrp.explain(x, 1)
        assert_same(found.output, model.linear(x).detach() * (2 if calls >= 4 else 1), 1e-12)
        model(x)


def test_a_threshold_that_this_input_does_not_meet() -> None:
    """Another constant in the graph is another graph, though the output is the same for this input."""

    class Threshold(nn.Module):
        bound = 5.0

        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(max=self.bound)

    model, x = Threshold(), torch.tensor([[1.0, 2.0]])
    lrp = relprop.LRP(model, "lrp0")
    lrp.attribute(x, 1)
    for bound in (4.0, 3.0, 1.5):
        model.bound = bound
        assert_same(lrp.explain(x, 1).output, model(x))
        assert_same(lrp.explain(2 * x, 1).output, model(2 * x))


def test_a_model_with_more_than_can_be_watched_is_compared_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relprop.capture.reach.LIMIT", 3)
    model, x = Model().double().eval(), torch.rand(2, 3, dtype=torch.float64)
    lrp = relprop.LRP(model, "lrp0")
    assert_is_of(lrp, model, x)
    model.settings.factor = 3.0
    assert_is_of(lrp, model, x)


def test_a_generator_cannot_be_watched() -> None:
    class Cycles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factors = iter([])

        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    assert not State(Reach(Cycles())).reach.complete
    assert State(Reach(Model())).reach.complete


def test_names_that_users_give_are_not_asked_for() -> None:
    """``extra_repr`` may raise, or differ at every call; it decides nothing."""

    class Odd(nn.Linear):
        def extra_repr(self) -> str:
            raise RuntimeError("no words for it")

    lrp, x = relprop.LRP(Odd(3, 2).double()), torch.rand(2, 3, dtype=torch.float64)
    for _ in range(3):
        lrp.attribute(x, 1)
    assert sum(map(len, lrp._capturer._captures.values())) == 1


def test_captures_of_many_states_are_forgotten() -> None:
    class Scaled(nn.Module):
        scale = 0.0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    model, x = Scaled(), torch.ones(2, 3)
    lrp = relprop.LRP(model, "lrp0")
    lrp._capturer.limit = 4
    for i in range(8):
        model.scale = float(i)
        assert_same(lrp.attribute(x, 1)[:, 1], torch.full((2,), float(i)))
    assert sum(map(len, lrp._capturer._captures.values())) == 4


def test_values_that_a_model_keeps_are_not_kept_longer_by_us() -> None:
    """A model that keeps its last activations, as for visualisation."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.last = nn.Linear(3, 2).double(), None

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.linear(x)
            return self.last

    model, x = Keeps(), torch.rand(2, 3, dtype=torch.float64)
    with torch.no_grad():
        model(x)
    lrp = relprop.LRP(model)
    lrp.attribute(x, 1)
    old = weakref.ref(model.last)
    with torch.no_grad():
        model(x)
    gc.collect()
    assert old() is None


def test_the_state_of_a_network_is_looked_at_in_little_time() -> None:
    """Nothing is walked through where nothing has changed: all identities are in one list."""
    model = cnn()
    state = State(Reach(model))
    assert state.same()
    assert len(state._now) < 1500
    relprop.LRP(model).attribute(images(), 1)
    assert state.same(), "an explanation changes nothing"
