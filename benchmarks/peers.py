"""Other libraries, and the composite of relprop that each of their methods corresponds to."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .measure import Method, Run
from .models import Case


def all_for(case: Case) -> list[Method]:
    """What other libraries offer for the composites of a case, whether it works or not."""
    found = [Method("zennit", name, _zennit) for name in case.composites if name.startswith("epsilon")]
    if "epsilon" in case.composites:
        found.append(Method("captum", "epsilon", _captum))
    return [*found, Method("autolrp", "attnlrp" if "attnlrp" in case.composites else "epsilon", _autolrp)]


def _zennit(case: Case, name: str) -> Run:
    """zennit has rules for layers; attention, norms and products are left to the gradient."""
    from zennit import composites, rules
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetCanonizer

    if recurrent := [type(m).__name__ for m in case.model.modules() if isinstance(m, nn.RNNBase)]:
        raise NotImplementedError(f"zennit has no rule for {recurrent[0]}")
    canonizers = [ResNetCanonizer() if "resnet" in case.name else SequentialMergeBatchNorm()]
    epsilon = [(kind, rules.Epsilon()) for kind in (nn.Conv2d, nn.Linear)]
    composite: Any = {
        "epsilon": lambda: composites.LayerMapComposite(epsilon, canonizers=canonizers),
        "epsilon_plus": lambda: composites.EpsilonPlus(canonizers=canonizers),
        "epsilon_gamma_box": lambda: composites.EpsilonGammaBox(low=-3.0, high=3.0, canonizers=canonizers),
        "epsilon_alpha2_beta1": lambda: composites.EpsilonAlpha2Beta1(canonizers=canonizers),
    }[name]()

    def run() -> Tensor:
        with composite.context(case.model) as model:
            x = case.inputs.clone().requires_grad_()
            y = model(x)
            seed = torch.zeros_like(y)
            seed[:, 0] = y[:, 0].detach()
            return torch.autograd.grad(y, x, seed)[0]

    return run


def _captum(case: Case, name: str) -> Run:
    """captum wants a rule on every layer it does not know, even unused ones, and no in-place activations."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    @cache
    def model() -> nn.Module:
        model = copy.deepcopy(case.model)
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
            if isinstance(module, (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Embedding)):
                module.rule = EpsilonRule()  # type: ignore[assignment]
        return model

    return lambda: LRP(model()).attribute(case.inputs.clone(), target=0)


def _autolrp(case: Case, name: str) -> Run:
    import autolrp

    config = autolrp.LRPConfig(rule={**autolrp.BASE, **(autolrp.ATTNLRP if name == "attnlrp" else {})})

    def run() -> Tensor:
        x = autolrp.tensor(case.inputs.clone())
        case.model(x)[:, 0].sum().lrp(config=config)
        return x.relevance

    return run
