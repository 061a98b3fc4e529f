"""``relprop explain``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..asked import Asked
from ..failures import Usage
from ..options import Common, InputOptions, ModelOptions
from ..output import bar, show
from ..reading import Sample, group, joined
from ..results import facts, overview
from ..saving import Destination
from ..targets import target_of

if TYPE_CHECKING:
    from relprop.explanation import Explanation


def explain(
    model: str,
    /,
    *inputs: str,
    target: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    composite: str = "auto",
    out: Path | None = None,
    format: list[str] | None = None,
    wrt: str | None = None,
    batch: int = 8,
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Explain what a model makes of pictures, texts or numbers.

    Args:
        model: A .pt2 or .onnx file, package.module:factory, a folder of Hugging Face, timm:NAME:FILE.safetensors, or
            example:lite0.
        inputs: Files, folders, globs, a text, example:chelsea, or - for what is piped in. Arrays are .npy, samples
            first; tables .csv, .tsv or .parquet, a sample in each row.
        target: A class, by name or number; "predicted" by default; of a language model the next token. Repeat it for
            several, side by side.
        composite: Which rule for which operation: a name of relprop.composites.
        out: A file (.png .pdf .svg .jpg .html .npz .safetensors .json) or a folder, which gets files for each input.
        format: In which formats a folder gets files: png by default. Repeat it for several.
        wrt: Name or position of the argument of the model that is drawn, if several have relevance.
        batch: So many samples are explained at a time.
    """
    asked = Asked.of(model, inputs, composite, model_options, input_options, common)
    if batch < 1:
        raise Usage(f"--batch {batch}: at least 1")
    where = Destination.of(out, format or [])
    if where is not None:
        where.check(len(asked.samples))
    is_one_file = where is not None and not where.is_folder
    groups = group(asked.samples, len(asked.samples) if is_one_file else batch)
    if is_one_file and len(groups) > 1:
        raise Usage(f"the inputs are of {len(groups)} shapes, which do not go into one file: --out DIR, or --size")
    found: list[dict[str, Any]] = []
    for samples in bar(groups, "batch", asked.common):
        explanation = _explained(asked, samples, target or [], batch)
        told = [facts(explanation, i, sample) for i, sample in enumerate(samples)]
        if where is not None:
            paths = where.save(explanation, samples, asked.model, wrt)
            for i, one in enumerate(told):
                one["files"] = paths if is_one_file else paths[i * len(where.suffixes) : (i + 1) * len(where.suffixes)]
        found += told
    text = repr(explanation) if len(found) == 1 else overview(found)
    written = dict.fromkeys(str(path) for one in found for path in one.get("files", ()))
    data = {"model": model, "rules": explanation.plan.title, "explanations": found}
    show("\n".join([text, *([""] if written else []), *written]), data, asked.common)
    return 0


def _explained(asked: Asked, samples: list[Sample], target: list[str], batch: int) -> Explanation:
    inputs = joined(samples)
    goal = target_of(target, asked.model, inputs)
    return asked.lrp.explain(
        inputs, goal, micro_batch=batch if len(samples) > batch else None, progress=not asked.common.quiet
    )
