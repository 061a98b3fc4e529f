"""A model with what is known of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..reading.pixels import Pixels

if TYPE_CHECKING:
    import torch
    from torch import nn

    from relprop.lrp import LRP


@dataclass
class Model:
    """What MODEL stands for."""

    runs: nn.Module | Path
    """A module, or a file that LRP loads itself."""
    pixels: Pixels = field(default_factory=Pixels)
    """How pictures become tensors."""
    tokenizer: Any = None
    """What makes ids of texts; None if the model reads none."""
    prepare: Callable[[Any], Any] | None = None
    """A preprocessing of the user's own, from a picture, an array or a text to what the model reads."""
    classes: list[str] | None = None
    is_causal: bool = False
    """Whether it predicts the next token of a text."""
    device: str = "cpu"
    double: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        import torch

        if self.double:
            return torch.float64
        parameters = () if isinstance(self.runs, Path) else self.runs.parameters()
        return next((p.dtype for p in parameters if p.dtype.is_floating_point), torch.float32)

    def lrp(self, composite: str, bias: Literal["absorb", "redistribute", "zero"]) -> LRP:
        """The model under a composite, of those with a name or "auto", and a bias policy.

        Raises:
            CaptureError: if a file cannot be loaded.
        """
        from relprop.composites import NAMED
        from relprop.lrp import LRP

        rules = NAMED[composite]() if composite in NAMED else None  # "auto"
        return LRP(self.runs, rules, bias=bias, classes=self.classes)
