"""Whether a report or a stored explanation is what it was when it was written, and what it claims to be of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import FileError
from .digests import digests_of, plan_digest
from .explained import Explained
from .files import FORMATS, read
from .stored import fields_of

SEAL = "0" * 64
"""What stands in a page in the place of its own digest while that is made."""
_SEAL = re.compile(r'(<meta name="relprop-sha256" content=")([0-9a-f]{64})(">)')
_RECORD = re.compile(r'<meta name="relprop-record" content="([^"]*)">')
_PLAN = re.compile(r"<details><summary>The plan: [^<]*</summary><pre>([^<]*)</pre></details>")
_TOLERANCE = 1e-3
"""Relative: values that were computed again may be rounded otherwise."""


@dataclass(frozen=True)
class Finding:
    """One comparison."""

    what: str
    stated: str
    found: str
    agrees: bool


def verify(path: str | PathLike[str], explanation: Explained | None = None) -> list[Finding]:
    """Compare what a report or a stored explanation states with what it holds, and with an explanation made anew.

    Args:
        path: of a report (.html), or of what ``Explanation.save`` wrote as .npz, .safetensors or .json.
        explanation: of the same samples, in the same order. Digests of the model, the plan and the inputs must then be
            the same; of what was computed the values and what inputs received, within 0.1 %, since another processor
            may round otherwise.

    Returns:
        Every comparison; :attr:`Finding.agrees` says how it went. Whoever can write the file can write digests that
        agree: alone they tell of mistakes and damage, with ``explanation`` whether the file is of this model and input.

    Raises:
        FileError: if the file is neither, or states no digests.
        OSError: if it cannot be read.
    """
    path = Path(path)
    found = list(_page(path) if path.suffix.lower() in (".html", ".htm") else _stored(path))
    if explanation is None:
        return found
    records = _records(path)
    again = [explanation] if records[0]["sample"] is None else list(explanation)
    if len(records) != len(again):
        return [*found, Finding("samples", str(len(records)), str(len(again)), False)]
    for i, (record, one) in enumerate(zip(records, again, strict=True)):
        found += _compared(record, one, f" of sample {i}" if len(again) > 1 else "")
    return found


def record_of(explanation: Explained, sample: int | None, model: str | None = None) -> dict[str, Any]:
    """What is stated of a sample, or of all of them: digests, and numbers that bear rounding.

    Args:
        explanation: of this sample alone, or of all.
        sample: its number among those that were explained together.
        model: the digest of the model, if it is known already.
    """
    return {
        "sample": sample,
        "rules": explanation.plan.title,
        "targets": [part.name() for part in explanation.parts],
        "value": explanation.value.flatten().tolist(),
        "received": [x for book in explanation.ledgers for x in book.received.flatten().tolist()],
        "digests": digests_of(explanation, model),
    }


def sealed(page: str) -> str:
    """A page with its own digest, of the page with zeros in the place of the digest."""
    return page.replace(SEAL, hashlib.sha256(page.encode()).hexdigest(), 1)


def _page(path: Path) -> Iterator[Finding]:
    text = _text(path)
    seal = _SEAL.search(text)
    if seal is None:
        raise FileError(f"{str(path)!r} is no report of relprop, or one from before reports stated digests")
    blank = _SEAL.sub(lambda m: f"{m[1]}{SEAL}{m[3]}", text, count=1)
    yield _finding("page", seal[2], hashlib.sha256(blank.encode()).hexdigest())
    plans = [plan_digest(unescape(plan)) for plan in _PLAN.findall(text)]
    records = _records(path)
    if len(plans) != len(records):
        yield Finding("plans", str(len(records)), str(len(plans)), False)
        return
    for i, (record, plan) in enumerate(zip(records, plans, strict=True)):
        where = f" of sample {i}" if len(records) > 1 else ""
        yield _finding(f"plan{where}", record["digests"]["plan"], plan)


def _stored(path: Path) -> Iterator[Finding]:
    content = read(path)
    stated = content.get("digests")
    if stated is None:
        raise FileError(f"{str(path)!r} states no digests: it is from before files did")
    found = digests_of(Explained(**fields_of(content, str(path))))
    for name in found.keys() - {"model"}:  # which the file does not hold
        yield _finding(name, stated.get(name, ""), found[name])


def _text(path: Path) -> str:
    """Every byte counts: line ends are left as they are."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{str(path)!r} is no report of relprop: {error}") from error


def _records(path: Path) -> list[dict[str, Any]]:
    """What a file states of its samples."""
    if path.suffix.lower() in FORMATS:
        return [record_of(Explained(**fields_of(read(path), str(path))), None)]
    found = _RECORD.search(_text(path))
    try:
        records: list[dict[str, Any]] = json.loads(unescape(found[1])) if found else []
        if not records or not all(isinstance(record["digests"], dict) for record in records):
            raise ValueError("no records")
        return records
    except (ValueError, TypeError, KeyError) as error:
        raise FileError(f"{str(path)!r} holds no record of what it shows ({error})") from error


def _compared(record: dict[str, Any], again: Explained, where: str) -> Iterator[Finding]:
    now, where = record_of(again, None), f"{where}, explained again"
    for name in ("model", "plan", "inputs"):
        yield _finding(name + where, record["digests"][name], now["digests"][name])
    for name in ("value", "received"):
        stated, found = record[name], now[name]
        agrees = len(stated) == len(found) and all(map(_alike, stated, found))
        yield Finding(name + where, _numbers(stated), _numbers(found), agrees)


def _alike(a: float, b: float) -> bool:
    return abs(a - b) <= _TOLERANCE * max(abs(a), abs(b)) + 1e-9


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.6g}" for v in values[:4]) + (", ..." if len(values) > 4 else "")


def _finding(what: str, stated: str, found: str) -> Finding:
    return Finding(what, stated, found, bool(stated) and stated == found)
