"""Loading a ``.pt2`` file that may come from anybody.

``torch.export.load`` unpickles parts of the archive without restraint, evaluates its symbolic expressions with
Python's ``eval``, looks operations up by name anywhere below ``torch``, loads compiled libraries, and takes as much
memory as the archive says. So the archive is read here first, with nothing but ``zipfile`` and ``json``, and
everything in it that is not known to be harmless is refused. What torch then reads is a copy that holds exactly what
was checked.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch._export.serde.serialize import deserialize_scalar_type
from torch.export import ExportedProgram

from ..errors import CaptureError, reason_of
from .sizes import NotASize, symbols_of

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.format_version|\.storage_alignment|version|\.data/[\w.-]+"
    r"|models/[\w.-]+\.json|extra/.*|data/(weights|constants|sample_inputs)/[\w.-]+"
)
"""What an exported program consists of; compiled code (``data/aotinductor``) is not among it."""

OPERATIONS = re.compile(
    r"torch\.ops\.(?!_c10d|inductor|prims\.[a-z_]*file)\w+\.\w+(\.\w+)?|torch\.sym_\w+|torch\._sym_\w+|math\.\w+"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|truediv|mod|pow|and_|or_|lshift|rshift|getitem)"
)
"""Names that torch looks up as attributes, of the operations that an exported program calls."""
DUNDER = re.compile(r"__\w+__")
DUNDER_OPERATIONS = {"__and__", "__or__", "__xor__", "__lshift__", "__rshift__"}

MORE, MORE_TEXT = 2**29, 2**22
"""So many bytes may be taken beyond those on disk, by all members and by those that are text."""
ALL_SIZES = 10**6
"""So many characters may the symbolic sizes of a program have; torch takes some ten seconds to evaluate them."""


def load(path: Path) -> ExportedProgram:
    """Load a ``.pt2`` file. A file that could run code while it is loaded, or later, is refused before it does, and so
    is one that would take far more memory than it has bytes, or long to load.

    Raises:
        CaptureError: if there is no such file, if it is damaged, or if it holds more than a program and its tensors.
    """
    if not path.is_file():
        raise CaptureError(f"there is no file {str(path)!r}.")
    try:
        with zipfile.ZipFile(path) as archive:
            checked = _checked(archive, path.stat().st_size)
    except _Refused as error:
        raise CaptureError(f"{str(path)!r} is refused: {error}.") from error
    except Exception as error:  # zipfile and json have no common base class for what can be wrong with a file
        raise CaptureError(f"{str(path)!r} is no .pt2 file, or it is damaged: {reason_of(error)}") from error
    try:
        return torch.export.load(checked)
    except Exception as error:
        raise CaptureError(f"{str(path)!r} could not be loaded: {reason_of(error)}") from error


class _Refused(Exception):
    """The archive holds something that could run code, or more than fits."""


# ---------------------------------------------------------------------------------------------------------------------
# The archive
# ---------------------------------------------------------------------------------------------------------------------


def _checked(archive: zipfile.ZipFile, on_disk: int) -> io.BytesIO:
    """An archive of what was checked, and nothing else; nothing in it is compressed."""
    members = _members(archive, on_disk)
    documents = {name: json.loads(_content(archive, x)) for name, x in members.items() if name.endswith(".json")}
    for name, document in documents.items():
        if name.startswith("models/"):
            _check_program(name, document)
    _check_tensors(documents, members)
    plain = _plain_tensors(documents)
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w", zipfile.ZIP_STORED) as copy:
        for name, member in members.items():
            data = json.dumps(documents[name]).encode() if name in documents else _content(archive, member)
            if name.startswith("data/") and name not in documents and name not in plain:
                data = _checked_pickle(name, data)
            copy.writestr(f"archive/{name}", data)
    checked.seek(0)
    return checked


def _members(archive: zipfile.ZipFile, on_disk: int) -> dict[str, zipfile.ZipInfo]:
    """The members of the archive by name, without the folder that all of them are in. Nothing is read."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        _, _, inner = member.filename.partition("/")
        if inner in members:
            raise _Refused(f"it holds {member.filename} twice")
        if not MEMBERS.fullmatch(inner) or ".." in inner:
            raise _Refused(f"{member.filename} is no part of an exported program")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused(f"{member.filename} is compressed in a way that torch does not know")
        members[inner] = member
    _bound("it unpacks", sum(x.file_size for x in members.values()), on_disk, MORE)
    text = [x for name, x in members.items() if name.endswith(".json")]
    _bound("its text unpacks", sum(x.file_size for x in text), on_disk, MORE_TEXT)
    return {name: x for name, x in members.items() if not name.startswith("extra/")}  # nobody asks for those


def _bound(what: str, size: int, on_disk: int, more: int) -> None:
    if size > on_disk + more:
        raise _Refused(
            f"{what} to {size / 2**20:,.0f} MB, where it has {on_disk / 2**20:,.1f} MB on disk. If you trust it, give "
            "LRP the program itself: torch.export.load(path)"
        )


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """What a member holds, read in pieces: no more is unpacked than it declares, whatever it would unpack to."""
    with archive.open(member) as file:
        return b"".join(iter(lambda: file.read(2**20), b""))


# ---------------------------------------------------------------------------------------------------------------------
# The program
# ---------------------------------------------------------------------------------------------------------------------


def _check_program(name: str, document: Any) -> None:
    for place, value in _entries(document):
        key = place[-1]
        if key == "target" and isinstance(value, str) and re.match(r"torch|math|_operator|#", value):
            allowed = OPERATIONS.fullmatch(value) and set(DUNDER.findall(value)) <= DUNDER_OPERATIONS
            if not allowed:
                raise _Refused(f"{name} calls {value!r}, which is no tensor operation")
        if isinstance(value, str) and "default_factory_module" in value:
            raise _Refused(f"{name} names a module to import")
    _check_sizes(name, document)
    document["guards_code"] = []  # Python code, which checks sizes that a graph checks by itself


def _check_sizes(name: str, document: Any) -> None:
    """All symbolic sizes are well-formed, soon evaluated, and of symbols whose range the file gives."""
    known: set[str] = set()
    for expression in document.get("range_constraints") or {}:
        known |= _symbols(f"{name}, range_constraints", expression)
    seen, total = dict[str, set[str]](), 0
    for place, value in _entries(document):
        if place[-1] != "expr_str":
            continue
        where, total = f"{name}, {_spelt(place[:-2])}", total + len(str(value))
        if total > ALL_SIZES:
            raise _Refused(
                f"{name} holds so many symbolic sizes that torch would take long to read them. If you trust it, give "
                "LRP the program itself, torch.export.load(path), or export it with fewer open dimensions"
            )
        if value not in seen:
            seen[value] = _symbols(where, value)
        if unknown := seen[value] - known:
            raise _Refused(
                f"{where}, is the size {_short(value)}, and the file says nothing of the symbol {min(unknown)!r} in it "
                f"(it gives the ranges of {', '.join(sorted(known)) or 'none'})"
            )


def _symbols(where: str, expression: Any) -> set[str]:
    try:
        return symbols_of(str(expression))
    except NotASize as error:
        raise _Refused(
            f"{where}, holds the expression {_short(expression)}, which is no symbolic size: {error}"
        ) from error


def _short(expression: Any) -> str:
    text = str(expression)
    return repr(text if len(text) < 80 else text[:77] + "...")


def _spelt(place: tuple[str | int, ...]) -> str:
    """A place in a document, such as ``tensor_values.relu.sizes[0]``."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in place]
    return "".join(steps).removeprefix(".graph_module").removeprefix(".graph").removeprefix(".")


# ---------------------------------------------------------------------------------------------------------------------
# Its tensors
# ---------------------------------------------------------------------------------------------------------------------


def _payloads(documents: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Folder and name of every tensor, and what is said of it."""
    for name, document in documents.items():
        folder = name.rpartition("/")[0]
        if folder in ("data/weights", "data/constants"):
            for tensor, payload in document["config"].items():
                yield folder, tensor, payload


def _check_tensors(documents: dict[str, Any], members: dict[str, zipfile.ZipInfo]) -> None:
    """Tensors that are declared larger than what the file holds of them take memory all the same."""
    declared: dict[str, int] = {}
    for folder, tensor, payload in _payloads(documents):
        meta, file = payload.get("tensor_meta"), f"{folder}/{payload['path_name']}"
        if not meta:
            continue
        sizes = [size.get("as_int") for size in meta["sizes"]]
        if not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise _Refused(f"{folder} declares {tensor!r} to be of shape {sizes}")
        taken = prod(sizes) * deserialize_scalar_type(meta["dtype"]).itemsize
        held = members[file].file_size if file in members else 0
        declared[file] = max(declared.get(file, 0), taken - held)
        if sum(declared.values()) > MORE:
            raise _Refused(
                f"{folder} declares {tensor!r} to be of shape {sizes}, {taken / 2**20:,.0f} MB, of which the file "
                f"holds {held / 2**20:,.1f} MB"
            )


def _plain_tensors(documents: dict[str, Any]) -> set[str]:
    """Files that torch reads as the bare bytes of a tensor: those that a configuration names, and none as a pickle."""
    plain: set[str] = set()
    pickled: set[str] = set()
    for folder, _, payload in _payloads(documents):
        file = str(payload["path_name"])
        if not re.fullmatch(r"[\w.-]+", file) or file.endswith(".json"):
            raise _Refused(f"{folder} refers to {file!r}")
        if folder == "data/constants" and not file.startswith("tensor_"):
            raise _Refused(f"{file} is an object of another kind than a tensor")
        (pickled if payload.get("use_pickle", True) else plain).add(f"{folder}/{file}")
    return plain - pickled


def _checked_pickle(name: str, data: bytes) -> bytes:
    """What ``torch.save`` wrote, if it holds tensors alone."""
    if not data:
        return data
    if zipfile.is_zipfile(io.BytesIO(data)):
        data = _repacked(name, data)
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise _Refused(f"{name} holds more than tensors, and loading it could run code ({reason_of(error)})") from error
    return data


def _repacked(name: str, data: bytes) -> bytes:
    """The same archive with what was seen in it, and nothing else. torch writes none whose members are compressed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as copy:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
                raise _Refused(f"{name} is compressed inside")
            copy.writestr(member.filename, _content(archive, member))
    return packed.getvalue()


def _entries(tree: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """All values of a parsed JSON document below the top, at every depth, with their places."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, value in inside:
        yield (*place, step), value
        yield from _entries(value, (*place, step))
