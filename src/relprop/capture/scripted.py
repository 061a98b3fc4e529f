"""TorchScript: torch's own converter makes an exported program of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._export.converter import TS2EPConverter
from torch.export import ExportedProgram

from ..errors import CaptureError, reason_of
from .quiet import quiet


def is_scripted(model: Any) -> bool:
    """Whether a model was made by ``torch.jit.script``, ``trace``, ``freeze`` or ``load``."""
    return isinstance(model, torch.jit.ScriptModule)


def converted(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """An exported program of a TorchScript module, which holds its live parameters.

    Raises:
        CaptureError: if torch cannot convert it.
    """
    try:
        with torch.no_grad(), quiet(), buffers_kept(model):
            return TS2EPConverter(model, args, kwargs).convert()  # type: ignore[arg-type]
    except Exception as error:  # the converter has no common base class for what it cannot do
        raise CaptureError(
            f"{type(model).__name__} is a TorchScript module that torch.export cannot convert ({reason_of(error)}): "
            "explain the nn.Module that it was made of."
        ) from error


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """What is written to the buffers of a TorchScript module within is undone: nobody can give it others."""
    before = [(b, b.clone(), b._version) for b in model.buffers()]
    try:
        yield
    finally:
        for buffer, values, version in before:
            if buffer._version != version:
                buffer.copy_(values)
