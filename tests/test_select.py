"""Selectors: which operations they match, and that the graph decides what is first, last and deep."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import composites, rules, select
from relprop.graph.graph import module_path

from .models import CNN, UNet, assert_same, cnn, images, mlp, prepared, torchvision_model

MARK = rules.Gamma(0.123)


def matched(model: nn.Module, selector: select.Selector, x: Tensor | None = None, rule=None) -> set[str]:
    """Modules of the operations that a selector gave its rule to."""
    x = images(2, 16) if x is None else x
    plan = relprop.LRP(model, [(selector, rule or MARK)]).plan(x)
    chosen = [step for step in plan.steps.values() if step.reason == str(selector)]
    return {module_path(step.node) or str(step.node.target) for step in chosen}


LAYERS = "conv1 conv2 fc"


@pytest.mark.parametrize(
    ("selector", "modules"),
    [
        (select.linear(), LAYERS),
        (select.convolution(), "conv1 conv2"),
        (select.dense(), "fc"),
        (select.convolution() | select.dense(), LAYERS),
        (select.linear() & select.convolution(), "conv1 conv2"),
        (select.linear() & ~select.dense(), "conv1 conv2"),
        (~(~select.dense()), "fc"),
        (~(select.activation() | select.pool()) & select.linear(), LAYERS),
        (select.module("conv*"), "conv1 conv2"),
        (select.module("fc"), "fc"),
        (select.module("conv1") | select.module("fc"), "conv1 fc"),
        (select.module_type(nn.Conv2d), "conv1 conv2"),
        (select.module_type("Linear"), "fc"),
        (select.op(torch.ops.aten.conv2d.default), "conv1 conv2"),
        (select.op(torch.ops.aten.conv2d), "conv1 conv2"),
        (select.first(select.linear()), "conv1"),
        (select.last(select.linear()), "fc"),
        (select.last(select.convolution()), "conv2"),
        (select.depth(0.0, 0.4) & select.linear(), "conv1"),
        (select.depth(0.4, 1.0) & select.linear(), "conv2 fc"),
        (select.depth(0.0, 1.0) & select.linear(), LAYERS),
    ],
    ids=str,
)
def test_what_a_selector_matches(selector: select.Selector, modules: str) -> None:
    assert matched(cnn(), selector) == set(modules.split())


@pytest.mark.parametrize(
    ("selector", "modules", "rule"),
    [
        (select.activation(), "relu relu@1", rules.Pass()),
        (select.pool(), "pool aten.max_pool2d.default", rules.Norm()),
        (select.average_pool(), "pool", rules.Norm()),
    ],
    ids=str,
)
def test_other_kinds(selector: select.Selector, modules: str, rule) -> None:
    assert matched(cnn(), selector, rule=rule) == set(modules.split())


def test_norm_that_was_folded_is_still_named() -> None:
    """The operation that a convolution and its norm became answers to both names."""
    assert matched(cnn(), select.module("bn1")) == {"conv1"}


# --------------------------------------------------------------------------------------------------- order in the graph


class Backwards(nn.Module):
    """Modules defined in the reverse order of their use."""

    def __init__(self):
        super().__init__()
        self.third, self.second, self.first = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(F.relu(self.first(x)))))


def test_graph_decides_what_is_first() -> None:
    model, x = Backwards().double(), torch.randn(2, 5).double()
    assert matched(model, select.first(select.linear()), x) == {"first"}
    assert matched(model, select.last(select.linear()), x) == {"third"}
    assert matched(model, select.linear() & select.depth(0.4, 0.6), x) == {"second"}


class Branches(nn.Module):
    """Two ways of different length, from two inputs."""

    def __init__(self):
        super().__init__()
        self.a1, self.a2, self.b1, self.out = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(6, 4), nn.Linear(4, 3)
        self.skip = nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y = F.relu(self.a2(F.relu(self.a1(a)))) + F.relu(self.b1(b))
        return self.out(y) + self.skip(a)


class Parts(nn.Module):
    """Operations with several results stand between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.a(x).chunk(2, 1)
        return self.c(self.b(one + two).topk(3, 1)[0])


def test_operations_with_several_results_have_a_before_and_a_behind() -> None:
    model, x = Parts(), torch.rand(2, 4)
    assert matched(model, select.first(select.linear()), x) == {"a"}
    assert matched(model, select.last(select.linear()), x) == {"c"}
    assert matched(model, select.depth(0.4, 0.6) & select.linear(), x) == {"b"}


def test_every_branch_has_its_first_and_last() -> None:
    model = Branches().double()
    x = (torch.randn(2, 5).double(), torch.randn(2, 6).double())
    assert matched(model, select.first(select.linear()), x) == {"a1", "b1", "skip"}
    assert matched(model, select.last(select.linear()), x) == {"out", "skip"}


def test_first_is_decided_among_what_is_explained() -> None:
    """With ``wrt`` only the operations behind that input count."""
    model = Branches().double()
    x = (torch.randn(2, 5).double(), torch.randn(2, 6).double())
    lrp = relprop.LRP(model, [(select.first(select.linear()), MARK)])
    plan = lrp.plan(x, wrt=1)
    assert [module_path(s.node) for s in plan.steps.values() if s.rule == MARK] == ["b1"]


def test_first_of_real_networks() -> None:
    """The stem is first, the classifier last; a shortcut is neither."""
    model = torchvision_model("resnet18")
    x = images(2, 32)
    assert matched(model, select.first(select.convolution()), x) == {"conv1"}
    assert matched(model, select.last(select.linear()), x) == {"fc"}
    assert matched(prepared(UNet()), select.first(select.linear())) == {"enter"}
    assert matched(prepared(UNet()), select.last(select.linear())) == {"leave"}


def test_shared_module_is_first_at_its_first_call_only() -> None:
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = F.relu(self.layer(x))
            return x

    model, x = Loop().double(), torch.randn(2, 4).double()
    assert matched(model, select.first(select.linear()), x) == {"layer"}
    assert matched(model, select.last(select.linear()), x) == {"layer@2"}
    assert matched(model, select.module("layer@1"), x) == {"layer@1"}
    assert matched(model, select.module("layer"), x) == {"layer", "layer@1", "layer@2"}


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.8])
def test_depths_divide_a_network(cut: float) -> None:
    """Every linear operation is on one side of any cut."""
    model, x = mlp(5, *[4] * 9, 3), torch.randn(2, 5).double()
    low = matched(model, select.linear() & select.depth(0.0, cut), x)
    high = matched(model, select.linear() & select.depth(cut, 1.0), x)
    assert not low & high
    assert len(low | high) == 10
    assert "0" in low
    assert "18" in high


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.5, 1.1)])
def test_depth_out_of_range(bounds: tuple[float, float]) -> None:
    with pytest.raises(relprop.SelectionError, match="depth"):
        select.depth(*bounds)


# ----------------------------------------------------------------------------------------------------------- composites


def test_first_match_wins() -> None:
    pairs = [(select.module("conv2"), rules.Epsilon(0.5)), (select.linear(), rules.LRP0())]
    plan = str(relprop.LRP(cnn(), pairs).plan(images(2, 16)))
    lines = {line.split()[2]: line for line in plan.splitlines() if line.startswith(("conv2d", "linear"))}
    assert "Epsilon(epsilon=0.5" in lines["conv2"]
    assert "LRP0()" in lines["conv1"]
    assert "LRP0()" in lines["fc"]
    assert "module('conv2')" in lines["conv2"]


@pytest.mark.parametrize(
    "selector",
    [select.recurrent(), select.module("nothing"), select.dense() & select.convolution(), ~select.everything()],
)
def test_unused_selector_is_an_error(selector: select.Selector) -> None:
    with pytest.raises(relprop.SelectionError) as error:
        relprop.LRP(cnn(), [(select.linear(), rules.LRP0()), (selector, rules.LRP0())]).plan(images(2, 16))
    assert str(selector) in str(error.value)


def test_unused_selector_that_is_allowed() -> None:
    pairs = [(select.linear(), rules.LRP0()), (select.recurrent(), rules.Stop())]
    composite = relprop.Composite(pairs, name="mine", strict=False)
    lrp = relprop.LRP(cnn(), composite)
    assert torch.equal(lrp.attribute(images(2, 16), 1), lrp.using("lrp0").attribute(images(2, 16), 1))
    assert "mine" in str(lrp.plan(images(2, 16)))


def test_every_argument_of_a_rule_shows_in_the_plan_mergekit_677() -> None:
    """mergekit#677: two rules that differ have plans that differ, and relevance too."""
    lrp, x = relprop.LRP(cnn()), images(2, 16)
    seen: dict[str, object] = {}
    for rule in (
        rules.LRP0(),
        rules.Epsilon(0.1),
        rules.Epsilon(0.2),
        rules.Epsilon(0.2, relative=True),
        rules.Gamma(0.1),
        rules.Gamma(0.2),
        rules.AlphaBeta(2.0, 1.0),
        rules.AlphaBeta(3.0, 2.0),
        rules.ZPlus(),
        rules.ZBox(-4.5, 4.5),
        rules.ZBox(-5.0, 4.5),
        rules.WSquare(),
        rules.Flat(),
    ):
        one = lrp.using([(select.module("conv2"), rule)])
        plan, relevance = str(one.plan(x)), one.attribute(x, 1)
        assert plan not in seen, f"{rule} does not show"
        assert all((relevance - other).abs().max() > 1e-9 for other in seen.values()), f"{rule} has no effect"
        seen[plan] = relevance


@pytest.mark.parametrize("name", sorted(composites.NAMED))
def test_named_composites(name: str) -> None:
    """By name, called, and as the function itself."""
    lrp, x = relprop.LRP(cnn()), images(2, 16).clamp(-2.9, 2.9)
    make = getattr(composites, name)
    expected = lrp.using(name).attribute(x, 1)
    assert torch.equal(lrp.using(make()).attribute(x, 1), expected)
    assert torch.equal(lrp.using(make).attribute(x, 1), expected)
    assert make().name == name
    assert name in str(lrp.using(name).plan(x))


def test_auto_says_what_it_chose() -> None:
    for model, x, words in (
        (cnn(), images(2, 16), "convolution"),
        (mlp(5, 4, 3), torch.randn(2, 5).double(), "dense"),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval(),
            torch.randn(2, 3, 8).double(),
            "attention",
        ),
    ):
        lrp = relprop.LRP(model)
        plan = lrp.plan(x)
        assert "auto" in str(plan)
        assert words in str(plan)
        if words != "attention":
            assert_same(lrp.attribute(x, 1), lrp.using(plan.composite.name).attribute(x, 1))


@pytest.mark.parametrize(
    "end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sequential(nn.Softmax(1), nn.Unflatten(1, (3, 1)))]
)
def test_auto_takes_a_softmax_at_the_end_for_no_attention(end: nn.Module) -> None:
    model = nn.Sequential(cnn(), end).double().eval()
    plan = relprop.LRP(model, "auto").plan(images(2, 16))
    assert "convolution" in str(plan)
    assert "attention" not in str(plan)


def test_plan_is_a_table_of_every_step() -> None:
    plan = relprop.LRP(CNN().double().eval(), "epsilon_plus").plan(images(2, 16))
    lines = str(plan).splitlines()
    assert len(lines) == len(plan.steps) + 3
    assert all(word in lines[1] for word in ("node", "operation", "module", "rule", "source"))
    assert all("models.py:" in line for line in lines[3:])
    assert sum("aten.conv2d" in line for line in lines) == 2
    assert not any("batch_norm" in line or "dropout" in line for line in lines)
