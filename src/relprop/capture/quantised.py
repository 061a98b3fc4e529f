"""Quantised models: why some of them cannot be explained."""

from __future__ import annotations

from torch import nn

from ..errors import CaptureError

INSTEAD = (
    "Explain the model that it was made of. Where numbers are only rounded, it can be explained as it is: fake "
    "quantisation, or weights alone (torchao's weight-only configurations)."
)


def refuse_quantised(model: nn.Module, name: str) -> None:
    """Raise if a model computes with integers in a way that cannot be seen.

    Args:
        model: which could not be captured, or not be explained.
        name: what it is called.

    Raises:
        CaptureError: with the first module that does.
    """
    for path, module in model.named_modules():
        where = f"{path or 'itself'!r} ({type(module).__name__})"
        if {"quantized", "quantizable"} & set(type(module).__module__.split(".")):
            raise CaptureError(
                f"{name} is quantised: the weights of {where} are packed for integer kernels, which torch.export "
                f"cannot see. {INSTEAD}"
            )
        for parameter in module.parameters(recurse=False):
            if getattr(parameter, "act_quant_kwargs", None) is not None:
                raise CaptureError(
                    f"{name} is quantised: {where} turns its inputs into integers by their own range at every call, "
                    f"which no rule is for. {INSTEAD}"
                )
