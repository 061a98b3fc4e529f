"""What is compared: LRP under several composites, and what it should be better than."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..composites import Choice, of
from ..engine.question import Question
from ..extra import extra
from ..lrp import LRP
from .model import Judge
from .replacements import Fill
from .samples import Sample

Attribute = Callable[[Sample], Tensor]
"""A sample -> its relevance, in its shape without the batch dimension, or one that broadcasts to it."""

Baseline = Literal[
    "random",
    "centre",
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "smoothgrad",
    "occlusion",
    "kernel_shap",
    "grad_cam",
]
BASELINES: tuple[str, ...] = get_args(Baseline)


@dataclass(frozen=True)
class Tools:
    """What methods work with."""

    lrp: LRP
    judge: Judge
    labels: Callable[[Sample], Tensor]
    """The unit of every value of a sample."""
    fill: Fill
    """The first replacement, which stands for what is absent."""
    seed: int

    def under(self, lrp: LRP, model: nn.Module) -> Tools:
        """The same for another model."""
        return Tools(lrp, Judge(model, self.judge.micro_batch), self.labels, self.fill, self.seed)


def composite_method(composite: Choice, tools: Tools) -> Attribute:
    """LRP under a composite."""
    lrp = tools.lrp.using(composite)
    return lambda sample: _relevance(lrp, sample)


def _relevance(lrp: LRP, sample: Sample) -> Tensor:
    (answer,) = lrp.session.answers(sample.given, Question.of(sample.target, (sample.place,)))
    found = answer.relevances[sample.place]
    assert found is not None  # it was asked for
    return found.detach()[0]


def names_of(composites: Sequence[Choice]) -> dict[str, Choice]:
    """A name for every composite.

    Raises:
        ValueError: if two have the same.
    """
    found: dict[str, Choice] = {}
    for composite in composites:
        made = of(composite)
        name = "auto" if made is None else made.name
        if name in found or name in BASELINES:
            raise ValueError(f"two methods are called {name!r}: give relprop.Composite(pairs, name=...) another name")
        found[name] = composite
    return found


def baseline_method(name: str, tools: Tools) -> Attribute:
    """A method that LRP is compared with.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; choose among {', '.join(map(repr, BASELINES))}")
    if name == "input_x_gradient":
        return composite_method("gradient", tools)
    return partial(_MADE[name], tools)


# -- without asking the model -----------------------------------------------------------------------------------------


def _random(tools: Tools, sample: Sample) -> Tensor:
    """A number for every unit, of which the rest of a unit has none."""
    labels = tools.labels(sample)
    drawn = torch.rand(int(labels.max()) + 2, generator=sample.random(tools.seed, "random"), dtype=torch.float64)
    sizes = torch.bincount(labels.reshape(-1) + 1, minlength=len(drawn))
    return (drawn / sizes.clamp(min=1))[labels + 1]


def _centre(tools: Tools, sample: Sample) -> Tensor:
    """Nearer to the centre is more relevant: what photographers do."""
    shape = sample.x.shape[2:] if sample.x.ndim == 4 else sample.x.shape[1:]
    lines = [torch.linspace(-1, 1, n, dtype=torch.float64).square() for n in shape]
    if sample.x.ndim == 4:
        return -(lines[0][:, None] + lines[1])[None]
    return -lines[0].reshape(-1, *(1,) * (sample.x.ndim - 2)).expand(shape)


# -- by captum --------------------------------------------------------------------------------------------------------


def _captum() -> Any:
    with extra("evaluate", "this baseline needs captum"):
        import captum.attr
    return captum.attr


def _differentiable(name: str, sample: Sample) -> Tensor:
    if not sample.x.dtype.is_floating_point:
        raise ValueError(f"baseline {name!r} needs inputs that can be differentiated, not ids")
    return sample.x.detach().clone().requires_grad_()


def _gradient(tools: Tools, sample: Sample) -> Tensor:
    """How large the gradient is (Simonyan et al. 2014)."""
    x, value = _differentiable("gradient", sample), tools.judge.value(sample)
    return _only(_captum().Saliency(value).attribute(x))


def _integrated(tools: Tools, sample: Sample) -> Tensor:
    """From zero, in 32 steps (Sundararajan et al. 2017)."""
    x, value = _differentiable("integrated_gradients", sample), tools.judge.value(sample)
    method = _captum().IntegratedGradients(value)
    return _only(method.attribute(x, n_steps=32, internal_batch_size=tools.judge.micro_batch))


def _smoothgrad(tools: Tools, sample: Sample) -> Tensor:
    """The size of the mean gradient under noise of 15 % of the range of values, 32 times (Smilkov et al. 2017)."""
    x, value, captum = _differentiable("smoothgrad", sample), tools.judge.value(sample), _captum()
    spread = 0.15 * float(x.detach().max() - x.detach().min())
    with _seeded(tools, sample):
        method = captum.NoiseTunnel(captum.Saliency(value))
        found = method.attribute(
            x, nt_samples=32, nt_samples_batch_size=tools.judge.micro_batch, stdevs=spread, abs=False
        )
    return _only(found).abs()


def _occlusion(tools: Tools, sample: Sample) -> Tensor:
    """What the output loses without each unit alone (Zeiler and Fergus 2014)."""
    absent, mask = _absent(tools, sample)
    method = _captum().FeatureAblation(tools.judge.value(sample))
    with torch.no_grad():
        versions = tools.judge.micro_batch
        return _only(method.attribute(sample.x, absent, feature_mask=mask, perturbations_per_eval=versions))


def _kernel_shap(tools: Tools, sample: Sample) -> Tensor:
    """Shapley values of units by regression over four times as many coalitions as units (Lundberg and Lee 2017)."""
    absent, mask = _absent(tools, sample)
    count, method = 4 * (int(mask.max()) + 1), _captum().KernelShap(tools.judge.value(sample))
    size = {"n_samples": count, "perturbations_per_eval": tools.judge.micro_batch}
    with torch.no_grad(), _seeded(tools, sample):
        return _only(method.attribute(sample.x, absent, feature_mask=mask, **size))


def _absent(tools: Tools, sample: Sample) -> tuple[Tensor, Tensor]:
    """The sample with all of it replaced, and the unit of every value; what is never flipped is one unit more."""
    labels = tools.labels(sample)
    absent = tools.fill(sample, (labels >= 0)[None])
    last = int(labels.max()) + 1
    return absent, torch.where(labels < 0, last, labels)[None].to(sample.x.device)


def _grad_cam(tools: Tools, sample: Sample) -> Tensor:
    """At the last two-dimensional convolution (Selvaraju et al. 2017)."""
    layers = [m for m in tools.judge.model.modules() if isinstance(m, nn.Conv2d)]
    if not layers or sample.x.ndim != 4:
        raise ValueError("baseline 'grad_cam' needs images and a model with an nn.Conv2d")
    captum, x = _captum(), _differentiable("grad_cam", sample)
    found = captum.LayerGradCam(tools.judge.value(sample), layers[-1]).attribute(x, relu_attributions=True)
    return _only(captum.LayerAttribution.interpolate(found, x.shape[2:], "bilinear"))


def _only(found: Any) -> Tensor:
    relevance: Tensor = found[0] if isinstance(found, tuple) else found
    return relevance.detach()[0]


@contextmanager
def _seeded(tools: Tools, sample: Sample) -> Iterator[None]:
    """torch's own random numbers are those of the sample, and as they were afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(sample.random(tools.seed, "captum").initial_seed())
        yield


_MADE: dict[str, Callable[[Tools, Sample], Tensor]] = {
    "random": _random,
    "centre": _centre,
    "gradient": _gradient,
    "integrated_gradients": _integrated,
    "smoothgrad": _smoothgrad,
    "occlusion": _occlusion,
    "kernel_shap": _kernel_shap,
    "grad_cam": _grad_cam,
}
