"""Products in single precision on a CPU, by oneDNN, which comes with PyTorch.

PyTorch multiplies matrices with MKL, which takes twice the time of oneDNN on AMD's processors. And it
keeps images channel by channel, from which oneDNN convolves more slowly than from pixel by pixel ("channels last").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LINEAR: Any = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
"""oneDNN's product; None if PyTorch was built without it."""
VECTORS = torch.backends.cpu.get_cpu_capability().startswith("AVX")
"""Whether this is one of the processors on which it was measured: AVX2, AVX-512."""


def suits(*tensors: Tensor) -> bool:
    """Whether oneDNN multiplies these, and nobody differentiates the product."""
    return (
        torch._C._get_mkldnn_enabled()
        and not torch.is_grad_enabled()
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and LINEAR is not None
        and VECTORS
    )


def linear(a: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """``a @ w.T + b``"""
    if a.ndim > 1 and w.ndim == 2 and w.numel() and suits(a, w) and _is_vector(b, len(w)):
        w = w if w.is_contiguous() or w.mT.is_contiguous() else w.contiguous()
        b = b if b is None else b.contiguous()  # it is read as it lies in memory
        product: Tensor = LINEAR(a.contiguous(), w, b, "none", [], "")
        return product
    # outside of autograd, torch multiplies a tensor that is not contiguous row by row
    return torch.nn.functional.linear(a.contiguous(), w, b)


def _is_vector(b: Tensor | None, size: int) -> bool:
    return b is None or (b.shape == (size,) and suits(b))


def channels_last(a: Tensor) -> Tensor:
    """An image, or a kernel for images, as a convolution takes it fastest."""
    if a.ndim != 4 or a.is_contiguous(memory_format=torch.channels_last) or not suits(a):
        return a
    return a.contiguous(memory_format=torch.channels_last)


def convolution(a: Tensor, w: Tensor, b: Tensor | None, *options: Any) -> Tensor:
    """A convolution, plain or transposed; that of complex numbers is made of those of their parts."""
    if a.is_complex():
        return _shifted(convolution(a.real, w, None, *options) + 1j * convolution(a.imag, w, None, *options), b)
    if w.is_complex():
        return _shifted(convolution(a, w.real, None, *options) + 1j * convolution(a, w.imag, None, *options), b)
    z: Tensor = torch.ops.aten.convolution.default(channels_last(a), w, b, *options)
    return z


def _shifted(z: Tensor, b: Tensor | None) -> Tensor:
    return z if b is None else z + b.reshape(-1, *[1] * (z.ndim - 2))


def _linear_shape(a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return a.new_empty((*a.shape[:-1], w.shape[0]))


_LIBRARY = torch.library.Library("relprop", "FRAGMENT")
_LIBRARY.define("linear(Tensor a, Tensor w, Tensor? b) -> Tensor")  # for compilers, which would take their own product
_LIBRARY.impl("linear", linear, "CPU")
torch.library.register_fake("relprop::linear", _linear_shape, lib=_LIBRARY)
