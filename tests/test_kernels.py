"""Single precision on a CPU goes through oneDNN: other kernels and another layout, the same numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import relprop
from relprop.graph.kernels import channels_last, linear

from .models import UNet, assert_same, images, mlp, prepared, torchvision_model

PRODUCT = "mkldnn._linear_pointwise.default"


class Operations(TorchDispatchMode):
    """Counts operations, and images that come channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[str(func)] += 1
        if func is torch.ops.aten.convolution.default and args[0].ndim == 4:
            self.found["channels first"] += not args[0].is_contiguous(memory_format=torch.channels_last)
        return func(*args, **(kwargs or {}))


def by_torch() -> Any:
    return torch.backends.mkldnn.flags(enabled=False)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (2, 3, 7), (2, 3, 4, 7), (0, 7), (2, 0, 7)])
def test_products(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    a, w, b = torch.randn(shape), torch.randn(4, 7), torch.randn(4)
    spread = torch.randn(*shape, 2)[..., 0]
    turned = torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])
    with torch.no_grad():
        for x in (a, spread, turned):
            for weight in (w, torch.randn(7, 4).mT, torch.randn(4, 14)[:, ::2]):
                for bias in (None, b, torch.tensor(0.3).expand(4), torch.randn(8)[::2]):
                    found, expected = linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
                    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (torch.ones(4, 7), torch.ones(1)),
        (torch.ones(4, 7), torch.tensor(2.0)),
        (torch.ones(4, 7), torch.ones(5, 4)),
        (torch.ones(4, 0), torch.ones(4)),
        (torch.arange(10.0).unfold(0, 7, 1), torch.ones(4)),  # rows that overlap
        (torch.ones(1, 7).expand(4, 7), None),
    ],
)
def test_weights_and_biases_of_other_shapes(weight: Tensor, bias: Tensor | None) -> None:
    a = torch.randn(5, weight.shape[1])
    with torch.no_grad():
        assert_same(linear(a, weight, bias), torch.nn.functional.linear(a, weight, bias), 1e-6)


class Strides(nn.Module):
    """A convolution, and an operation that looks at its memory."""

    def __init__(self, kind: str):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 6, 3), kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        if self.kind == "as_strided":
            return torch.as_strided(y, (2, 6, 36), (6 * 36, 36, 1)).mean(2)
        if self.kind == "complex":
            return torch.view_as_complex(y.contiguous().unflatten(3, (3, 2))).abs().mean((2, 3))
        return torch.ops.kernels_test.halves(y).mean(2)


@torch.library.custom_op("kernels_test::halves", mutates_args=())
def halves(x: Tensor) -> Tensor:
    return x.view(len(x), x.shape[1], -1)[..., : x[0, 0].numel() // 2].clone()


@halves.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], x[0, 0].numel() // 2)


@relprop.rule_for(torch.ops.kernels_test.halves)
def halves_rule(call: Any, message: relprop.Message) -> relprop.Message:
    x = call.value(call.active[0])
    c = torch.zeros_like(x).flatten(2)
    c[..., : c.shape[2] // 2] = message.c
    return relprop.Message(c=c.reshape(x.shape))


@pytest.mark.parametrize("kind", ["as_strided", "complex", "custom"])
def test_operations_that_look_at_memory(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Strides(kind).eval(), torch.randn(2, 3, 8, 8)
    lrp = relprop.LRP(model, "epsilon")
    explanation = lrp.explain(x, 1)
    assert_same(explanation.output, model(x).detach(), 1e-5)
    with by_torch():
        assert_same(lrp.attribute(x, 1), explanation.relevance, 1e-5)
    assert_same(lrp.attribute(x.to(memory_format=torch.channels_last), 1), explanation.relevance, 1e-5)


def test_target_functions_may_view_the_output() -> None:
    model, x = prepared(UNet()).float(), images(2).float()
    lrp = relprop.LRP(model, "epsilon")
    found = lrp.explain(x, lambda y: y.view(len(y), -1)[:, 7])
    assert found.output.is_contiguous()
    assert_same(lrp.compile(x, lambda y: y.view(len(y), -1)[:, 7]).attribute(x), found.relevance, 1e-4)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rule", [relprop.rules.AlphaBeta(), relprop.rules.ZPlus(), relprop.rules.Gamma()], ids=str)
def test_models_in_half_precision_round_their_outputs(rule: relprop.rules.Rule, signed: bool) -> None:
    """What that leaves of z - z⁺ is no negative part: rules subtract what was computed in single precision."""
    torch.manual_seed(0)
    layers = [nn.Linear(40, 64, bias=False), nn.SiLU() if signed else nn.ReLU(), nn.Linear(64, 5, bias=False)]
    model = nn.Sequential(*layers).bfloat16()
    with torch.no_grad():
        model[2].weight.abs_()
    x = torch.randn(30, 40).bfloat16()
    found = relprop.LRP(model, rule).explain(x, 1, record=["1"]).relevances["1"]
    expected = relprop.LRP(model.float(), rule).explain(x.float(), 1, record=["1"]).relevances["1"]
    size = expected.abs().amax(1, keepdim=True)
    assert float(((found.float() - expected) / size).abs().max()) < 0.1


def test_who_is_served() -> None:
    x, w = torch.randn(3, 4), torch.randn(5, 4)
    image = torch.randn(2, 3, 4, 4)

    def used(x: Tensor, w: Tensor) -> bool:
        with Operations() as operations:
            linear(x, w)
        return PRODUCT in operations.found

    assert not used(x, w.requires_grad_())  # somebody may differentiate
    assert channels_last(image) is image
    with torch.no_grad():
        assert used(x, w)
        assert not used(x.double(), w.double())
        assert channels_last(image).is_contiguous(memory_format=torch.channels_last)
        assert channels_last(image.double()).is_contiguous()
        assert channels_last(image[0]).is_contiguous()
        with by_torch():
            assert not used(x, w)
            assert channels_last(image) is image


class Mixed(nn.Module):
    """Convolutions of one, two and three dimensions, matrices on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1, groups=2)
        self.c = nn.Conv1d(4, 6, 5, dilation=2, padding="same")
        self.d = nn.Conv3d(2, 3, 2)
        self.right, self.left = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(7, 4))
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.norm(self.a(x)).relu()).relu()
        y = self.c(y.mean(2)).relu()
        z = y.unflatten(1, (2, 3)).unsqueeze(2).expand(-1, -1, 4, -1, -1)
        y = y + self.d(z).mean((2, 3, 4))[:, None, :1]
        y = self.left @ (y.mT @ self.right)[:, :4]
        return self.head(y).mean(1)


MODELS = {
    "mixed": lambda: prepared(Mixed()),
    "resnet18": lambda: torchvision_model("resnet18"),
    "convnext": lambda: torchvision_model("convnext_tiny"),
    "unet": lambda: prepared(UNet()),
}


def score(y: Tensor) -> Tensor:
    return y.flatten(2).sum(2)[:, 1] if y.ndim > 2 else y[:, 1]


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "gamma"])
@pytest.mark.parametrize("name", MODELS)
def test_single_precision(name: str, composite: str) -> None:
    """As in double precision, whose kernels are others; and where images lie as they did."""
    torch.manual_seed(0)
    model, x = MODELS[name](), images(2)
    rounding = 2e-2 if name == "convnext" else 2e-4  # its small outputs divide, with either kernel
    expected = relprop.LRP(model, composite).attribute(x, score)
    model.float()
    lrp = relprop.LRP(model, composite)
    lrp.attribute(x.float(), score)  # captured, and compared with the model
    with Operations() as operations:
        found = lrp.attribute(x.float(), score)
    assert operations.found["channels first"] == 0
    assert_same(found.double(), expected, rounding)
    assert found.is_contiguous()
    explanation = lrp.explain(x.float(), score, record=["*"])
    assert_same(explanation.relevance, found, 1e-5)
    assert float(explanation.ledger.residual.abs().max()) < 1e-3 * float(explanation.ledger.seed.abs().max())
    for hidden in explanation.relevances.values():
        assert hidden.is_contiguous()
    with by_torch():
        assert_same(relprop.LRP(model, composite).attribute(x.float(), score), found, rounding)


def test_layers_of_a_network_are_served() -> None:
    model, x = mlp(6, 8, 4).float(), torch.randn(3, 6)
    lrp = relprop.LRP(model, "gamma")
    lrp.attribute(x, 1)  # captured, and compared with the model
    with Operations() as operations:
        lrp.attribute(x, 1)
    assert operations.found[PRODUCT] == 4  # two layers, forward and back
    assert not {"aten.mm.default", "aten.addmm.default"} & set(operations.found)


def test_saved_programs_hold_no_special_kernels(tmp_path: Path) -> None:
    model, x = MODELS["mixed"]().float(), images(2).float()
    lrp = relprop.LRP(model, "epsilon")
    path = lrp.export(tmp_path / "mixed.pt2", x, 1)
    program = torch.export.load(path)
    names = {str(node.target) for node in program.graph.nodes}
    assert not any("mkldnn" in name or "relprop" in name for name in names)
    _, relevance = program.module()(x, torch.ones(2, dtype=torch.long))
    assert_same(relevance, lrp.attribute(x, 1), 1e-4)


def test_relevance_can_be_differentiated_in_single_precision() -> None:
    model, x = MODELS["mixed"]().float(), images(2).float().requires_grad_()
    relevance = relprop.LRP(model, "epsilon").attribute(x, 1, create_graph=True)
    (g,) = torch.autograd.grad(relevance.square().sum(), x)
    model.double()
    y = x.detach().double().requires_grad_()
    relevance = relprop.LRP(model, "epsilon").attribute(y, 1, create_graph=True)
    (expected,) = torch.autograd.grad(relevance.square().sum(), y)
    assert_same(g.double(), expected, 1e-3)
