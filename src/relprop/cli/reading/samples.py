"""Samples: what a model reads, one at a time, with what people see of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..failures import Failure, Usage
from .sources import Source, sources
from .tables import columns, numbers

if TYPE_CHECKING:
    from ..models import Model

_PIXELS = 100_000_000
"""No larger picture is decoded."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded: some other formats call programs of their own."""


@dataclass(frozen=True)
class Sample:
    """One sample."""

    name: str
    """What people call it: the file, or the text."""
    stem: str
    """What files about it are called."""
    inputs: Any
    """What the model reads, a batch of one."""
    picture: Any = None
    """Of a picture what the model sees of it."""
    names: tuple[str, ...] | None = None
    """Of a table the columns."""


def samples(words: Sequence[str], model: Model, chosen: str | None) -> list[Sample]:
    """All that the words INPUT stand for, in order.

    Raises:
        Usage: as :func:`.sources.sources`, or if there is no such column.
        Failure: if something cannot be read, or is not what the model reads.
    """
    reads_text = model.tokenizer is not None
    return [sample for source in sources(words, reads_text) for sample in _read(source, model, chosen)]


def group(found: Sequence[Sample], most: int) -> list[list[Sample]]:
    """Samples that follow each other and can be explained in one call, at most so many at a time."""
    groups: list[list[Sample]] = []
    for sample in found:
        if groups and len(groups[-1]) < most and _kind(groups[-1][0]) == _kind(sample):
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups


def joined(group: Sequence[Sample]) -> Any:
    """The inputs of a group as one batch."""
    import torch
    import torch.utils._pytree as pytree

    leaves = [pytree.tree_leaves(sample.inputs) for sample in group]
    spec = pytree.tree_structure(group[0].inputs)
    return pytree.tree_unflatten([torch.cat(column) for column in zip(*leaves, strict=True)], spec)


def _kind(sample: Sample) -> Any:
    import torch.utils._pytree as pytree

    return str(pytree.tree_structure(sample.inputs)), [(x.shape, x.dtype) for x in pytree.tree_leaves(sample.inputs)]


def _read(source: Source, model: Model, chosen: str | None) -> Iterator[Sample]:
    if source.kind == "picture":
        yield _picture(source, model)
    elif source.kind == "array":
        yield from _array(source, model)
    elif source.kind == "table":
        yield from _table(source, model, chosen)
    else:
        yield from _texts(source, model)


def _picture(source: Source, model: Model) -> Sample:
    file = io.BytesIO(sys.stdin.buffer.read()) if source.path is None else source.path
    return picture_in(file, source.name, model, stem=Path(source.name).stem if source.path else "picture")


def picture_in(file: io.BytesIO | Path, name: str, model: Model, most: int = _PIXELS, stem: str = "picture") -> Sample:
    """The sample in a file of a picture, whose header is read first.

    Raises:
        Failure: if it cannot be read, or has more pixels than it may.
        Usage: if the model reads text.
        ImportError: if pillow is missing.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(f'pictures need pillow ({error}); run: pip install "relprop[image]"') from error
    if model.tokenizer is not None and not model.pixels.known:
        raise Usage(f"the model reads text, and {name!r} is a picture")
    try:
        with Image.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > most:
                raise Failure(
                    f"picture {name!r} is {opened.width} by {opened.height}: too large to be decoded; {most / 1e6:g} "
                    "megapixels are the limit"
                )
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError as error:
        raise Failure(f"{name!r} cannot be read as a picture: it is none, or damaged") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, PermissionError):
            raise
        raise Failure(f"{name!r} cannot be read as a picture: {error}") from error
    if model.prepare is not None:
        return Sample(name, stem, _prepared(picture, name, model))
    return Sample(name, stem, _placed(model.pixels(picture), model), model.pixels.seen(picture))


def _array(source: Source, model: Model) -> Iterator[Sample]:
    import numpy as np

    assert source.path is not None
    try:
        values = np.load(source.path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise Failure(f"{source.name!r} cannot be read as an array (pickled objects never are): {error}") from error
    if values.ndim < 2 or not len(values) or values.dtype.kind not in "fiub":
        raise Failure(
            f"{source.name!r} is an array {list(values.shape)} of {values.dtype}; give numbers, samples first: "
            "[samples, ...]"
        )
    yield from _rows(values, source, model)


def _table(source: Source, model: Model, chosen: str | None) -> Iterator[Sample]:
    assert source.path is not None
    table = columns(source.path, chosen)
    if model.tokenizer is None:
        yield from _rows(numbers(table, source.name), source, model, tuple(table))
    elif len(table) != 1:
        raise Usage(f"the model reads text: choose the column that holds it with --columns, of {', '.join(table)}")
    else:
        for i, text in enumerate(next(iter(table.values()))):
            yield text_of(str(text), f"{source.path.stem}-{i}", model)


def _rows(values: Any, source: Source, model: Model, names: tuple[str, ...] | None = None) -> Iterator[Sample]:
    import torch

    if model.tokenizer is not None:
        raise Usage(f"the model reads text, and {source.name!r} holds numbers")
    stem = Path(source.name).stem
    for i, row in enumerate(values):
        name = f"{source.name}[{i}]" if len(values) > 1 else source.name
        one = f"{stem}-{i:0{len(str(len(values) - 1))}}" if len(values) > 1 else stem
        if model.prepare is not None:
            yield Sample(name, one, _prepared(row, name, model), names=names)
        else:
            yield Sample(name, one, _placed(torch.from_numpy(values[i : i + 1]), model), names=names)


def _texts(source: Source, model: Model) -> Iterator[Sample]:
    if source.is_typed:
        yield text_of(source.name, "text", model)
        return
    try:
        content = sys.stdin.read() if source.path is None else source.path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{source.name!r} is no text in UTF-8: {error}") from error
    lines = [line for line in content.splitlines() if line.strip()]
    if not lines:
        raise Failure(f"{source.name!r} holds no text")
    stem = source.path.stem if source.path else "text"
    for i, line in enumerate(lines):
        yield text_of(line, f"{stem}-{i}" if len(lines) > 1 else stem, model)


def text_of(text: str, stem: str, model: Model) -> Sample:
    """The sample of a text.

    Raises:
        Usage: if it is empty, or the model reads none.
        Failure: if the preprocessing of the model fails.
    """
    if not text.strip():
        raise Usage("INPUT is an empty text")
    if model.tokenizer is None:
        if model.prepare is None:
            raise Usage(f"{text[:40]!r} is a text, and the model has no tokenizer: --tokenizer FOLDER")
        return Sample(text, stem, _prepared(text, text[:40], model))
    ids = dict(model.tokenizer(text, return_tensors="pt"))
    return Sample(text, stem, {name: _placed(x, model) for name, x in ids.items()})


def _prepared(given: Any, name: str, model: Model) -> Any:
    """What the user's own preprocessing makes of it; a tensor is one sample, anything else a batch of one."""
    import torch
    import torch.utils._pytree as pytree

    assert model.prepare is not None
    try:
        made = model.prepare(given)
    except Exception as error:
        raise Failure(f"the preprocessing of the model fails on {name!r}: {type(error).__name__}: {error}") from error
    if not all(isinstance(x, torch.Tensor) for x in pytree.tree_leaves(made)):
        raise Failure(
            f"the preprocessing of the model returns {type(made).__name__} for {name!r}, which holds no tensors"
        )
    batch = made[None] if isinstance(made, torch.Tensor) else made
    return pytree.tree_map(lambda x: _placed(x, model), batch)


def _placed(x: Any, model: Model) -> Any:
    """On the model's device, and floats of its type."""
    return x.to(model.device, model.dtype if x.dtype.is_floating_point else x.dtype)
