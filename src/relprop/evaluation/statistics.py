"""How sure a mean over samples is, and a difference of two methods on the same samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 4999


def resampled(samples: int, seed: int) -> Floats:
    """How often each sample is drawn with replacement, as a share, [RESAMPLES, samples].

    It is the same for all methods, so that differences are paired.
    """
    return np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), RESAMPLES) / samples


def interval(values: Floats, weights: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Percentile bootstrap of the mean of [samples, ...]."""
    means = (weights @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def p_value(differences: Floats, weights: Floats) -> float:
    """Two-sided, of no mean difference, from paired differences [samples]: how often the bootstrap changes sign."""
    means = weights @ differences
    smaller = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(means) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for so many comparisons (Holm 1979)."""
    order, found, last = np.argsort(p_values, kind="stable"), [1.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        last = max(last, min(1.0, (len(p_values) - place) * p_values[i]))
        found[i] = last
    return found
