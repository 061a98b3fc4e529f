"""``relprop verify``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..asked import Asked
from ..failures import FAILED, Usage
from ..options import Common, InputOptions, ModelOptions
from ..output import show, table
from ..reading import joined
from ..targets import target_of


def verify(
    file: Path,
    /,
    model: str | None = None,
    *inputs: str,
    target: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    composite: str = "auto",
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Compare the digests of a report or stored explanation with what is in it; the exit code is 1 if they differ.

    With MODEL and INPUT, as they were given to relprop explain, the explanation is made anew: model, plan and inputs
    must be the same, and the values within 0.1 %.

    Args:
        file: A report (.html), or an explanation (.npz, .safetensors, .json).
        model: As for relprop explain.
        inputs: As for relprop explain.
        target: As for relprop explain.
        composite: As for relprop explain.
    """
    from relprop.explanation import verify as compare

    common = common or Common()
    if not file.is_file():
        raise Usage(f"there is no file {str(file)!r}")
    again = None
    if model is not None:
        asked = Asked.of(model, inputs, composite, model_options, input_options, common)
        samples = joined(asked.samples)
        again = asked.lrp.explain(samples, target_of(target or [], asked.model, samples), progress=not common.quiet)
    found = compare(file, again)
    rows = [("what", "stated", "found", ""), *((f.what, *_short(f.stated, f.found), _verdict(f.agrees)) for f in found)]
    lines = [table(rows)]
    if again is None:
        lines += ["", "The model and the inputs are not in the file: to compare them, add MODEL and INPUT."]
    sound = all(f.agrees for f in found)
    show("\n".join(lines), {"file": str(file), "agrees": sound, "findings": [asdict(f) for f in found]}, common)
    return 0 if sound else FAILED


def _short(*digests: str) -> list[str]:
    return [d if len(d) < 32 else f"{d[:16]}…" for d in digests]


def _verdict(agrees: bool) -> str:
    return "agrees" if agrees else "DIFFERS"
