"""Which files, texts and pictures the words INPUT stand for."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..failures import Failure, Usage, meant

Kind = Literal["picture", "array", "table", "text"]
KINDS: dict[str, Kind] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"), "picture"),
    ".npy": "array",
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    ".txt": "text",
}
_PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin"}
STDIN = "stdin:"
"""What "-" is called once it has been read."""


@dataclass(frozen=True)
class Source:
    """Something to read: a file, or a text that was typed (``path`` is None)."""

    kind: Kind
    name: str
    path: Path | None = None

    @property
    def is_typed(self) -> bool:
        return self.path is None and self.name != STDIN


def sources(words: Sequence[str], reads_text: bool) -> list[Source]:
    """What each word stands for, in order; the files of a folder are sorted by name.

    Raises:
        Usage: if there is no such file, or nothing in a folder that can be read.
        Failure: if a file is of a kind that cannot be read, or never is.
    """
    if not words:
        raise Usage("no INPUT: give files, folders, globs, a text, or - for what is piped in")
    return [source for word in words for source in _sources(word, reads_text)]


def _sources(word: str, reads_text: bool) -> list[Source]:
    path = Path(word)
    if word == STDIN:
        return [Source("text" if reads_text else "picture", STDIN)]
    if word.startswith("example:"):
        return [Source("picture", word.partition(":")[2], example(word.partition(":")[2]))]
    if _exists(path):
        return _folder(path) if path.is_dir() else [_file(path)]
    if glob.has_magic(word) and not (reads_text and " " in word):
        return _files([Path(found) for found in sorted(glob.glob(word, recursive=True))], f"no file matches {word!r}")
    if reads_text and path.suffix.lower() not in KINDS:
        return [Source("text", word)]
    raise Usage(f"there is no file {word!r}{_near(path)}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a text that is too long for a name
        return False


def _near(path: Path) -> str:
    """What else lies beside a file that is not there."""
    if not path.parent.is_dir():
        return f", and no folder {str(path.parent)!r}"
    told = meant(path.name, [other.name for other in path.parent.iterdir()])
    return f"; {told}" if told.startswith("did") else ""


def _folder(path: Path) -> list[Source]:
    kinds = ", ".join(sorted(KINDS))
    return _files(sorted(path.iterdir()), f"folder {str(path)!r} holds no picture, array, table or text ({kinds})")


def _files(paths: Sequence[Path], complaint: str) -> list[Source]:
    found = [_file(path) for path in paths if path.is_file() and path.suffix.lower() in KINDS]
    if not found:
        raise Usage(complaint)
    return found


def _file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise Failure(
            f"{str(path)!r} is a pickle, which is never loaded: unpickling runs whatever code its author put in. Save "
            "arrays as .npy: numpy.save(path, array)"
        )
    if suffix not in KINDS:
        raise Failure(f"{str(path)!r} is of no kind that is read as INPUT: {', '.join(sorted(KINDS))}")
    return Source(KINDS[suffix], str(path), path)


def example(name: str) -> Path:
    """A photograph that scikit-image brings.

    Raises:
        Usage: if there is none of that name.
        ImportError: if the extra ``relprop[demo]`` is not installed.
    """
    try:
        import skimage
    except ImportError as error:
        raise ImportError(
            f'example:{name} comes with scikit-image ({error}); run: pip install "relprop[demo]"'
        ) from error
    found = {
        p.stem: p for p in sorted((Path(skimage.__file__).parent / "data").iterdir()) if p.suffix in (".png", ".jpg")
    }
    if name not in found:
        raise Usage(f"there is no photograph example:{name}; {meant(name, found)}")
    return found[name]
