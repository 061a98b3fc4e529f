"""A call leaves nothing behind: not in the model, not in torch, not in memory. Also one that fails."""

from __future__ import annotations

import gc
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules, select

from .models import assert_same, cnn, images, mlp


def fingerprint(model: nn.Module) -> dict[str, object]:
    """All that a call could change."""
    found: dict[str, object] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[name] = (
            id(tensor),
            tensor.data_ptr(),
            tensor._version,
            tensor.detach().numpy().tobytes(),
            tensor.requires_grad,
            id(tensor.grad),
            None if tensor.grad is None else tensor.grad.numpy().tobytes(),
            len(tensor._backward_hooks or ()),
        )
    for path, module in model.named_modules():
        found[f"module {path}"] = (
            id(module),
            type(module),
            module.training,
            module.forward.__func__,
            sorted(vars(module)),
            [len(v) for k, v in sorted(vars(module).items()) if k.endswith("_hooks")],
        )
    return found


def process() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_rng_state().numpy().tobytes(),
        torch.are_deterministic_algorithms_enabled(),
        len(torch.overrides._get_current_function_mode_stack()),
        len(torch.nn.modules.module._global_forward_hooks),
        torch.nn.functional.relu,
        torch.nn.Linear.forward,
    )


def model_with_everything() -> nn.Module:
    """Gradients and hooks of the user's own, and both frozen and trainable parameters."""
    model = cnn()
    model(images()).square().sum().backward()
    model.conv1.requires_grad_(False)
    model.conv1.weight.grad = None
    model.conv2.register_forward_hook(lambda *_: None)
    model.fc.register_full_backward_hook(lambda *_: None)
    return model


CALLS = {
    "attribute": lambda lrp, x: lrp.attribute(x, 1),
    "explain": lambda lrp, x: lrp.explain(x, 1, record=["*"]),
    "parts": lambda lrp, x: lrp.attribute(x, 1, micro_batch=1),
    "several": lambda lrp, x: lrp.attribute(x, [0, 1, 2]),
    "function": lambda lrp, x: lrp.attribute(x, lambda y: y[:, 0] - y[:, 1]),
    "mask": lambda lrp, x: lrp.explain(x, 1, mask={"conv1": [0, 2]}),
    "at": lambda lrp, x: lrp.explain(x, at=("conv2", 3)),
    "plan": lambda lrp, x: str(lrp.plan(x)),
    "check": lambda lrp, x: lrp.check(x),
}


@pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")
@pytest.mark.parametrize("call", CALLS)
def test_model_is_untouched_captum_1055(call: str) -> None:
    """zennit#11, captum#1055: bytes, identities, gradients, hooks, flags; and the process around the model."""
    model, x = model_with_everything(), images()
    given = x.clone()
    before, around = fingerprint(model), process()
    for bias in ("absorb", "redistribute", "zero"):
        lrp = relprop.LRP(model, "epsilon_gamma_box", bias=bias)
        CALLS[call](lrp, x)
        CALLS[call](lrp, x)
    assert fingerprint(model) == before
    assert process() == around
    assert torch.equal(x, given)
    assert x.grad is None


def broken(call: relprop.rules.base.Call, message: relprop.Message) -> relprop.Message:
    raise ZeroDivisionError("in the middle of the sweep")


FAILURES = {
    "target": lambda lrp, x: lrp.attribute(x, 99),
    "function": lambda lrp, x: lrp.attribute(x, lambda y: 1 / 0),
    "shape": lambda lrp, x: lrp.attribute(x[:, :2]),
    "nan": lambda lrp, x: lrp.attribute(x * float("nan")),
    "selector": lambda lrp, x: lrp.using([(select.recurrent(), rules.Stop())]).attribute(x),
    "rule": lambda lrp, x: lrp.using([(select.module("conv2"), rules.table.FunctionRule(broken))]).attribute(x, 1),
    "bounds": lambda lrp, x: lrp.using([(select.first(select.linear()), rules.ZBox([1.0], [2.0, 3.0]))]).attribute(
        x, 1
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_call_leaves_the_model_untouched_captum_1238(failure: str) -> None:
    """captum#1180, #1238: an exception in the middle changes neither the model nor the next answer."""
    model, x = model_with_everything(), images()
    lrp = relprop.LRP(model, "epsilon")
    expected = lrp.attribute(x, 1)
    before, around = fingerprint(model), process()
    with pytest.raises((relprop.RelpropError, ZeroDivisionError, RuntimeError)):
        FAILURES[failure](lrp, x)
    assert fingerprint(model) == before
    assert process() == around
    assert torch.equal(lrp.attribute(x, 1), expected)


def test_capture_that_fails_leaves_the_model_untouched() -> None:
    model = model_with_everything()
    model.train()
    before = fingerprint(model)
    with pytest.raises(relprop.CaptureError):
        relprop.LRP(model).attribute(images())
    assert fingerprint(model) == before


@pytest.mark.parametrize("captured", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda m: m.__name__)
def test_gradient_modes(mode: type, captured: bool) -> None:
    model, x = cnn(), images()
    expected = relprop.LRP(model, "epsilon_plus").attribute(x, 1)
    lrp = relprop.LRP(model, "epsilon_plus")
    if captured:
        lrp.attribute(x, 1)
    with mode():
        assert torch.equal(lrp.attribute(x, 1), expected)
        assert torch.equal(lrp.attribute(images(), 1), expected), "with an input made within the mode"
        assert torch.equal(lrp.explain(x, lambda y: y[:, 1]).relevance, expected)
    assert torch.equal(lrp.attribute(x, 1), expected)


def test_model_made_under_inference_mode() -> None:
    with torch.inference_mode():
        model, x = cnn(), images()
    with pytest.warns(UserWarning, match="recorded"):  # torch.export refuses it
        relevance = relprop.LRP(model, "lrp0").attribute(x, 1)
    assert_same(relevance, relprop.LRP(cnn(), "lrp0").attribute(images(), 1))


def test_result_shares_no_memory_with_the_input() -> None:
    for model in (nn.Identity(), nn.Flatten(), cnn()):
        x = images()
        target = (lambda y: y.flatten(1).sum(1)) if not hasattr(model, "fc") else 1
        explanation = relprop.LRP(model, "lrp0").explain(x, target)
        explanation.relevance.zero_()
        assert torch.equal(x, images())


def test_memory_stays_flat_captum_1841() -> None:
    """captum#1055, #1841: a thousand calls, alternating in what they ask for, keep no tensor and no object."""
    model, x = mlp(8, 16, 3), torch.randn(4, 8).double()
    lrp = relprop.LRP(model, "epsilon")

    def calls(n: int) -> None:
        for i in range(n):
            lrp.attribute(x, i % 3)
            if i % 4 == 0:
                lrp.explain(x, lambda y: y[:, 0], record="0")
            if i % 50 == 0:
                with pytest.raises(relprop.TargetError):
                    lrp.attribute(x, 7)

    def objects() -> tuple[int, int]:
        gc.collect()
        return len(gc.get_objects()), sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    calls(100)
    before = objects()
    calls(1000)
    after = objects()
    assert after[1] <= before[1], "tensors are kept"
    assert after[0] <= before[0] + 200, "objects are kept"


@pytest.mark.parametrize("call", ["attribute", "explain", "several", "function"])
def test_values_are_let_go_at_once(call: str) -> None:
    """No value of a call hangs in a cycle, which would keep the memory of a GPU until Python collects its garbage."""
    lrp, x = relprop.LRP(cnn(), "epsilon_plus"), images()
    for _ in range(2):
        CALLS[call](lrp, x)
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
        for _ in range(5):
            CALLS[call](lrp, x)
        after = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
    finally:
        gc.enable()
    assert after == before


def test_a_new_function_as_target_at_every_call_adds_no_plan() -> None:
    lrp, x = relprop.LRP(cnn()), images()
    for i in range(5):
        lrp.attribute(x, lambda y, i=i: y[:, 0] * i + 1)
    assert len(lrp.session._plans) == 1


def test_two_threads_at_once() -> None:
    """Calls of two threads, on one LRP and on two of one model, do not meet."""
    model = cnn()
    inputs = [images(2, seed=i) for i in range(4)]
    shared, own = relprop.LRP(model, "epsilon_plus"), relprop.LRP(model, "gamma")
    expected = [(shared.attribute(x, 1), own.attribute(x, 2)) for x in inputs]
    start = threading.Barrier(4)

    def work(i: int) -> bool:
        start.wait()
        with torch.inference_mode() if i == 1 else torch.enable_grad():
            for _ in range(10):
                plus, gamma = shared.attribute(inputs[i], 1), own.attribute(inputs[i], 2)
                if not (torch.equal(plus, expected[i][0]) and torch.equal(gamma, expected[i][1])):
                    return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_two_threads_capture_at_once() -> None:
    model, x = cnn(), images()
    expected = relprop.LRP(model, "epsilon").attribute(x, 1)
    lrp = relprop.LRP(model, "epsilon")
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")
        results = list(pool.map(lambda _: lrp.attribute(x, 1), range(2)))
    assert all(torch.equal(r, expected) for r in results)


def test_user_rules_are_kept_between_calls() -> None:
    """captum deletes the rules of a user after the first call."""
    lrp, x = (
        relprop.LRP(cnn(), [(select.convolution(), rules.Gamma(0.5)), (select.dense(), rules.Epsilon(0.3))]),
        images(),
    )
    first, plan = lrp.attribute(x, 1), str(lrp.plan(x))
    for _ in range(3):
        assert torch.equal(lrp.attribute(x, 1), first)
    assert str(lrp.plan(x)) == plan
    assert "Gamma(gamma=0.5" in plan
    assert "Epsilon(epsilon=0.3" in plan


# ------------------------------------------------------------------------------------------ what a model writes to


class Writes(nn.Module):
    """Writes to all that it is given, and to what is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen, self.last, self.calls = nn.Linear(3, 2), [], None, 0
        self.kept: dict[str, object] = {}
        self.sum = torch.zeros(3, dtype=torch.float64)
        self.array = np.zeros(3)
        self.register_buffer("running", torch.zeros(3))

    def forward(self, x: Tensor, options: dict[str, list[Tensor]]) -> Tensor:
        self.calls += 1
        self.last = x
        self.seen.append(x)
        self.kept["x"] = x
        self.running += 1
        options["more"].append(x)
        options["xs"][0].mul_(2)
        options["new"] = x
        return self.linear(x.add_(1) + options["xs"][0])


def contents(model: nn.Module) -> dict[str, object]:
    """What a model holds beside parameters: containers with their contents."""

    def content(value: object) -> object:
        if isinstance(value, Tensor):
            return id(value), value.tolist(), value._version
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, dict):
            return {k: content(v) for k, v in value.items()}
        return [content(v) for v in value] if isinstance(value, list) else value

    return {f"{path}.{k}": content(v) for path, m in model.named_modules() for k, v in vars(m).items()}


@pytest.mark.parametrize("samples", [1, 2])
def test_arguments_and_attributes_are_left_as_they_were(samples: int) -> None:
    """The model runs on copies, however it is captured; it doubles one input in place and adds one to the other."""
    model = Writes().double().eval()
    given = torch.rand(samples, 3, dtype=torch.float64), torch.rand(samples, 3, dtype=torch.float64)
    x, y = (t.clone() for t in given)
    options: dict[str, list[Tensor]] = {"xs": [y], "more": []}
    before = contents(model)
    found = relprop.LRP(model, "lrp0").explain((x, options), 1)
    assert contents(model) == before
    assert options.keys() == {"xs", "more"}
    assert options["more"] == []
    assert options["xs"][0] is y
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])
    w, b = model.linear.weight[1].detach(), model.linear.bias.detach()
    assert_same(found.output, (given[0] + 1 + 2 * given[1]) @ model.linear.weight.detach().t() + b)
    assert_same(found.relevance[0], given[0] * w)
    assert_same(found.relevance[1]["xs"][0], 2 * given[1] * w)


class DataDependentWrites(Writes):
    def forward(self, x: Tensor, options: dict[str, list[Tensor]]) -> Tensor:
        y = super().forward(x, options)
        self.sum.add_(x[0])
        self.array += 1
        return y if y.sum() > -1e9 else -y


def test_a_recorded_model_is_left_as_it_was() -> None:
    model = DataDependentWrites().double().eval()
    x, y = torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    before, given = contents(model), x.clone()
    options: dict[str, list[Tensor]] = {"xs": [y], "more": []}
    lrp = relprop.LRP(model, "lrp0")
    with pytest.warns(UserWarning, match="recorded"):
        lrp.attribute((x, options), 1)
    lrp.attribute((x, options), 1)
    assert contents(model) == before
    assert torch.equal(x, given)
    assert options == {"xs": [y], "more": []}


@pytest.mark.parametrize("where", ["dict", "list", "attribute", "variable"])
def test_hooks_keep_nothing_of_a_capture(where: str) -> None:
    """Hooks that store activations would hold torch.export's tensors without values, and break at their next use."""

    class Keeper:
        last: Tensor | None = None

        def __call__(self, module: nn.Module, given: object, out: Tensor) -> None:
            self.last = out

    model, x, kept, listed, keeper, variable = cnn(), images(), {}, [], Keeper(), None

    def assign(module: nn.Module, given: object, out: Tensor) -> None:
        nonlocal variable
        variable = out

    hooks = {
        "dict": lambda module, given, out: kept.__setitem__("conv1", out),
        "list": lambda module, given, out: listed.append(out),
        "attribute": keeper,
        "variable": assign,
    }
    model.conv1.register_forward_hook(hooks[where])
    lrp = relprop.LRP(model)
    lrp.attribute(x, 1)
    assert (kept, listed, keeper.last, variable) == ({}, [], None, None)
    model(x)
    mine = [*kept.values(), *listed, *(t for t in (keeper.last, variable) if t is not None)]
    lrp.attribute(x, 1)
    assert len(mine) == 1
    assert [*kept.values(), *listed, *(t for t in (keeper.last, variable) if t is not None)][0] is mine[0]
    assert type(mine[0]) is Tensor


class Cache:
    """As language models are given one: an object that torch.export does not know."""

    def __init__(self, *seen: Tensor) -> None:
        self.seen, self.length = list(seen), len(seen)

    def update(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.length += 1
        return torch.stack(self.seen).sum(0)


class Caching(nn.Module):
    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        return cache.update(x) * cache.length


def test_an_object_is_told_by_what_it_holds() -> None:
    """Never by its identity: the same object with other contents is another input, an equal one is the same."""
    x, cache = torch.tensor([[1.0, 2.0]], dtype=torch.float64), Cache()
    lrp = relprop.LRP(Caching(), "lrp0")
    with pytest.warns(UserWarning, match="recorded"):
        first = lrp.explain((x, cache), 1)
    assert_same(first.output, x)
    assert cache.seen == []
    cache.seen.append(10 * x)
    assert_same(lrp.explain((x, cache), 1).output, 11 * x)
    assert_same(lrp.explain((x, Cache(10 * x)), 1).output, 11 * x * 2)
    cache.seen[0].mul_(2)
    found = lrp.explain((x, cache), 1)
    assert_same(found.output, 21 * x)
    assert_same(found.relevance[0][:, 1], x[:, 1])  # what the cache holds is no input that is explained
    graph = lrp.plan((x, cache)).graph
    assert lrp.plan((x, Cache())).graph is not graph
    cache.__dict__.update(Cache(20 * x).__dict__, length=0)
    other = Cache(20 * x)
    other.length = 0
    assert lrp.plan((x, cache)).graph is lrp.plan((x, other)).graph


def test_computed_tensors_in_an_object_are_copied() -> None:
    """Which deepcopy refuses by itself."""
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    cache = Cache(2 * x.clone().requires_grad_())
    with pytest.warns(UserWarning, match="recorded"):
        found = relprop.LRP(Caching(), "lrp0").explain((x, cache), 1)
    assert_same(found.output, 3 * x * 2)
    assert len(cache.seen) == 1


def test_an_object_that_cannot_be_copied_is_never_taken_for_another() -> None:
    class Locked(Cache):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def update(self, x: Tensor) -> Tensor:
            return x * (2 + self.length)

    x, cache, lrp = torch.tensor([[1.0, 2.0]], dtype=torch.float64), Locked(), relprop.LRP(Caching(), "lrp0")
    with pytest.warns(UserWarning, match="recorded"):
        lrp.attribute((x, cache), 1)
    cache.length = 3
    assert_same(lrp.explain((x, cache), 1).output, x * 5 * 3)


def test_what_others_draw_is_left_alone() -> None:
    """NumPy's and Python's random numbers, from which a model draws without an effect."""

    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 + 0 * (random.random() + np.random.rand() + float(torch.rand(())))  # noqa: NPY002

    torch.manual_seed(0)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    with pytest.warns(UserWarning, match="recorded"):
        relprop.LRP(Draws()).attribute(torch.ones(1, 2), 1)
    assert before[0] == random.getstate()
    assert before[1] == str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[2], torch.get_rng_state())
