"""Loading a ``.pt2`` file that may come from anybody.

``torch.export.load`` unpickles parts of the archive without restraint, evaluates its symbolic expressions with
Python's ``eval``, looks operations up by name anywhere below ``torch`` and loads compiled libraries. So the archive is
read here first, with nothing but ``zipfile`` and ``json``, and everything in it that is not known to be harmless is
refused. What torch then reads is a copy that holds exactly what was checked.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ..errors import CaptureError, reason_of

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.format_version|\.storage_alignment|version|\.data/[\w.-]+"
    r"|models/[\w.-]+\.json|extra/.*|data/(weights|constants|sample_inputs)/[\w.-]+"
)
"""What an exported program consists of; compiled code (``data/aotinductor``) is not among it."""

SYMBOL = r"[a-z]+\d+"
FUNCTIONS = set(
    "Symbol Integer Float Rational Mul Add Pow Max Min Mod Abs Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan "
    "StrictGreaterThan LessThan GreaterThan And Or Not Xor Piecewise ExprCondPair floor ceiling true false True False "
    "oo int_oo zoo nan positive negative nonnegative integer real evaluate "
    "FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural "
    "FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt "
    "RoundDecimal ToFloat Identity".split()
)
"""What may be named in a symbolic size."""
TOKENS = re.compile(rf"'{SYMBOL}'|[A-Za-z_]\w*|\d+(\.\d*)?(e[+-]?\d+)?|[\s+\-*/%(),<>=&|~!]")

OPERATIONS = re.compile(
    r"torch\.ops\.(?!_c10d|inductor|prims\.[a-z_]*file)\w+\.\w+(\.\w+)?|torch\.sym_\w+|torch\._sym_\w+|math\.\w+"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|truediv|mod|pow|and_|or_|lshift|rshift|getitem)"
)
"""Names that torch looks up as attributes, of the operations that an exported program calls."""
DUNDER = re.compile(r"__\w+__")
DUNDER_OPERATIONS = {"__and__", "__or__", "__xor__", "__lshift__", "__rshift__"}


def load(path: Path) -> ExportedProgram:
    """Load a ``.pt2`` file. A file that could run code while it is loaded, or later, is refused before it does.

    Raises:
        CaptureError: if there is no such file, if it is damaged, or if it holds more than a program and its tensors.
    """
    if not path.is_file():
        raise CaptureError(f"there is no file {str(path)!r}.")
    try:
        members = _read(path)
        _refuse_code(members)
    except _Refused as error:
        raise CaptureError(f"{str(path)!r} is refused: {error}.") from error
    except Exception as error:  # zipfile and json have no common base class for what can be wrong with a file
        raise CaptureError(f"{str(path)!r} is no .pt2 file, or it is damaged: {reason_of(error)}") from error
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    checked.seek(0)
    try:
        return torch.export.load(checked)
    except Exception as error:
        raise CaptureError(f"{str(path)!r} could not be loaded: {reason_of(error)}") from error


class _Refused(Exception):
    """The archive holds something that could run code."""


def _read(path: Path) -> dict[str, bytes]:
    """The members of the archive by name, without the folder that all of them are in."""
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            _, _, inner = name.partition("/")
            if inner in members:
                raise _Refused(f"it holds {name} twice")
            if not MEMBERS.fullmatch(inner) or ".." in inner:
                raise _Refused(f"{name} is no part of an exported program")
            members[inner] = archive.read(name)
    return members


def _refuse_code(members: dict[str, bytes]) -> None:
    documents = {name: json.loads(data) for name, data in members.items() if name.endswith(".json")}
    for name, document in documents.items():
        if name.startswith("models/"):
            _check_program(name, document)
    plain = _plain_tensors(documents)
    for name, data in members.items():
        if name.startswith("data/") and name not in documents and name not in plain:
            _check_pickle(name, data)


def _check_program(name: str, document: Any) -> None:
    for key, value in _entries(document):
        if key == "expr_str" and not _is_size(str(value)):
            raise _Refused(f"{name} holds the expression {value!r}, which is no symbolic size")
        if key == "target" and isinstance(value, str) and re.match(r"torch|math|_operator|#", value):
            allowed = OPERATIONS.fullmatch(value) and set(DUNDER.findall(value)) <= DUNDER_OPERATIONS
            if not allowed:
                raise _Refused(f"{name} calls {value!r}, which is no tensor operation")
        if isinstance(value, str) and "default_factory_module" in value:
            raise _Refused(f"{name} names a module to import")
    if isinstance(document, dict) and document.get("guards_code"):
        raise _Refused(f"{name} holds Python code for guards")


def _is_size(expression: str) -> bool:
    """Whether an expression holds numbers, symbols and functions of sympy, and nothing that eval could do harm with."""
    position = 0
    while position < len(expression):
        token = TOKENS.match(expression, position)
        if token is None:
            return False
        word = token.group()
        if re.match(r"[A-Za-z_]", word) and word not in FUNCTIONS and not re.fullmatch(SYMBOL, word):
            return False
        position = token.end()
    return True


def _plain_tensors(documents: dict[str, Any]) -> set[str]:
    """Files that torch reads as the bare bytes of a tensor: those that a configuration names, and none as a pickle."""
    plain: set[str] = set()
    pickled: set[str] = set()
    for name, document in documents.items():
        folder = name.rpartition("/")[0]
        if folder not in ("data/weights", "data/constants"):
            continue
        for payload in document["config"].values():
            file = str(payload["path_name"])
            if not re.fullmatch(r"[\w.-]+", file) or file.endswith(".json"):
                raise _Refused(f"{name} refers to {file!r}")
            if folder == "data/constants" and not file.startswith("tensor_"):
                raise _Refused(f"{file} is an object of another kind than a tensor")
            (pickled if payload.get("use_pickle", True) else plain).add(f"{folder}/{file}")
    return plain - pickled


def _check_pickle(name: str, data: bytes) -> None:
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise _Refused(f"{name} holds more than tensors, and loading it could run code ({reason_of(error)})") from error


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """All keys of a parsed JSON document with their values, at every depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _entries(value)
