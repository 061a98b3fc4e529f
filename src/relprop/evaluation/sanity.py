"""Checks that a map must pass and is not to be ranked by: does it depend on the class, and on the parameters?

The classic parameter randomisation test (Adebayo et al. 2018) measures how unlike a map becomes, layer by layer, by
SSIM or rank correlation. It misleads: noisy maps are unlike anything and pass best, while the scale of activations
survives randomising from the top, so that maps which do depend on the model keep their look (Binder et al. 2023). Two
repairs of Hedström et al. (2024) are here: how much more complex the map of a random model is, and likeness of maps
that were smoothed first.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .methods import Attribute
from .samples import Sample

Check = Literal["alike", "randomised", "smooth"]
_BINS, _NOISY, _NOISE = 100, 16, 0.1


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """A copy of a model with all parameters drawn anew, as its modules draw them, else with their own spread."""
    other, reset = copy.deepcopy(model), set[int]()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(_seed(seed))
        for module in other.modules():
            if callable(again := getattr(module, "reset_parameters", None)):
                again()
                reset |= {id(p) for p in module.parameters()}
        for p in other.parameters():
            if id(p) not in reset and p.dtype.is_floating_point and p.numel() > 1:
                p.normal_(float(p.mean()), float(p.std()))
    return other


def _seed(seed: int) -> int:
    """Not the seed itself, with which the model may have been made."""
    return int.from_bytes(hashlib.sha256(f"{seed}/parameters".encode()).digest()[:7], "big")


def positions(relevance: Tensor, sample: Sample) -> Tensor:
    """Relevance by position: of an image [H, W], else as it is; double."""
    r = relevance.detach().double().cpu()
    return r.sum(0) if sample.x.ndim == 4 else r


def entropy(values: Tensor) -> float:
    """Of the histogram of magnitudes in 100 bins from the smallest to the largest, in nats."""
    counts, _ = np.histogram(values.abs().numpy(), bins=_BINS)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def rise(before: Tensor, after: Tensor) -> float | None:
    """How much the entropy of a map rises, as a share, when the parameters are random (efficient MPRT)."""
    start = entropy(before)
    return (entropy(after) - start) / start if start and bool(torch.isfinite(after).all()) else None


def likeness(one: Tensor, other: Tensor) -> float | None:
    """The cosine between two vectors."""
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size else None


def rank_likeness(one: Tensor, other: Tensor) -> float | None:
    """Spearman's correlation of the magnitudes of two vectors."""
    ranks = [_ranks(v.abs()) for v in (one, other)]
    return likeness(*(r - r.mean() for r in ranks))


def _ranks(values: Tensor) -> Tensor:
    """Ranks, of equals their mean."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse]


def smoothed(attribute: Attribute, sample: Sample, sums: Callable[[Tensor], Tensor], seed: int) -> Tensor:
    """The mean relevance of units over 16 inputs with noise of a tenth of their range."""
    if not sample.x.dtype.is_floating_point:
        raise ValueError("the check 'smooth' adds noise to inputs, which ids do not take")
    generator, spread = sample.random(seed, "smooth"), _NOISE * float(sample.x.max() - sample.x.min())
    found = []
    for _ in range(_NOISY):
        noise = torch.randn(sample.x.shape, generator=generator, dtype=torch.float64)
        noisy = replace(sample, given=sample.holding(sample.x + (spread * noise).to(sample.x)))
        found.append(sums(attribute(noisy)))
    return torch.stack(found).mean(0)
