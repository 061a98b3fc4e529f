"""Which composite shows best what a convolutional network uses? Patches are flipped to find out.

An attribution of the predicted class orders the 16 x 16 patches of a photograph by their summed relevance. They are
replaced by the blurred photograph one after another, once with the most relevant first and once with the least relevant
first. The logit f, as a share of what there is to lose,

    g(k) = (f(x with k patches blurred) - f(x all blurred)) / (f(x) - f(x all blurred)),

falls from 1 to 0 on both ways. The score is the area between the two curves, with k / K on the axis from 0 to 1: 0 for
an order that knows nothing, and the larger the better.

    python -m benchmarks.composite_choice                      # print the table
    python -m benchmarks.composite_choice --write docs/composite_choice.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import ImageFilter
from torch import Tensor, nn

import relprop
from examples import demo
from relprop.composites import Composite
from relprop.rules import LRP0, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from relprop.select import convolution, dense, depth, first, last, linear

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "coins", "motorcycle_left", "rocket", "china", "flower", "hubble_deep_field")
PATCH, BLUR = 16, 10
LOW, HIGH = (0 - 127) / 128, (255 - 127) / 128  # of the pixels as the network gets them

Attribution = Callable[[nn.Module, Tensor, Tensor], Tensor]  # model, photos, classes -> relevance [B, C, H, W] or [B, H, W]


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
    logits = model(x)[torch.arange(len(x)), target]
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


def flip(model: nn.Module, x: Tensor, target: Tensor, relevance: Tensor, step: int) -> Tensor:
    """Area between the curves of least and most relevant first, one per photograph."""
    relevance = relevance[:, None] if relevance.ndim == 3 else relevance.sum(1, keepdim=True)
    scores = F.avg_pool2d(relevance.double(), PATCH).flatten(1)
    counts = torch.arange(0, scores.shape[1] + 1, step)
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
