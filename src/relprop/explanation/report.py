"""Explanations as a report in one file."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import view
from ..view.colour import Percentile
from ..view.page import Guess, Sheet, image_maps, page, picture_map, text_map
from ..view.page.sheet import accounts as bars
from .drawn import Drawn, photo_of, words_of
from .explained import Explained
from .facts import accounts, guesses, percent, share_of
from .sanity import checks_of
from .verification import SEAL, record_of, sealed

MOST = 32
"""No more samples in one file."""

Draw = Callable[[Explained, int, int | None], Any]
"""(explanation, sample, target) -> a figure."""


@dataclass(frozen=True)
class Choice:
    """What a caller says of the pictures, for all samples."""

    image: Any = None
    tokens: Any = None
    wrt: str | int | None = None
    crop: float | None = None
    percentile: Percentile = "auto"


def write_report(
    samples: Sequence[tuple[Explained, int]],
    path: str | PathLike[str],
    draw: Draw,
    title: str | None = None,
    image: Any = None,
    tokens: Any = None,
    wrt: str | int | None = None,
    crop: float | None = None,
) -> Path:
    """Write explanations of samples as one page."""
    if not 0 < len(samples) <= MOST:
        raise ValueError(f"a report is of 1 to {MOST} samples, not of {len(samples)}")
    path = Path(path)
    images = image if isinstance(image, list) else [image] * len(samples)
    if len(images) != len(samples):
        raise ValueError(f"image= are {len(images)} photos for {len(samples)} samples; one for each, or one for all")
    choices = [Choice(one, tokens, wrt, crop) for one in images]
    plans = {id(explanation.plan): explanation.plan for explanation, _ in samples}
    models = {key: plan.model_digest for key, plan in plans.items()}
    records = [record_of(e[i], i, models[id(e.plan)]) for e, i in samples]
    every = zip(samples, choices, records, strict=True)
    sheets = [sheet_of(e, i, draw, choice, record) for (e, i), choice, record in every]
    title = title or (f"Explanation: {sheets[0].title}" if len(sheets) == 1 else f"{len(sheets)} explanations")
    text = sealed(page(sheets, title, _versions(), json.dumps(records), SEAL))
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def sheet_of(
    explanation: Explained, sample: int, draw: Draw, choice: Choice, record: dict[str, Any] | None = None
) -> Sheet:
    """All that a report shows of one sample, as words, numbers and pictures; with a record, how to reproduce it."""
    parts = explanation.parts
    names = [part.name(sample) for part in parts]
    sheet = Sheet(", ".join(names), plan=str(explanation.plan), recipe="" if record is None else _recipe(record))
    sheet.facts = [
        ("explained", "; ".join(f"{n}: {float(p.value[sample]):.4g}" for n, p in zip(names, parts, strict=True))),
        ("reached the input", "; ".join(share_of(p.ledger, sample) or "nothing to share" for p in parts)),
        ("rules", explanation.plan.title),
        ("sample", f"{sample} of {len(explanation)}"),
    ]
    chosen = {int(p.target[sample]) for p in parts if isinstance(p.target, Tensor) and p.target.ndim == 1}
    sheet.guesses = [
        Guess(g.index, explanation.class_name(g.index), f"{g.score:.4g}", g.probability, g.index in chosen)
        for g in guesses(explanation.output, sample)
    ]
    sheet.books = [
        (
            name,
            bars(accounts(p.ledger, sample), float(p.ledger.seed[sample]), percent),
            str(p.ledger.mapped(lambda amount: amount[[sample]])),
        )
        for name, p in zip(names, parts, strict=True)
    ]
    try:
        _draw(sheet, explanation, sample, draw, choice)
    except ValueError as error:
        if choice.image is not None or choice.tokens is not None or choice.wrt is not None:
            raise
        sheet.note = f"No picture: {error}"
    return sheet


def _draw(sheet: Sheet, explanation: Explained, sample: int, draw: Draw, choice: Choice) -> None:
    """The pictures, by the kind of the data, and the checks that need to see them."""
    drawn = Drawn.of(explanation, sample, choice.wrt, None)
    relevance, titles = drawn.relevance, [title.replace("\n", ", ") for title in drawn.titles]
    is_text = choice.tokens is not None or not drawn.given.dtype.is_floating_point
    is_image = not is_text and relevance.ndim == 4
    sheet.checks = [
        (part.name(sample), checks_of(part, sample, r, is_image, is_text))
        for part, r in zip(explanation.parts, relevance, strict=True)
    ]
    if is_image:
        photo = photo_of(choice.image, drawn.given, relevance.shape[-2:], choice.crop)
        sheet.maps, sheet.photo, sheet.scale = image_maps(relevance, photo, titles, percentile=choice.percentile)
    elif is_text:
        pairs = [words_of(choice.tokens, r, drawn.given) for r in relevance]
        sheet.texts = [text_map(*pair, title) for pair, title in zip(pairs, titles, strict=True)]
    else:
        which = range(len(relevance)) if explanation.several else [None]
        figures = [draw(explanation, sample, i) for i in which]
        sheet.maps = [picture_map(view.png(f), title) for f, title in zip(figures, titles, strict=True)]


def _recipe(record: dict[str, Any]) -> str:
    """What to type, and what to compare with."""
    told = record["digests"]
    lines = [
        "lrp = relprop.LRP(model, composite, bias=bias)",
        f"explanation = lrp.explain(inputs, target)  # of sample {record['sample']}",
        "",
        f"rules       {record['rules']}",
        f"target      {'; '.join(record['targets'])}",
        *(f"{name:<11} sha256 {told[name] or '(not known)'}" for name in ("model", "plan", "inputs", "relevance")),
        *(f"{name:<11} {version}" for name, version in _versions()),
        "",
        "relprop.verify compares the digests, of this sample. Another processor may round relevance otherwise.",
    ]
    return "\n".join(lines)


def _versions() -> list[tuple[str, str]]:
    try:
        own = importlib.metadata.version("relprop")
    except importlib.metadata.PackageNotFoundError:
        own = "(not installed)"
    return [("relprop", own), ("torch", torch.__version__), ("Python", platform.python_version())]
