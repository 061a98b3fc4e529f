"""The measurement: every method on every sample."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..composites import Choice
from ..engine.given import Given
from ..engine.inputs import chosen_inputs
from ..errors import RelevanceWarning, RelpropError
from ..lrp import LRP
from ..progress import Progress, bar
from ..targets import Target
from .flipping import curves, order_of
from .localisation import mass, pointing, rank, regions_of
from .methods import Attribute, Baseline, Tools, baseline_method, composite_method, names_of
from .model import Judge
from .replacements import Fill, Replacement, Setting, defaults, fills
from .result import Evaluation
from .samples import Sample, gathered, samples_of
from .sanity import Check, likeness, positions, randomised, rank_likeness, rise, smoothed
from .store import Store
from .units import Unit, kind_of, labels_of, sums, valid_of


def evaluate(
    lrp: LRP,
    data: Any,
    target: Target = None,
    *,
    composites: Sequence[Choice] = ("auto",),
    baselines: Sequence[Baseline] = ("random", "input_x_gradient"),
    unit: Unit = "auto",
    size: int | None = None,
    replacements: Sequence[Replacement] | None = None,
    steps: int = 20,
    valid: Tensor | None = None,
    regions: Tensor | None = None,
    sanity: Sequence[Check] | None = None,
    wrt: str | int | None = None,
    micro_batch: int = 16,
    seed: int = 0,
    resume: str | PathLike[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """How faithful explanations are: composites and other methods, measured on the same samples.

    Units of the input are replaced step by step, once with the most relevant first and once with the least relevant
    first. The area between the two curves of the output is the score of a method: 0 for chance, and the larger the
    better (symmetric relevance gain, Blücher et al. 2024). Every sample is measured alone, with random numbers of its
    own: results do not depend on the other samples, on their order, or on where a run was stopped and resumed.

    Args:
        lrp: the model.
        data: inputs of all samples, as of :meth:`LRP.attribute`; or batches of (inputs, target), such as a DataLoader.
        target: as of :meth:`LRP.attribute`, one; by default the class that is predicted.
        composites: LRP under each of these. The first is what the others are compared with.
        baselines: names: "random" (which always takes part), "centre", "gradient", "input_x_gradient",
            "integrated_gradients", "smoothgrad", "occlusion", "kernel_shap", "grad_cam". Most are captum's.
        unit: what is flipped as one: "pixel", "patch", "superpixel", "token", "step" or "feature"; by default patches
            of images, tokens, steps of series and features of rows.
        size: the side of a patch, or that of a super-pixel of about this area; by default a 14th of the image.
        replacements: what takes the place of what is flipped: "blur", "mean", "noise", "inpaint" (slow) or "permuted",
            and of your own ``("pad", 0)`` or ``(name, function of sample and generator)``. By default several that
            suit the data, each reported. The first also stands for what is absent to "occlusion" and "kernel_shap".
        steps: so many points on a curve, at most.
        valid: what may be flipped, which padding may not: a boolean as the inputs, [N, ...] or [1, ...] for all, with
            or without their channels.
        regions: where the object is, to measure localisation as well: masks [N, H, W] of images, [N, T] of texts and so
            on, or boxes [N, 4] of images (left, top, right, bottom).
        sanity: checks to pass: "alike" (with the map of the runner-up), "randomised" (how much the complexity of the
            map rises with random parameters) and "smooth" (likeness to it, of smoothed maps). By default the first,
            and of an ``nn.Module`` the second.
        wrt: name or position of the input, if several can be explained.
        micro_batch: so many versions of a sample go through the model at a time.
        seed: of all random numbers.
        resume: an SQLite file that keeps the results of every sample. If it is there, what it holds is not measured
            again.
        progress: show how far it is, on a terminal and where tqdm is installed.

    Raises:
        ValueError: if a name is none of these, or does not go with the data.
        FileError: if ``resume`` is a file of another model, of other data or settings.
        ImportError: if the extra ``relprop[evaluate]`` is not installed, and a choice needs it.
        InputError, TargetError, CaptureError, UnsupportedOperation: as :meth:`LRP.attribute`.
    """
    inputs, target = gathered(data, target)
    place = _place(lrp, inputs, wrt)
    judge = Judge(lrp.session.capturer.source.runnable, micro_batch)
    samples = [judge.settled(sample) for sample in samples_of(inputs, target, place)]
    plan, unit = lrp.plan(samples[0].inputs, wrt=place), kind_of(samples[0].x, unit)
    setting = Setting(unit, plan.input_names[place] in plan.convolved, samples, seed)
    ways = fills(defaults(unit) if replacements is None else replacements, setting)
    labels = _Labels(setting, size, valid)
    tools = Tools(lrp, judge, labels, next(iter(ways.values())), seed)
    checks, model = _checks(sanity, lrp), lrp.session.capturer.model
    work = Work(tools, ways, steps, checks, None if regions is None else regions_of(regions, samples))
    twin = None if model is None or set(checks) <= {"alike"} else tools.under(*_twin(lrp, model, seed))
    methods = _methods(composites, baselines, tools, twin, samples[0])
    settings = _settings(tools, setting, size, work)
    found = _measured(work, methods, samples, Store(resume, settings), bar("evaluate") if progress else iter)
    return Evaluation(found, list(ways), settings)


@dataclass(frozen=True)
class Method:
    """One line of the table."""

    name: str
    key: str
    """What tells it from another of that name among kept results."""
    attribute: Attribute
    twin: Attribute | None
    """The same of the model with random parameters."""


@dataclass(frozen=True)
class Work:
    """What is measured of one method on one sample."""

    tools: Tools
    ways: dict[str, Fill]
    steps: int
    checks: Sequence[Check] = ()
    regions: Tensor | None = None

    def __call__(self, method: Method, sample: Sample) -> dict[str, Any]:
        tools, labels = self.tools, self.tools.labels(sample)
        relevance = method.attribute(sample)
        if not bool(torch.isfinite(relevance).all()):
            raise RelpropError(f"relevance of {method.name} of sample {sample.number} is not finite")
        sizes = sums(relevance, labels)
        order = order_of(sizes, sample.random(tools.seed, f"ties of {method.name}"))
        found: dict[str, Any] = {"curves": curves(tools.judge, sample, labels, order, self.ways, self.steps)}
        for check in self.checks:
            with warnings.catch_warnings():  # of maps that nobody is shown
                warnings.simplefilter("ignore", RelevanceWarning)
                found[check] = self._checked(check, method, sample, relevance, sizes)
        if self.regions is not None:
            by_position, mask = positions(relevance, sample), self.regions[sample.number]
            by_position = by_position.expand(mask.shape)
            found |= {f.__name__: f(by_position, mask) for f in (mass, rank, pointing)}
        return found

    def _checked(self, check: Check, method: Method, sample: Sample, relevance: Tensor, sizes: Tensor) -> float | None:
        seed, labels = self.tools.seed, self.tools.labels(sample)
        if check == "alike":
            other = self.tools.judge.runner_up(sample)
            return None if other is None else likeness(sizes, sums(method.attribute(sample.asking(other)), labels))
        assert method.twin is not None
        if check == "randomised":
            return rise(positions(relevance, sample), positions(method.twin(sample), sample))
        pair = (smoothed(f, sample, lambda r: sums(r, labels), seed) for f in (method.attribute, method.twin))
        return rank_likeness(*pair)


class _Labels:
    """The units of a sample; those of the last one are kept."""

    def __init__(self, setting: Setting, size: int | None, valid: Tensor | None):
        self.setting, self.size = setting, size
        self.valid = None if valid is None else valid_of(valid, setting.samples, setting.channels_first)
        self._last: tuple[int, Tensor] | None = None

    def __call__(self, sample: Sample) -> Tensor:
        if self._last is None or self._last[0] != sample.number:
            valid = None if self.valid is None else self.valid[sample.number % len(self.valid)]
            made = labels_of(sample.x, self.setting.unit, self.size, self.setting.channels_first, valid)
            if int(made.max()) < 1:
                raise ValueError(f"sample {sample.number} is one unit, and an order takes two: give another size=")
            self._last = (sample.number, made)
        return self._last[1]


def _measured(
    work: Work, methods: Sequence[Method], samples: Sequence[Sample], store: Store, shown: Progress
) -> dict[str, list[dict[str, Any]]]:
    """What was found of every method and sample, kept or measured now."""
    found: dict[str, list[dict[str, Any]]] = {method.name: [] for method in methods}
    digests = {sample.number: sample.digest() for sample in samples}
    try:
        for sample, method in shown([(sample, method) for sample in samples for method in methods]):
            digest = digests[sample.number]
            known = store.get(method.key, sample.number, digest)
            if known is None:
                known = work(method, sample)
                store.put(method.key, sample.number, digest, known)
            found[method.name].append(known)
    finally:
        store.close()
    return found


def _checks(sanity: Sequence[Check] | None, lrp: LRP) -> Sequence[Check]:
    """What is to be passed, of what there is for the model."""
    if sanity is None:
        return ("alike",) if lrp.session.capturer.model is None else ("alike", "randomised")
    if unknown := set(sanity) - set(get_args(Check)):
        raise ValueError(f"sanity has {', '.join(map(repr, get_args(Check)))}, and not {', '.join(map(repr, unknown))}")
    if lrp.session.capturer.model is None and set(sanity) - {"alike"}:
        raise ValueError("the parameters of an exported program cannot be drawn anew: sanity=['alike']")
    return sanity


def _twin(lrp: LRP, model: nn.Module, seed: int) -> tuple[LRP, nn.Module]:
    """The same model with random parameters."""
    other = randomised(model, seed)
    return LRP(other, lrp.composite or "auto", bias=lrp.bias), other


def _methods(
    composites: Sequence[Choice], baselines: Sequence[str], tools: Tools, twin: Tools | None, sample: Sample
) -> list[Method]:
    """Every line of the table. Of a composite its plan tells it from another of that name."""
    found = []
    for name, composite in names_of(composites).items():
        plan = str(tools.lrp.using(composite).plan(sample.inputs, wrt=sample.place))
        other = None if twin is None else composite_method(composite, twin)
        found.append(Method(name, f"{name} {_hashed(plan.encode())}", composite_method(composite, tools), other))
    for name in dict.fromkeys(("random", *baselines)):
        other = None if twin is None else baseline_method(name, twin)
        found.append(Method(name, name, baseline_method(name, tools), other))
    return found


def _settings(tools: Tools, setting: Setting, size: int | None, work: Work) -> dict[str, str]:
    """What the results depend on."""
    return {
        "model": _digest(tools.judge.model),
        "unit": setting.unit if size is None else f"{setting.unit}, size {size}",
        "replacements": ", ".join(work.ways),
        "steps": str(work.steps),
        "seed": str(setting.seed),
        "sanity": ", ".join(work.checks),
        "regions": "none" if work.regions is None else _hashed(work.regions.numpy().tobytes()),
    }


def _place(lrp: LRP, inputs: Any, wrt: str | int | None) -> int:
    """The position of the one input to explain."""
    given = Given.of(inputs)
    chosen = chosen_inputs(lrp.session.graph(given), list(given.leaves), wrt)
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen)} inputs can be explained: choose one with wrt=")
    return chosen[0]


def _digest(model: nn.Module) -> str:
    """What tells parameters and buffers from others."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
