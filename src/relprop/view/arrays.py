"""From what a caller hands in to checked arrays: relevance maps [B, H, W] and photos [B, H, W, 3]."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = torch.Tensor | npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
RGB: TypeAlias = npt.NDArray[np.uint8]

# Undoing a normalisation in float32 leaves values a little outside [0, 1]; anything further out is another range.
_ROUNDING = 1e-3


def as_floats(values: Array, name: str) -> Floats:
    """Copy a tensor of any device and number type to a float64 array.

    It lies in memory in the order of its indices. numpy adds up as the memory lies, so that the same relevance has the
    same sums.

    Raises:
        TypeError: not a tensor or array of real numbers.
        ValueError: empty, or not finite; the message gives the index of the first such value.
    """
    if isinstance(values, torch.Tensor):
        # bfloat16 is unknown to numpy, and not every device knows float64: widen on the CPU.
        values = values.detach().cpu()
        array = values.numpy() if values.is_complex() else values.double().numpy()
    elif isinstance(values, np.ndarray):
        array = values
    else:
        raise TypeError(f"{name} is a {type(values).__name__}; pass a torch.Tensor or a numpy array")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}; pass real numbers")
    if array.size == 0:
        raise ValueError(f"{name} of shape {list(array.shape)} is empty; there is nothing to draw")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where, value = bad[0].tolist(), array[tuple(bad[0])]
        raise ValueError(
            f"{name}{where} is {value}, and {len(bad)} of its {array.size} values are not finite; "
            "colours would hide that. Find where they arise, or replace them on purpose with torch.nan_to_num"
        )
    return array.astype(np.float64, order="C")


def row_values(values: Array | None, relevance: Floats) -> Floats | None:
    """The numbers that relevance is of, if they are given, for a series or a table.

    Raises:
        TypeError, ValueError: as in `as_floats`, and for another shape than that of the relevance.
    """
    array = None if values is None else as_floats(values, "values")
    if array is not None and array.shape != relevance.shape:
        raise ValueError(
            f"values have shape {list(array.shape)} but relevance {list(relevance.shape)}; pass the same shape"
        )
    return array


def check_names(names: Sequence[str] | None, features: int) -> None:
    """
    Raises:
        ValueError: if there is not one for each feature.
    """
    if names is not None and len(names) != features:
        raise ValueError(f"{len(names)} names for {features} features; pass one per feature")


def maps(relevance: Array) -> Floats:
    """Relevance [H, W], [C, H, W] or [B, C, H, W] as maps [B, H, W], the channels summed.

    Raises:
        TypeError, ValueError: as in `as_floats`, and for any other number of dimensions.
    """
    array = as_floats(relevance, "relevance")
    if not 2 <= array.ndim <= 4:
        raise ValueError(
            f"relevance has shape {list(array.shape)}; an image's is [H, W], [C, H, W] or [B, C, H, W]. "
            "For sequences use view.series, for text view.tokens_html"
        )
    if array.ndim > 2:
        array = array.sum(axis=-3)  # relevance is additive: a pixel's is the sum over its channels
    return array if array.ndim == 3 else array[None]


def photo(image: Array) -> Floats:
    """An image [H, W], [C, H, W] or [B, C, H, W] as RGB [B, H, W, 3] in [0, 1].

    Raises:
        TypeError, ValueError: as in `as_floats`; also for other shapes and for values that are neither uint8 nor
            floats in [0, 1].
    """
    array = as_floats(image, "image")
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        hint = "pass [C, H, W] or [B, C, H, W] with 1 or 3 channels"
        if array.shape[-1] in (1, 3, 4):
            hint += "; this looks like channels-last: pass tensor.permute(2, 0, 1) or array.transpose(2, 0, 1)"
        raise ValueError(f"image has shape {list(image.shape)}; {hint}")
    if image.dtype in (torch.uint8, np.uint8):
        array = array / 255
    elif array.min() < -_ROUNDING or array.max() > 1 + _ROUNDING:
        raise ValueError(
            f"image ranges from {array.min():.4g} to {array.max():.4g}; pass floats in [0, 1] or uint8: undo the "
            "model's normalisation, or pass view.stretch(image) if exact colours do not matter"
        )
    return np.broadcast_to(np.moveaxis(array.clip(0, 1), 1, -1), (len(array), *array.shape[2:], 3))


def stretch(image: Array) -> npt.NDArray[np.float64]:
    """Map each image's own range linearly to [0, 1], to show a normalised model input.

    Args:
        image: [H, W], [C, H, W] or [B, C, H, W], of any range.

    Returns:
        float64 of the same shape; an image of one value everywhere becomes 0.5.

    Raises:
        TypeError, ValueError: not real numbers, empty or not finite.
    """
    array = as_floats(image, "image")
    axes = tuple(range(1, 4)) if array.ndim == 4 else None  # per sample of a batch
    low, high = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    span = high - low
    return np.where(span > 0, (array - low) / np.where(span > 0, span, 1), 0.5)
