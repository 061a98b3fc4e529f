"""LRP as the explanation that Quantus evaluates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..composites import Choice
from ..engine.session import Bias
from ..lrp import LRP

Explain = Callable[..., npt.NDArray[Any]]


def quantus_explain(
    composite: Choice = "auto", *, bias: Bias = "absorb", channels: Literal["sum", "keep"] = "sum"
) -> Explain:
    """An ``explain_func`` for the metrics of Quantus; Quantus itself need not be installed.

    ``metric(model=model, x_batch=x, y_batch=y, explain_func=quantus_explain("epsilon_plus"))``, where the metric is
    ``quantus.PixelFlipping()``, for example. It captures the model once, and follows what Quantus does to its
    parameters (randomisation).

    Args:
        composite, bias: as of :class:`relprop.LRP`.
        channels: of images [B, C, H, W] "sum" gives [B, 1, H, W], one value for each pixel, "keep" one for each
            channel. To Quantus every value of the inputs is a feature of its own, and it repeats a sum over channels.

    Returns:
        a function ``(model, inputs, targets, device=None)`` -> relevance as float array, [B, ...] as the inputs. It
        takes, and leaves unused, what else Quantus hands to explanations.

    Raises:
        ValueError: if ``channels`` is neither; the function raises as :meth:`relprop.LRP.attribute`.
    """
    if channels not in ("sum", "keep"):
        raise ValueError(f"channels must be 'sum' or 'keep', got {channels!r}")
    last: list[tuple[nn.Module, LRP]] = []  # Quantus hands over the model at every call

    def explain(model: nn.Module, inputs: Any, targets: Any, device: Any = None, **_: Any) -> npt.NDArray[Any]:
        if not last or last[0][0] is not model:
            last[:] = [(model, LRP(model, composite, bias=bias))]
        own = next(model.parameters(), None)
        where = device if device is not None else None if own is None else own.device
        x, classes = _tensor(inputs, where), torch.as_tensor(np.asarray(targets)).long()
        if own is not None and x.dtype.is_floating_point:
            x = x.to(own.dtype)
        relevance = last[0][1].attribute(x, classes.reshape(-1), progress=False).detach()
        if channels == "sum" and relevance.ndim == 4:
            relevance = relevance.sum(1, keepdim=True)
        found: npt.NDArray[Any] = relevance.cpu().numpy()
        return found

    return explain


def _tensor(x: Any, device: Any) -> Tensor:
    return x.to(device) if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x), device=device)
