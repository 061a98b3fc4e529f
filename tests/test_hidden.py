"""Relevance of hidden tensors: recording it, starting from it, keeping only parts of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import rules, select, targets

from .models import Residual, UNet, assert_balanced, assert_same, cnn, images, mlp, prepared, score


@pytest.fixture(scope="module")
def lrp() -> relprop.LRP:
    return relprop.LRP(cnn(), "lrp0")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return images(2, 16)


def activations(model: nn.Module, x: Tensor, path: str) -> Tensor:
    """The output of a module, and the gradient of class 1 at it, times each other."""
    found = []
    hook = model.get_submodule(path).register_forward_hook(lambda m, i, o: found.append(o))
    output = model(x.clone().requires_grad_())
    hook.remove()
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), found[-1])
    return (found[-1] * gradient).detach()


# ------------------------------------------------------------------------------------------------------------ recording


@pytest.mark.parametrize("path", ["conv1", "bn1", "conv2", "pool", "fc"])
def test_recorded_relevance(lrp: relprop.LRP, x: Tensor, path: str) -> None:
    """LRP-0 of a hidden tensor is its gradient times its value; a norm and its convolution are one operation."""
    explanation = lrp.explain(x, 1, record=path)
    model = lrp._capturer.model
    assert list(explanation.relevances) == [path]
    assert_same(explanation.relevances[path], activations(model, x, "bn1" if path == "conv1" else path), 1e-10)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "gamma", "epsilon_plus_flat"])
@pytest.mark.parametrize("bias", ["absorb", "redistribute", "zero"])
def test_a_layer_has_the_seed_less_what_was_absorbed_above(
    lrp: relprop.LRP, x: Tensor, composite: str, bias: str
) -> None:
    explanation = lrp.using(composite, bias=bias).explain(x, 1, record=["conv1", "conv2", "fc"])
    assert_same(explanation.relevances["fc"].flatten(1).sum(1), explanation.ledger.seed)
    for path, above in {"conv2": ("fc", "pool"), "conv1": ("fc", "pool", "conv2", "relu")}.items():
        sinks = [a for (_, node), a in explanation.ledger.sinks.items() if node.startswith(above)]
        total = explanation.relevances[path].flatten(1).sum(1)
        assert_same(total + sum(sinks), explanation.ledger.seed, 1e-9)


def test_patterns(lrp: relprop.LRP, x: Tensor) -> None:
    everything = lrp.explain(x, 1, record="*").relevances
    assert {"conv1", "bn1", "relu", "relu@1", "conv2", "pool", "fc"} <= set(everything)
    assert set(lrp.explain(x, 1, record=["conv*", "fc"]).relevances) == {"conv1", "conv2", "fc"}
    assert set(lrp.explain(x, 1, record="conv[2]").relevances) == {"conv2"}
    for name, relevance in everything.items():
        assert torch.equal(relevance, lrp.explain(x, 1, record=name).relevances[name])


@pytest.mark.parametrize("composite", ["lrp0", "epsilon_plus", "epsilon_gamma_box"])
def test_recording_changes_nothing(lrp: relprop.LRP, composite: str) -> None:
    x = images(2, 16).clamp(-2.9, 2.9)
    one = lrp.using(composite)
    assert torch.equal(one.explain(x, 1, record="*").relevance, one.attribute(x, 1))


def test_every_node_of_a_network_can_be_recorded_lxt_8() -> None:
    """LXT#8, TorchLRP#2: every module that computes something, in-place ones too."""
    model, x = prepared(UNet()), images(2, 16)
    explanation = relprop.LRP(model, "epsilon").explain(x, score, record="*")
    expected = {"enter", "down", "shared", "shared@1", "up", "side", "leave"}
    assert set(explanation.relevances) == expected
    assert all(torch.isfinite(r).all() for r in explanation.relevances.values())
    assert_same(explanation.relevances["leave"].flatten(1).sum(1), explanation.ledger.seed)


class Twice(nn.Module):
    def __init__(self, bias: bool = True):
        super().__init__()
        self.layer, self.out = nn.Linear(5, 5, bias=bias), nn.Linear(5, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.layer(F.relu(self.layer(x)))))


def test_module_that_is_called_twice() -> None:
    """The second call is ``path@1``; the path alone names both in a pattern."""
    model, x = Twice().double(), torch.randn(2, 5).double()
    lrp = relprop.LRP(model, "lrp0")
    relevances = lrp.explain(x, 1, record="layer").relevances
    assert set(relevances) == {"layer", "layer@1"}
    first = model.layer(x)
    second = model.layer(F.relu(first))
    g1, g2 = torch.autograd.grad(model.out(F.relu(second))[:, 1].sum(), [first, second])
    assert_same(relevances["layer"], (first * g1).detach(), 1e-10)
    assert_same(relevances["layer@1"], (second * g2).detach(), 1e-10)
    assert set(lrp.explain(x, 1, record="layer@1").relevances) == {"layer@1"}


def test_block_is_recorded_by_its_output() -> None:
    model, x = Residual().double(), torch.randn(2, 5).double()
    relevances = relprop.LRP(model, "lrp0").explain(x, 1, record=["f", "f.2", "f.0"]).relevances
    assert torch.equal(relevances["f"], relevances["f.2"])
    assert_same(relevances["f"], activations(model, x, "f"), 1e-10)


def test_hidden_tensor_that_gets_nothing() -> None:
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.other = nn.Linear(5, 3), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.used(x), self.other(x)

    x = torch.randn(2, 5).double()
    explanation = relprop.LRP(Unused().double(), "lrp0").explain(x, lambda y: y[0][:, 0], record="*")
    assert explanation.relevances["used"].any()
    assert not explanation.relevances["other"].any()
    assert explanation.relevances["other"].shape == (2, 2)


def test_several_targets_are_recorded_one_by_one(lrp: relprop.LRP, x: Tensor) -> None:
    several = lrp.explain(x, targets.several([0, 1]), record="conv2").relevances["conv2"]
    for i in range(2):
        assert torch.equal(several[i], lrp.explain(x, i, record="conv2").relevances["conv2"])


# ----------------------------------------------------------------------------------------------------------------- mask


@pytest.mark.parametrize("composite", ["lrp0", "epsilon", "epsilon_plus", "gamma"])
@pytest.mark.parametrize("path", ["conv1", "conv2", "pool"])
def test_channels_sum_to_the_whole_crp(lrp: relprop.LRP, x: Tensor, composite: str, path: str) -> None:
    """Conditional relevance: a channel at a time, and all of them together are the unmasked explanation."""
    one = lrp.using(composite)
    whole = one.explain(x, 1, record=path)
    channels = whole.relevances[path].shape[1]
    parts = [one.explain(x, 1, mask={path: c}) for c in range(channels)]
    assert_same(sum(p.relevance for p in parts), whole.relevance, 1e-9)
    for part in parts:
        assert_balanced(part)
    kept = sum(p.ledger.by_kind()["masked"] for p in parts)
    total = whole.relevances[path].flatten(1).sum(1)
    assert_same(kept, (channels - 1) * total, 1e-9)


def test_mask_keeps_only_its_channels(lrp: relprop.LRP, x: Tensor) -> None:
    explanation = lrp.explain(x, 1, mask={"conv2": [1, 4]}, record=["conv2", "conv1"])
    plain = lrp.explain(x, 1, record="conv2")
    recorded = explanation.relevances["conv2"]
    assert_same(recorded[:, [1, 4]], plain.relevances["conv2"][:, [1, 4]])
    assert not recorded[:, [0, 2, 3, 5]].any()
    lost = plain.relevances["conv2"][:, [0, 2, 3, 5]].flatten(1).sum(1)
    assert_same(explanation.ledger.by_kind()["masked"], lost)


def test_forms_of_masks(lrp: relprop.LRP, x: Tensor) -> None:
    expected = lrp.explain(x, 1, mask={"conv2": [1, 4]}).relevance
    kept = torch.zeros(6).double()
    kept[[1, 4]] = 1
    image = kept[:, None, None]
    for mask in (
        [4, 1],
        [-5, -2],
        torch.tensor([1, 4]),
        image,
        image.bool(),
        image.float(),
        image.expand(2, 6, 8, 8),
        lambda a: image.to(a),
    ):
        assert_same(lrp.explain(x, 1, mask={"conv2": mask}).relevance, expected, 1e-12)
    half = lrp.explain(x, 1, mask={"conv2": torch.full((1,), 0.5)})
    assert_same(2 * half.relevance, lrp.attribute(x, 1), 1e-9)
    assert_balanced(half)


def test_masks_at_two_modules(lrp: relprop.LRP, x: Tensor) -> None:
    explanation = lrp.explain(x, 1, mask={"conv2": [1, 4], "conv1": 2})
    assert_balanced(explanation)
    order = lrp.explain(x, 1, mask={"conv1": 2, "conv2": [1, 4]})
    assert torch.equal(explanation.relevance, order.relevance)
    parts = [lrp.explain(x, 1, mask={"conv2": [1, 4], "conv1": c}).relevance for c in range(4)]
    assert_same(sum(parts), lrp.explain(x, 1, mask={"conv2": [1, 4]}).relevance, 1e-9)


def test_mask_of_one_call_of_a_module() -> None:
    model, x = Twice().double(), torch.randn(2, 5).double()
    lrp = relprop.LRP(model, "lrp0")
    parts = [lrp.explain(x, 1, mask={"layer@1": c}).relevance for c in range(5)]
    assert_same(sum(parts), lrp.attribute(x, 1), 1e-9)


# ------------------------------------------------------------------------------------------------------------------- at


def test_start_at_a_hidden_channel(lrp: relprop.LRP, x: Tensor) -> None:
    """The explanation of a channel is that of a network which ends there."""
    model = lrp._capturer.model
    v = x.clone().requires_grad_()
    hidden = model.conv2(F.max_pool2d(F.relu(model.bn1(model.conv1(v))), 2))
    for channels in ([3], [0, 5], None):
        kept = hidden if channels is None else hidden[:, channels]
        (gradient,) = torch.autograd.grad(kept.sum(), v, retain_graph=True)
        explanation = lrp.explain(x, at=("conv2", channels) if channels else "conv2")
        assert_same(explanation.relevance, gradient * x, 1e-10)
        assert_same(explanation.value, kept.flatten(1).sum(1).detach())
        assert_balanced(explanation)


def test_start_at_a_hidden_unit_seed(lrp: relprop.LRP, x: Tensor) -> None:
    explanation = lrp.explain(x, at=("conv2", 3), seed="unit")
    plain = lrp.explain(x, at=("conv2", 3))
    assert_same(explanation.relevance * plain.value[:, None, None, None], plain.relevance, 1e-9)
    assert_same(explanation.ledger.seed, torch.ones(2).double())


def test_start_and_mask(lrp: relprop.LRP, x: Tensor) -> None:
    parts = [lrp.explain(x, at=("conv2", 3), mask={"conv1": c}) for c in range(4)]
    assert_same(sum(p.relevance for p in parts), lrp.explain(x, at=("conv2", 3)).relevance, 1e-9)


def test_start_at_the_output_is_the_target(lrp: relprop.LRP, x: Tensor) -> None:
    assert_same(lrp.explain(x, at=("fc", 1)).relevance, lrp.attribute(x, 1), 1e-12)


def test_start_at_a_module_that_is_called_twice() -> None:
    lrp, x = relprop.LRP(Twice().double(), "lrp0"), torch.randn(2, 5).double()
    with pytest.raises(relprop.SelectionError, match=r"several.*layer@1"):
        lrp.explain(x, at="layer")
    model = lrp._capturer.model
    v = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.layer(F.relu(model.layer(v)))[:, 2].sum(), v)
    assert_same(lrp.explain(x, at=("layer@1", 2)).relevance, gradient * x, 1e-10)


def test_below_the_start_alone(lrp: relprop.LRP, x: Tensor) -> None:
    """Rules are chosen for what is below the start: the last layer of that part is the last one."""
    composite = [(select.last(select.linear()), rules.Stop()), (select.linear(), rules.LRP0())]
    explanation = lrp.using(composite).explain(x, at="conv2")
    assert not explanation.relevance.any()
    assert_same(explanation.ledger.by_kind()["stopped"], explanation.value)


def test_vectors_have_their_channels_in_dimension_one() -> None:
    model, x = mlp(5, 7, 3), torch.randn(2, 5).double()
    lrp = relprop.LRP(model, "lrp0")
    recorded = lrp.explain(x, 1, mask={"0": 6}, record="0").relevances["0"]
    assert not recorded[:, :6].any()


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp, self.conv, self.out = nn.Linear(5, 7), nn.Conv1d(7, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.conv(F.relu(self.mlp(x)).transpose(1, 2))).mean(2))


def test_sequences_have_their_channels_last_unless_convolved() -> None:
    model, x = Sequence().double(), torch.randn(2, 6, 5).double()
    lrp = relprop.LRP(model, "lrp0")
    dense = lrp.explain(x, 1, mask={"mlp": 6}, record="mlp").relevances["mlp"]
    assert dense.shape == (2, 6, 7)
    assert not dense[..., :6].any()
    convolved = lrp.explain(x, 1, mask={"conv": 3}, record="conv").relevances["conv"]
    assert convolved.shape == (2, 4, 6)
    assert not convolved[:, :3].any()


@pytest.mark.parametrize("pad", [nn.ZeroPad2d(1), nn.ZeroPad2d((1, 0, 1, 0))])
@pytest.mark.parametrize("options", [{"record": ["pad"]}, {"mask": {"pad": 0}}, {"at": "pad"}])
def test_padding_that_became_the_convolutions_own(pad: nn.Module, options: dict) -> None:
    """What comes before it has its relevance; the error says so."""
    parts = {"first": nn.Conv2d(3, 4, 1), "pad": pad, "drop": nn.Dropout(), "conv": nn.Conv2d(4, 2, 2)}
    model = nn.Sequential(OrderedDict(parts))
    lrp = relprop.LRP(prepared(model), "epsilon_plus")
    x, total = images(size=6), (lambda y: y.flatten(1).sum(1))
    with pytest.raises(relprop.SelectionError, match=r"'pad' has no output of its own: it pads for conv .* before it"):
        lrp.explain(x, total, **options)
    with pytest.raises(relprop.SelectionError, match="'drop' has no output of its own: it hands on its input"):
        lrp.explain(x, total, record="drop")
    explanation = lrp.explain(x, total, record="first")
    padded = relprop.LRP(model.conv, "epsilon_plus").attribute(pad(model.first(x).detach()), total)
    assert_same(pad(explanation.relevances["first"]), padded)


class TwoWays(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x, 3 * x


class Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.chunk(5 * x, 2, 1)


class Several(nn.Module):
    """y = 2 x0 + 3 x1 for the first, 5 (x0 - x1) for the second."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.inner(x)
        return one[:, 0] + two[:, -1] if isinstance(self.inner, TwoWays) else (one - two)[:, 0]


@pytest.mark.parametrize(
    ("inner", "first", "second"),
    [(TwoWays(), [[2.0, 0.0]], [[0.0, 12.0]]), (Halves(), [[5.0]], [[-20.0]])],
    ids=["two operations", "one operation with two results"],
)
def test_every_output_of_a_module_has_a_name(inner: nn.Module, first: list[Any], second: list[Any]) -> None:
    lrp, x = relprop.LRP(Several(inner)), torch.tensor([[1.0, 4.0]]).double()
    found = lrp.explain(x, record="inner")
    assert list(found.relevances) == ["inner[0]", "inner[1]"]
    assert_same(found.relevances["inner[0]"], torch.tensor(first).double())
    assert_same(found.relevances["inner[1]"], torch.tensor(second).double())
    assert list(lrp.explain(x, record="inner[1]").relevances) == ["inner[1]"]

    nothing = lrp.explain(x, mask={"inner": torch.zeros(1)})  # the path alone stands for all of them
    assert_same(nothing.ledger.by_kind()["masked"], nothing.value)
    without = lrp.explain(x, mask={"inner[1]": torch.zeros(1)})
    assert_same(without.ledger.by_kind()["masked"], torch.tensor(second).double().sum(1))
    assert_same(without.relevance.sum(1), torch.tensor(first).double().sum(1))

    begun = lrp.explain(x, at=("inner[0]", 0))  # relevance starts as this output's first channel
    assert begun.relevance.sum() == begun.value
    with pytest.raises(relprop.SelectionError, match=r"inner\[0\], inner\[1\]; name one"):
        lrp.explain(x, at="inner")
