"""Where results go: one file, or a folder with files for each sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .failures import Failure, Usage, meant
from .reading import Sample

if TYPE_CHECKING:
    from relprop.explanation import Explanation

    from .models import Model

PICTURES = (".png", ".pdf", ".svg", ".jpg")
DATA = (".npz", ".safetensors", ".json")
PAGES = (".html",)
FORMATS = (*PICTURES, *PAGES, *DATA)


@dataclass(frozen=True)
class Destination:
    """A path, and in which formats results are written there."""

    path: Path
    suffixes: tuple[str, ...]
    is_folder: bool

    @classmethod
    def of(cls, out: Path | None, formats: Sequence[str]) -> Destination | None:
        """What ``--out`` and ``--format`` say; whether it can be written is looked at before the work is done.

        Raises:
            Usage: if there is no such format, or no folder.
            Failure: if nothing can be written there.
        """
        if out is None:
            if formats:
                raise Usage("--format says in which formats files are written: give --out DIR as well")
            return None
        suffixes = tuple(f".{name.removeprefix('.').lower()}" for name in formats)
        for suffix in (*suffixes, *([out.suffix.lower()] if out.suffix and not out.is_dir() else [])):
            if suffix not in FORMATS:
                raise Usage(f"{suffix!r} is no format of a result; {meant(suffix, FORMATS)}")
        is_folder = out.is_dir() or not out.suffix
        if suffixes and not is_folder:
            raise Usage(f"--out {str(out)!r} is one file: give a folder for --format, or leave that out")
        if is_folder and out.exists() and not out.is_dir():
            raise Usage(f"--out {str(out)!r} is a file, and has no suffix that names a format")
        if not is_folder:
            check_folder(out)
        _check_writable(out)
        if is_folder:
            out.mkdir(parents=True, exist_ok=True)
        return cls(out, suffixes or ((".png",) if is_folder else (out.suffix.lower(),)), is_folder)

    def save(self, explanation: Explanation, group: Sequence[Sample], model: Model, wrt: str | None) -> list[Path]:
        """Write the explanation of a group of samples, and return the paths."""
        if not self.is_folder:
            return [_written(explanation, group, self.path, model, wrt)]
        return [
            _written(explanation[i], [sample], self.path / f"{_plain(sample.stem)}{suffix}", model, wrt)
            for i, sample in enumerate(group)
            for suffix in self.suffixes
        ]

    def check(self, count: int) -> None:
        """
        Raises:
            Usage: if several samples would go into one picture.
        """
        if not self.is_folder and count > 1 and self.suffixes[0] in PICTURES:
            raise Usage(f"{count} samples do not go into one picture: --out DIR, or .html, or {', '.join(DATA)}")


def _written(explanation: Any, shown: Sequence[Sample], path: Path, model: Model, wrt: str | None) -> Path:
    if path.suffix.lower() in DATA:
        written: Path = explanation.save(path)
        return written
    options: dict[str, Any] = {}
    if model.tokenizer is not None:
        options["tokens"] = model.tokenizer
    if wrt is not None:
        options["wrt"] = wrt
    if path.suffix.lower() in PAGES:
        from relprop.explanation import report

        pictures = [sample.picture for sample in shown]
        return report(explanation, path, image=pictures if any(p is not None for p in pictures) else None, **options)
    if shown[0].names is not None:
        options["names"] = list(shown[0].names)
    written = explanation.save(path, 0, shown[0].picture, **options)
    return written


def check_folder(out: Path) -> None:
    """Whether there is a folder for a file, in which it can be written.

    Raises:
        Usage: if there is none.
        Failure: if it cannot be written in.
    """
    if not out.parent.is_dir():
        raise Usage(f"--out {str(out)!r}: there is no folder {str(out.parent)!r}")
    _check_writable(out)


def _check_writable(out: Path) -> None:
    there = out if out.exists() else next((p for p in (out, *out.parents) if p.exists()), Path("."))
    if not os.access(there, os.W_OK):
        raise Failure(f"--out {str(out)!r}: no permission to write to {str(there)!r}")


def _plain(stem: str) -> str:
    """A name that every system takes for a file."""
    kept = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in stem)
    return kept[:100] or "sample"
