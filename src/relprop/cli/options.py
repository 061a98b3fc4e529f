"""Options that several commands share; each is declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

_GENERAL = Group("Output", sort_key=9)
_MODEL = Group("Model", sort_key=1)
_INPUT = Group("Input", sort_key=2)


@Parameter(name="*", group=_GENERAL)
@dataclass(frozen=True)
class Common:
    """What every command knows."""

    json: bool = False
    """Print one JSON document and nothing else."""
    quiet: bool = False
    """Print errors only."""
    debug: bool = False
    """Show the traceback of an error."""


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded and explained."""

    bias: Literal["absorb", "redistribute", "zero"] = "absorb"
    """What happens to the share of biases."""
    classes: Path | None = None
    """The names of the classes: a text file with one on each line, or a JSON list."""
    tokenizer: Path | None = None
    """Folder of a Hugging Face tokenizer, for a model that has none beside it."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, cuda:1, mps."""
    double: bool = False
    """Compute in double precision."""


@Parameter(name="*", group=_INPUT)
@dataclass(frozen=True)
class InputOptions:
    """How inputs become tensors."""

    size: str | None = None
    """What pictures are cropped and resized to, where the model does not say so: "224", or "240x320" (height first)."""
    mean: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """What is subtracted from pixels in [0, 1]: a number, one for each channel ("0.485,0.456,0.406"), or "imagenet"."""
    std: str | None = None
    """What pixels are then divided by: like --mean."""
    gray: bool = False
    """Read pictures as one channel."""
    columns: str | None = None
    """Of a table: which columns, separated by commas, in the order in which the model reads them."""
