"""What a command prints: text for people, or one JSON document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .options import Common

T = TypeVar("T")


def show(text: str, data: Any, common: Common) -> None:
    """Print one of the two; nothing if it shall be quiet."""
    if common.json:
        print(json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False))
    elif not common.quiet and text:
        print(text)


def note(text: str, common: Common) -> None:
    """A remark beside the result."""
    if not common.quiet:
        print(f"note: {text}", file=sys.stderr)


def bar(items: Sequence[T], unit: str, common: Common) -> Iterable[T]:
    """A progress bar on a terminal, for more than one, where tqdm is installed."""
    if common.quiet or len(items) < 2:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    shown: Iterable[T] = tqdm(items, unit=unit, leave=False, disable=None)
    return shown


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows as aligned text, the first one underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _plain(value: Any) -> Any:
    """What JSON knows: numbers that are not finite, and paths, are text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value
