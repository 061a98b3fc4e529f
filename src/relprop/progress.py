"""How far a long call is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

Progress = Callable[[list[Any]], Iterable[Any]]


def bar(description: str) -> Progress:
    """A progress bar on a terminal, where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return iter
    return partial(tqdm, desc=description, leave=False, disable=None)
