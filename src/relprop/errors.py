"""The errors a user can meet. Each says what went wrong, where, and what to do about it."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings

OURS = (os.path.dirname(__file__) + os.sep, contextlib.__file__)
"""Files that a warning is not about."""


class RelpropError(Exception):
    """Base class of all errors raised by relprop."""


class CaptureError(RelpropError):
    """The model could not be captured as a graph of tensor operations."""


class UnsupportedOperation(RelpropError):
    """Relevance would have to pass through an operation that has no rule."""


class TargetError(RelpropError, ValueError):
    """The target does not select one scalar per sample of the model's output."""


class InputError(RelpropError, ValueError):
    """An input cannot be explained: wrong type, shape, dtype, device or value."""


class FileError(RelpropError, ValueError):
    """A file is no explanation that relprop saved, or an explanation holds what files do not."""


class RuleError(RelpropError, ValueError):
    """A rule has a parameter out of range or was given to an operation it is not defined for."""


class SelectionError(RelpropError, ValueError):
    """A selector or a name matches nothing in the graph."""


class RelevanceWarning(UserWarning):
    """Relevance grew, vanished or lost its guarantee at a named operation."""


def reason_of(error: BaseException) -> str:
    """The kind of an error and the first line of it that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def warn(message: str, kind: type[Warning] = RelevanceWarning) -> None:
    """A warning, about relevance by default, at the line of the user's own code that called relprop."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=level)
