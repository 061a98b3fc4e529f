"""Models that differentiate in their forward: forces from an energy, scores, penalties."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import CaptureError
from .copies import copied
from .reach import Reach
from .untouched import untouched

DERIVATIVES = (torch.autograd.grad, torch.autograd.backward, Tensor.backward, torch._VF._make_dual)
"""What every way of differentiating comes down to, ``torch.func`` as well."""


class _Differentiates(BaseException):
    """Ends a run where it is about to differentiate; no model catches it."""


class _Watch(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in DERIVATIVES:
            raise _Differentiates
        return function(*args, **(kwargs or {}))


def refuse_derivatives(model: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if a model differentiates itself, whose output no rule of relevance is for.

    Args:
        model: which could not be captured, or not be explained; it is left as it is.
        name: what it is called.
        args, kwargs: the inputs.

    Raises:
        CaptureError: if it does.
    """
    args, kwargs = copied(args, kwargs)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    try:
        with suppress(Exception), untouched(Reach(model)), torch.enable_grad(), _Watch():
            torch.func.functional_call(model, buffers, args, kwargs)
    except _Differentiates:
        raise CaptureError(
            f"{name} differentiates in its forward (torch.autograd.grad, backward, torch.func or the like): what it "
            "returns is a derivative, which relevance is not defined for. Explain the function that it differentiates, "
            "as a module of its own."
        ) from None
