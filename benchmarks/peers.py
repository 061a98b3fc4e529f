"""The plain gradient, and other libraries where they work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .models import Case

Run = Callable[[], Any]


def gradient(case: Case) -> Run:
    """Gradient x input of the explained output."""

    def run() -> Tensor:
        x = case.inputs.clone().requires_grad_()
        (g,) = torch.autograd.grad(case.explained(x).sum(), x)
        return g * case.inputs

    return run


def all_for(case: Case) -> dict[str, Run]:
    """Name -> attribution of each peer that is meant for this kind of model."""
    if case.kind != "cnn" or case.name.startswith("vit"):
        return {}
    return {**_zennit(case), "captum epsilon": _captum(case), "autolrp": _autolrp(case)}


def _zennit(case: Case) -> dict[str, Run]:
    from zennit import composites
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetCanonizer

    canonizers = [ResNetCanonizer()] if "resnet" in case.name else [SequentialMergeBatchNorm()]
    made = {
        "zennit epsilon": composites.LayerMapComposite(
            [(nn.Conv2d, _zennit_epsilon()), (nn.Linear, _zennit_epsilon())]
        ),
        "zennit epsilon_plus": composites.EpsilonPlus(canonizers=canonizers),
        "zennit epsilon_gamma_box": composites.EpsilonGammaBox(low=-3.0, high=3.0, canonizers=canonizers),
        "zennit epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1(canonizers=canonizers),
    }
    return {name: _with_zennit(case, composite) for name, composite in made.items()}


def _zennit_epsilon() -> Any:
    from zennit.rules import Epsilon

    return Epsilon()


def _with_zennit(case: Case, composite: Any) -> Run:
    def run() -> Tensor:
        with composite.context(case.model) as model:
            x = case.inputs.clone().requires_grad_()
            y = model(x)
            seed = torch.zeros_like(y)
            seed[:, 0] = y[:, 0].detach()
            return torch.autograd.grad(y, x, seed)[0]

    return run


def _captum(case: Case) -> Run:
    def run() -> Any:
        import copy

        from captum.attr import LRP

        run.model = getattr(run, "model", None) or _for_captum(copy.deepcopy(case.model))  # type: ignore[attr-defined]
        return LRP(run.model).attribute(case.inputs.clone(), target=0)  # type: ignore[attr-defined]

    return run


def _for_captum(model: nn.Module) -> nn.Module:
    """captum wants a rule on every layer it does not know, and no in-place activations."""
    from captum.attr._utils.lrp_rules import EpsilonRule

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.Flatten)):
            module.rule = EpsilonRule()  # type: ignore[assignment]
    return model


def _autolrp(case: Case) -> Run:
    def run() -> Any:
        import autolrp

        x = autolrp.tensor(case.inputs.clone())
        case.model(x)[:, 0].sum().lrp()
        return x.relevance

    return run


FORWARD = {"convolution", "mkldnn_convolution", "addmm", "mm", "bmm", "_mkldnn_linear"}
BACKWARD = {"convolution_backward"}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = [0, 0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts[0] += name in FORWARD
        self.counts[1] += name in BACKWARD
        return func(*args, **(kwargs or {}))


def passes(case: Case, run: Run) -> tuple[int, int]:
    """How many matrix products and convolutions, and how many input gradients of convolutions, a run makes."""
    with _Counter() as counter:
        run()
    return counter.counts[0], counter.counts[1]
