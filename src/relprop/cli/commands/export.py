"""``relprop export``"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..asked import Asked
from ..failures import Usage
from ..options import Common, InputOptions, ModelOptions
from ..output import show
from ..saving import check_folder


def export(
    model: str,
    /,
    *inputs: str,
    out: Path,
    composite: str = "auto",
    format: Literal["pt2", "aoti", "onnx"] | None = None,
    fixed: bool = False,
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Save the explanation as a program of its own, which runs without relprop.

    It takes the inputs and a class for each sample, and gives the output and relevance.

    Args:
        model: As for relprop explain.
        inputs: An example; the first sample is taken.
        out: The program, .pt2 or .onnx.
        composite: Which rule for which operation: a name of relprop.composites.
        format: What the name of the file ends with by default; aoti is compiled for this machine.
        fixed: One sample at a time, instead of any number.
    """
    suffix = out.suffix.lower()
    if format is None and suffix not in (".pt2", ".onnx"):
        raise Usage(f"--out {str(out)!r}: a program ends in .pt2 or .onnx")
    check_folder(out)
    asked = Asked.of(model, inputs, composite, model_options, input_options, common)
    path = asked.lrp.export(out, asked.samples[0].inputs, format=format, dynamic=not fixed)
    show(str(path), {"model": model, "files": [path]}, asked.common)
    return 0
