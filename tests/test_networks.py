"""Whole networks, stock and home-made: outputs, books and relevance against an independent reference.

The reference is the gradient of the model itself, run with every operation replaced by one that has the same value and
the derivative that its rule asks for (:class:`Held`). It shares no code with relprop: it works on the model's own calls
through a ``TorchFunctionMode``, with batch norms merged by torch.
"""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import relprop
from relprop import composites, rules

from .models import UNet, assert_balanced, assert_same, gradient_times_input, images, prepared, score, torchvision_model

STOCK = (
    "resnet18",
    "resnet50",
    "vgg16",
    "vgg16_bn",
    "densenet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "googlenet",
)
NETWORKS = ("unet", *STOCK)
POLICIES = ("absorb", "redistribute", "zero")
RECTIFIED = ("unet", "resnet18", "resnet50", "vgg16", "vgg16_bn", "densenet", "googlenet")
"""ReLU networks: LRP-0 is gradient x input."""


@cache
def network(name: str) -> tuple[nn.Module, Tensor, relprop.LRP]:
    """A model, inputs for it, and one capture that all tests share."""
    torch.manual_seed(0)
    model = prepared(UNet()) if name == "unet" else torchvision_model(name)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, images(2, 32), relprop.LRP(model)


def explain(name: str, composite, bias: str = "absorb", **options):
    _, x, lrp = network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", relprop.RelevanceWarning)  # LRP-0 without biases explodes, as it must
        return lrp.using(composite, bias=bias).explain(x, score, **options)


# ----------------------------------------------------------------------------------------------------- values and books


@pytest.mark.parametrize("name", NETWORKS)
def test_output_is_that_of_the_model(name: str) -> None:
    model, x, _ = network(name)
    assert_same(explain(name, "epsilon").output, model(x), 1e-12)


@pytest.mark.parametrize("composite", sorted(composites.NAMED))
@pytest.mark.parametrize("name", NETWORKS)
def test_books_balance(name: str, composite: str) -> None:
    """zennit#183, #193: the ledger sums to the seed. Every network meets every composite and every policy."""
    turn = (NETWORKS.index(name) + sorted(composites.NAMED).index(composite)) % 3
    explanation = explain(name, composite, POLICIES[turn])
    assert_balanced(explanation)
    assert_same(explanation.ledger.seed, score(explanation.output), 1e-12)


@pytest.mark.parametrize("bias", POLICIES)
@pytest.mark.parametrize("composite", sorted(composites.NAMED))
@pytest.mark.parametrize("name", ["unet", "mobilenet_v3_small"])
def test_books_balance_under_every_policy(name: str, composite: str, bias: str) -> None:
    assert_balanced(explain(name, composite, bias))


@pytest.mark.parametrize("name", ["unet", "resnet18"])
@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1", "gamma", "lrp0"])
def test_all_relevance_arrives_without_biases(name: str, composite: str) -> None:
    """innvestigate#116: without biases only stabilisers absorb anything."""
    explanation = explain(name, composite, "redistribute" if composite == "lrp0" else "zero")
    kinds = {kind for kind, amount in explanation.ledger.by_kind().items() if amount.any()}
    assert kinds <= {"stabiliser", "constant", "conversion"}


# -------------------------------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("name", RECTIFIED)
def test_lrp0_is_gradient_times_input(name: str) -> None:
    model, x, _ = network(name)
    model = PlainUNet(model) if name == "unet" else model  # autograd refuses the one that works in place
    assert_same(explain(name, "lrp0").relevance, gradient_times_input(model, x), 1e-10)


def test_lrp0_conserves_without_biases() -> None:
    torch.manual_seed(0)
    model, x = prepared(UNet(bias=False)), images(2, 16)
    explanation = relprop.LRP(model, "lrp0").explain(x, score)
    assert_same(explanation.relevance, gradient_times_input(PlainUNet(model), x), 1e-10)
    assert_same(explanation.relevance.flatten(1).sum(1), score(model(x)), 1e-10)


class Held(TorchFunctionMode):
    """Runs a model with the values it has, and the derivatives that LRP asks for.

    Factors are held constant by ``detach``: f(x) becomes x · [f(x)/x], a product x·y becomes ½ x[y] + ½ [x]y, layer
    norm holds its statistics, and a linear operation becomes p · [z/p], where p is what its rule distributes by.
    """

    def __init__(self, rule: str):
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("relu", "relu_", "relu6", "hardtanh", "silu", "hardswish", "gelu", "sigmoid", "hardsigmoid"):
            x, y = args[0], func(*args, **{k: v for k, v in kwargs.items() if k != "inplace"})
            if name == "relu_":
                raise AssertionError("the reference is given in-place functions as their plain ones")
            return x * (y / torch.where(x == 0, 1, x)).detach()
        if name in ("mul", "__mul__", "__rmul__") and all(getattr(a, "requires_grad", False) for a in args[:2]):
            x, y = args
            return (x * y.detach() + x.detach() * y) / 2
        if func is F.layer_norm:
            x, _, weight, bias, epsilon = (*args, *kwargs.values())
            deviation = (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt().detach()
            z = (x - x.mean(-1, keepdim=True)) / deviation * weight + bias
            return _replaced(z + 0.05 * _sign(z), z) if self.rule == "epsilon" else z
        if func in (torch.conv2d, F.conv2d, F.linear, F.conv_transpose2d, torch.conv_transpose2d, F.batch_norm):
            return self.linear(func, args, kwargs)
        return func(*args, **kwargs)

    def linear(self, func, args, kwargs) -> Tensor:
        if func is F.batch_norm:
            x, mean, variance, weight, bias, _, _, epsilon = (*args, *kwargs.values())
            scale = weight / (variance + epsilon).sqrt()

            def op(a, w, b):
                y = a * w[:, None, None]
                return y if b is None else y + b[:, None, None]

            return self.apply(op, x, scale, bias - mean * scale)
        x, w, b = (*args, *kwargs.values())[:3]
        rest = (*args, *kwargs.values())[3:]
        return self.apply(lambda a, w, b: func(a, w, b, *rest), x, w, b)

    def apply(self, op, x, w, b) -> Tensor:
        z = op(x, w, b)
        if self.rule == "lrp0":
            return z
        if self.rule == "epsilon":
            return _replaced(z + 0.05 * _sign(z), z)
        # w and w' for positive and negative inputs
        plus, minus = w.clamp(min=0), w.clamp(max=0)
        b_plus, b_minus = (None, None) if b is None else (b.clamp(min=0), b.clamp(max=0))

        def by_sign(up, down, bias):
            return op(x.clamp(min=0), up, bias) + op(x.clamp(max=0), down, None)

        if self.rule == "gamma":
            bias = None if b is None else b + 0.25 * b_plus
            for_plus = by_sign(w + 0.25 * plus, w + 0.25 * minus, bias)
            bias = None if b is None else b + 0.25 * b_minus
            for_minus = by_sign(w + 0.25 * minus, w + 0.25 * plus, bias)
            p = torch.where(z >= 0, for_plus, for_minus)
            return _replaced(_stabilised(p), z)
        speaks_for, speaks_against = by_sign(plus, minus, b_plus), by_sign(minus, plus, b_minus)
        if self.rule == "zplus":
            return _replaced(_stabilised(speaks_for), z)
        assert self.rule == "alphabeta"
        no_for, no_against = speaks_for == 0, speaks_against == 0
        share_for = torch.where(no_for, 0.0, torch.where(no_against, 1.0, 2.0))
        share_against = torch.where(no_against, 0.0, torch.where(no_for, 1.0, -1.0))
        for_it = _replaced(_stabilised(speaks_for), z * share_for)
        return for_it + _replaced(_stabilised(speaks_against), z * share_against)


def _replaced(p: Tensor, z: Tensor) -> Tensor:
    """The value z, with a derivative as if it were p times a constant."""
    return p * (z / p).detach()


def _stabilised(z: Tensor) -> Tensor:
    return z + 1e-6 * _sign(z)


RULES = {
    "lrp0": rules.LRP0(),
    "epsilon": rules.Epsilon(0.05),
    "gamma": rules.Gamma(0.25),
    "zplus": rules.ZPlus(),
    "alphabeta": rules.AlphaBeta(2.0, 1.0),
}


@cache
def merged(name: str) -> nn.Module:
    """The network with its batch norms merged by torch, and nothing in place."""
    from torch.fx.experimental.optimization import fuse

    model, _, _ = network(name)
    if name == "unet":
        return PlainUNet(model)
    model = fuse(model) if any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) else model
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model


class PlainUNet(nn.Module):
    """The U-Net without in-place operations."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        n = self.net
        top = torch.relu(n.enter(x))
        x = torch.relu(n.down(top))
        x = x + torch.relu(n.shared(x))
        x = x + torch.relu(n.shared(x))
        wide = F.interpolate(n.side(F.max_pool2d(x, 2)), scale_factor=4, mode="bilinear", align_corners=False)
        x = torch.relu(n.up(x) + wide)
        return n.leave(torch.cat([x, top], 1))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_that_of_the_reference(name: str, rule: str) -> None:
    """captum#777, #1138, zennit#43: stock models as they are, residuals and in-place functions included."""
    _, x, _ = network(name)
    model = merged(name)
    v = x.clone().requires_grad_()
    with Held(rule):
        output = model(v)
    (c,) = torch.autograd.grad(score(output).sum(), v)
    explanation = explain(name, RULES[rule])
    assert_same(explanation.output, output.detach(), 1e-9)
    assert_same(explanation.relevance, c * x, 1e-8)


def _sign(z: Tensor) -> Tensor:
    return torch.where(z < 0, -1.0, 1.0).to(z)
