"""How images lie in memory changes no relevance, and relevance lies as they do."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import relprop
from relprop.graph.checksum import checksum

from .models import UNet, assert_balanced, assert_same, images, prepared, torchvision_model

LAST: dict[str, Any] = {"memory_format": torch.channels_last}


def layout(x: Any) -> str | None:
    """None where both are the same."""
    if not isinstance(x, Tensor) or x.ndim != 4 or (x.is_contiguous() and x.is_contiguous(**LAST)):
        return None
    return "last" if x.is_contiguous(**LAST) else "first" if x.is_contiguous() else "other"


class Conversions(TorchDispatchMode):
    """Counts tensors that are copied into another layout."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str | None, str | None]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            before, after = layout(pytree.tree_leaves(args)[-1 if "copy_" in str(func) else 0]), layout(result)
            if before != after and None not in (before, after):
                self.found[str(func), before, after] += 1
        return result


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_alpha2_beta1", "gamma"])
@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "unet"])
def test_channels_last(name: str, composite: str) -> None:
    torch.manual_seed(0)
    model = prepared(UNet()) if name == "unet" else torchvision_model(name)
    x = images(2)

    def target(y: Tensor) -> Tensor:
        return y.flatten(2).sum(2)[:, 1] if y.ndim > 2 else y[:, 1]

    expected = relprop.LRP(model, composite).attribute(x, target)
    last = copy.deepcopy(model).to(**LAST)
    for other, given in ((last, x.to(**LAST)), (model, x.to(**LAST)), (last, x)):
        lrp = relprop.LRP(other, composite)
        found = lrp.explain(given, target)
        assert_same(found.relevance, expected, 1e-10)
        assert_balanced(found)
        assert found.relevance.stride() == given.stride()
        with Conversions() as conversions:
            assert lrp.attribute(given, target).stride() == given.stride()
        if name == "resnet18":  # a ConvNeXt permutes by itself
            assert not conversions.found


def test_parts_and_z_box() -> None:
    model, x = torchvision_model("resnet18").to(**LAST), images(3).to(**LAST)
    lrp = relprop.LRP(model, relprop.composites.epsilon_gamma_box(-6.0, 6.0))
    expected = relprop.LRP(copy.deepcopy(model).to(memory_format=torch.contiguous_format), lrp.composite).attribute(
        x.contiguous(), 1
    )
    for size in (None, 2):
        found = lrp.attribute(x, 1, micro_batch=size)
        assert_same(found, expected, 1e-10)
        assert found.is_contiguous(**LAST)


def test_changed_weights_are_seen_in_any_layout() -> None:
    """A sum of bits reads the weights as they lie; how they lie counts too."""
    weight = torch.randn(64, 32, 3, 3).to(**LAST)
    before = checksum([weight])

    def differs(other: Tensor) -> bool:
        return any(x.shape != y.shape or not torch.equal(x, y) for x, y in zip(before, checksum([other]), strict=True))

    assert not differs(weight.clone())
    assert differs(weight.contiguous())
    weight.data[5, 3, 1, 1] += 1e-3
    assert differs(weight)

    square = nn.Linear(100, 100, bias=False)
    x = torch.randn(2, 100)
    lrp = relprop.LRP(square, "gamma")
    lrp.attribute(x, 3)
    square.weight.data = square.weight.data.T
    assert_same(lrp.attribute(x, 3), relprop.LRP(copy.deepcopy(square), "gamma").attribute(x, 3), 1e-6)


@pytest.mark.parametrize("shapes", [[(3,)], [(2,), (3, 2)], [(100, 100)], [(3,), (100, 100)]])
@pytest.mark.parametrize("index", [0, -1])
def test_checksums_are_of_the_values_at_the_time(shapes: list[tuple[int, ...]], index: int) -> None:
    """Not views of the parameters, which change when they do."""
    tensors = [torch.randn(shape) for shape in shapes]
    before = checksum(tensors)
    assert all(map(torch.equal, before, checksum(tensors)))
    for t in tensors:
        old = t[index].clone()
        t.data[index] += 1
        assert not all(map(torch.equal, before, checksum(tensors)))
        t.data[index] = old
