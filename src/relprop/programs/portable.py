"""Operations that have no name outside of PyTorch, written in those that have one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..rules.layers import input_gradient

aten = torch.ops.aten


# ---------------------------------------------------------------------------------------------------------------------
# Operations that have no name outside of PyTorch
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Attention as products and a softmax, an LSTM step by step."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        yield


def _convolution_backward(
    g: Tensor, x: Tensor, w: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *rest: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    _, groups, wanted = rest
    if wanted[1] or wanted[2]:
        raise NotImplementedError("gradients of weights")
    return input_gradient(g, w, x.shape, stride, padding, dilation, transposed, groups), None, None


def _max_pool_backward(g: Tensor, x: Tensor, *rest: Any) -> Tensor:
    """Every window's value goes to the place of its maximum."""
    index, dims = rest[-1], x.ndim - (len(rest[0]) if len(rest[0]) > 1 else 2)
    flat = torch.zeros_like(x).flatten(dims)
    return flat.scatter_add(-1, index.flatten(dims), g.flatten(dims)).reshape(x.shape)


def _adaptive_average_backward(g: Tensor, x: Tensor) -> Tensor:
    """Aᵀ g B for an average over rows A and columns B."""
    a, b = (
        _windows(n, [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)], like=g)
        for n, m in zip(x.shape[-2:], g.shape[-2:], strict=True)
    )
    return a.mT @ g @ b


def _average_backward(
    g: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """The same for windows of one size; those that leave the padded image are cut off."""
    matrices = []
    for d, (n, m) in enumerate(zip(x.shape[-2:], g.shape[-2:], strict=True)):
        k, s, p = (list(v)[d % len(v)] for v in (kernel, stride or kernel, padding))
        spans = [(i * s - p, min(i * s - p + k, n + p)) for i in range(m)]
        matrices.append(_windows(n, spans, g, count_include_pad, whole=divisor is not None))
    result = matrices[0].mT @ g @ matrices[1]
    return result if divisor is None else result / divisor


def _windows(n: int, spans: list[tuple[int, int]], like: Tensor, padded: bool = True, whole: bool = False) -> Tensor:
    """A matrix [windows, n] that averages (or sums, if ``whole``) the values of each window."""
    rows = []
    for start, end in spans:
        inside = range(max(start, 0), min(end, n))
        size = 1 if whole else (end - start if padded else len(inside))
        rows.append([(1 / size if i in inside else 0.0) for i in range(n)])
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _copysign(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(y < 0, -x.abs(), x.abs())


def _threshold_backward(g: Tensor, x: Tensor, threshold: float) -> Tensor:
    return torch.where(x <= threshold, 0, g)


PORTABLE: dict[Any, Any] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average_backward,
    aten.avg_pool2d_backward.default: _average_backward,
    aten.copysign.Tensor: _copysign,
    aten.threshold_backward.default: _threshold_backward,
}
