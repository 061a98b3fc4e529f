"""``relprop compare``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..asked import Asked, check_composite
from ..failures import Usage
from ..options import Common, InputOptions, ModelOptions
from ..output import bar, show, table
from ..reading import Sample
from ..saving import PAGES, PICTURES, Destination
from ..targets import target_of

if TYPE_CHECKING:
    from torch import Tensor

    from relprop.explanation import Explanation


@dataclass(frozen=True)
class Candidate:
    """One map: a target under a composite."""

    composite: str
    part: Any
    relevance: Tensor
    """Of all inputs, flat."""
    facts: dict[str, Any]


def compare(
    model: str,
    /,
    *inputs: str,
    composite: list[str] | None = None,
    target: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    out: Path | None = None,
    wrt: str | None = None,
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Explain one sample by several composites or targets, side by side.

    Args:
        model: As for relprop explain.
        inputs: One sample, as for relprop explain.
        composite: Repeat it for each: auto and epsilon_plus by default, or with several targets auto alone.
        target: As for relprop explain; repeat it for each.
        out: A picture (.png .pdf .svg .jpg), for a picture as input, or a report (.html).
        wrt: As for relprop explain.
    """
    names = composite or (["auto"] if len(target or []) > 1 else ["auto", "epsilon_plus"])
    for name in names:
        check_composite(name)
    if out is not None and out.suffix.lower() not in (*PICTURES, *PAGES):
        raise Usage(f"--out {str(out)!r}: a comparison is one of {', '.join((*PICTURES, *PAGES))}")
    where = Destination.of(out, [])
    asked = Asked.of(model, inputs, names[0], model_options, input_options, common)
    if len(asked.samples) != 1:
        raise Usage(f"one sample is compared at a time, and INPUT are {len(asked.samples)}")
    sample = asked.samples[0]
    if out is not None and out.suffix.lower() in PICTURES and sample.picture is None:
        raise Usage(f"--out {str(out)!r}: only pictures are compared in a picture; give .html")
    explained = {name: _explained(asked, name, sample, target or []) for name in bar(names, "composite", asked.common)}
    found = [c for name, explanation in explained.items() for c in _candidates(name, explanation)]
    files = [] if where is None else [_written(where.path, explained, found, sample, asked, wrt)]
    facts = [{**one.facts, "similarity": _similarity(one.relevance, found[0].relevance)} for one in found]
    data = {"model": model, "input": sample.name, "maps": facts, "files": files}
    show("\n".join([_table(facts), *map(str, ["", *files] if files else [])]), data, asked.common)
    return 0


def _explained(asked: Asked, composite: str, sample: Sample, target: list[str]) -> Explanation:
    from relprop.composites import NAMED

    lrp = asked.lrp.using(NAMED[composite]() if composite in NAMED else None)
    return lrp.explain(sample.inputs, target_of(target, asked.model, sample.inputs), progress=False)


def _candidates(composite: str, explanation: Explanation) -> list[Candidate]:
    import torch
    import torch.utils._pytree as pytree

    found = []
    for part in explanation.parts:
        leaves = [x.detach().double().flatten() for x in pytree.tree_leaves(part.relevance) if x is not None]
        relevance, seed = torch.cat(leaves), float(part.ledger.seed)
        facts = {
            "composite": composite,
            "rules": explanation.plan.title,
            "target": part.name(0),
            "value": float(part.value),
            "share": float(part.ledger.received) / seed if seed else None,
            "growth": float(relevance.abs().sum()) / abs(seed) if seed else None,
        }
        found.append(Candidate(composite, part, relevance, facts))
    return found


def _similarity(a: Tensor, b: Tensor) -> float | None:
    """Cosine of two maps; None where one is zero."""
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else None


def _table(facts: list[dict[str, Any]]) -> str:
    rows = [("composite", "target", "value", "reached the inputs", "Σ|R| / |value|", "cosine with the first")]
    for one in facts:
        share = "" if one["share"] is None else f"{100 * one['share']:.3g} %"
        growth, similarity = (f"{one[name]:.3g}" if one[name] is not None else "" for name in ("growth", "similarity"))
        rows.append((one["composite"], one["target"], f"{one['value']:.4g}", share, growth, similarity))
    return table(rows, right=(2, 3, 4, 5))


def _written(
    path: Path, explained: dict[str, Explanation], found: list[Candidate], sample: Sample, asked: Asked, wrt: str | None
) -> Path:
    from relprop.explanation import report

    if path.suffix.lower() in PAGES:
        options = {"image": sample.picture, "tokens": asked.model.tokenizer, "wrt": wrt}
        return report(list(explained.values()), path, title=f"Comparison: {sample.name}", **options)
    import numpy as np
    import torch

    from relprop import view

    maps = torch.cat([one.part.relevance for one in found])
    photo = view.picture(np.asarray(sample.picture), (maps.shape[-2], maps.shape[-1]))
    titles = [f"{one.composite}\n{one.facts['target']}: {one.facts['value']:.4g}" for one in found]
    drawn = view.figure(
        maps,
        np.broadcast_to(photo, (len(maps), *photo.shape)),
        title=titles,
        percentile="auto",
        cmap=view.colours_over(photo),
    )
    return view.save(path, drawn)[0]
