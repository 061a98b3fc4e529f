"""Is relevance where the object is? Masks or boxes say where that is; they do not say that the model looks there."""

from __future__ import annotations

import torch
from torch import Tensor

from .samples import Sample


def regions_of(regions: Tensor, samples: list[Sample]) -> Tensor:
    """Masks [N, *positions], of images [N, H, W], from masks or from boxes [N, 4] (left, top, right, bottom).

    Raises:
        ValueError: if they do not fit the samples, or one is empty.
    """
    x = samples[0].x
    places = x.shape[2:] if x.ndim == 4 else x.shape[1:]
    shape = (len(samples), *places)
    if x.ndim == 4 and tuple(regions.shape) == (len(samples), 4):
        rows, columns = torch.arange(places[0])[:, None], torch.arange(places[1])
        left, top, right, bottom = regions.cpu().T[..., None, None]
        masks = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    elif tuple(regions.shape) == shape:
        masks = regions.cpu().bool()
    else:
        boxes = f", or boxes {[len(samples), 4]}" if x.ndim == 4 else ""
        raise ValueError(f"regions have shape {list(regions.shape)}; masks are {list(shape)}{boxes}")
    if empty := (~masks.flatten(1).any(1)).nonzero().flatten().tolist():
        raise ValueError(f"the regions of samples {empty[:9]} are empty: leave these samples out")
    return masks


def mass(relevance: Tensor, mask: Tensor) -> float | None:
    """The share of positive relevance within the mask (relevance mass accuracy, Arras et al. 2022)."""
    positive = relevance.clamp(min=0)
    total = float(positive.sum())
    return float(positive[mask].sum()) / total if total else None


def rank(relevance: Tensor, mask: Tensor) -> float:
    """The share within the mask of the most relevant positions, as many as it has (relevance rank accuracy)."""
    chosen = relevance.flatten().argsort(descending=True, stable=True)[: int(mask.sum())]
    return float(mask.flatten()[chosen].double().mean())


def pointing(relevance: Tensor, mask: Tensor) -> float:
    """1 if the most relevant position is within the mask, else 0 (pointing game, Zhang et al. 2016)."""
    return float(mask.flatten()[(relevance == relevance.max()).flatten()].any())
