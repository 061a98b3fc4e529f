"""What goes wrong at a command line, in one line with the way out, and with an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FAILED, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes beside 0: the work failed; what was typed cannot be meant; Ctrl-C."""


class Failure(Exception):
    """The work cannot be done."""

    code = FAILED


class Usage(Failure):
    """What was typed cannot be meant: no such file, name or option."""

    code = USAGE


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name: what may have been meant, or what there is."""
    every = list(known)
    close = difflib.get_close_matches(name.casefold(), {one.casefold() for one in every}, 3)
    near = [one for letters in close for one in every if one.casefold() == letters]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(every)}" if every else "there are none"


def told(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for whatever a command raised."""
    if isinstance(error, Failure):
        return error.code, _line(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return FAILED, f"out of memory ({_line(error)[:120]}); explain fewer at a time: --batch 1"
    if isinstance(error, OSError) and error.strerror:
        where = f"{str(error.filename)!r}: " if error.filename else ""
        return FAILED, f"{where}{error.strerror}"
    if isinstance(error, ImportError):
        return FAILED, _line(error)
    from relprop.errors import RelpropError, SelectionError, TargetError

    if isinstance(error, (SelectionError, TargetError)):
        return USAGE, _line(error)
    if isinstance(error, (RelpropError, FileExistsError, FileNotFoundError, ValueError)):
        return FAILED, _line(error)
    return FAILED, f"{type(error).__name__}: {_line(error)} (--debug shows where)"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
