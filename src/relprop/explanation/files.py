"""Explanations as files: data alone, so that reading one runs no code whoever wrote it.

A file holds arrays and one text in JSON, which says where in the structure each array belongs. ``.npz`` and ``.json``
need numpy only; ``.safetensors`` needs the package of that name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FileError

FORMATS = (".npz", ".safetensors", ".json")
_TEXT = "relprop"
_VERSION = 1

Arrays = dict[str, Tensor]


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors in dicts, lists and tuples; of anything else its text.

    Raises:
        FileError: if a tensor is of a type that the format has no word for.
        ImportError: if ``.safetensors`` is asked for and its package is missing.
        OSError: if the file cannot be written.
    """
    arrays: Arrays = {}
    structure = {name: _packed(value, name, arrays) for name, value in content.items()}
    text = {"format": _VERSION, "content": structure}
    _WRITERS[path.suffix.lower()](path, arrays, text)


def read(path: Path) -> dict[str, Any]:
    """What :func:`write` wrote.

    Raises:
        FileError: if the file is not one of these, is damaged, or comes from a later version.
        ImportError: if ``.safetensors`` is to be read and its package is missing.
        OSError: if the file cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FileError(f"{str(path)!r} ends in {path.suffix or 'nothing'!r}; relprop.load reads {', '.join(FORMATS)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        arrays, text = reader(path)
        if text["format"] > _VERSION:
            raise FileError(f"{str(path)!r} is of format {text['format']}; this relprop reads up to {_VERSION}")
        return {name: _unpacked(value, arrays) for name, value in text["content"].items()}
    except (FileError, ImportError, OSError):
        raise
    except Exception as error:  # whatever numpy, zipfile, json and safetensors say of bytes that are not theirs
        raise FileError(
            f"{str(path)!r} is no explanation that relprop saved, or is damaged ({type(error).__name__}: {error})"
        ) from error


# ---------------------------------------------------------------------------------------------------------------------
# The structure: plain values stand for themselves, everything else is {kind: ...}
# ---------------------------------------------------------------------------------------------------------------------


def _packed(value: Any, name: str, arrays: Arrays) -> Any:
    if isinstance(value, Tensor):
        arrays[name] = _plain(value, name)
        return {"tensor": name}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, Mapping):
        # A name of a tensor is the number of its entry: a key may be anything.
        entries = [[str(key), _packed(v, f"{name}.{i}", arrays)] for i, (key, v) in enumerate(value.items())]
        return {"dict": entries}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_packed(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]}
    return str(value)


def _plain(x: Tensor, name: str) -> Tensor:
    if x.layout != torch.strided or x.is_quantized or x.is_complex():
        raise FileError(f"{name} is a {x.layout} tensor of {x.dtype}, which files do not hold; save a dense, real one")
    return x.detach().cpu().contiguous().clone()


def _unpacked(value: Any, arrays: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return arrays[inner]
    if kind == "float":
        return float(inner)
    if kind == "dict":
        return {key: _unpacked(v, arrays) for key, v in inner}
    return {"tuple": tuple, "list": list}[kind](_unpacked(v, arrays) for v in inner)


# ---------------------------------------------------------------------------------------------------------------------
# The formats
# ---------------------------------------------------------------------------------------------------------------------


def _arrays_of(arrays: Arrays) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As numpy has them, and the number types that it has not."""
    narrow = {name: x for name, x in arrays.items() if _numpy_lacks(x)}
    plain = {name: (x.float() if name in narrow else x).numpy() for name, x in arrays.items()}
    return plain, {name: str(x.dtype).removeprefix("torch.") for name, x in narrow.items()}


def _numpy_lacks(x: Tensor) -> bool:
    return x.dtype.is_floating_point and x.dtype not in (torch.float16, torch.float32, torch.float64)


def _tensors_of(arrays: Mapping[str, np.ndarray], narrow: Mapping[str, str]) -> Arrays:
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
    return {name: x.to(getattr(torch, narrow[name])) if name in narrow else x for name, x in tensors.items()}


def _write_npz(path: Path, arrays: Arrays, text: dict[str, Any]) -> None:
    plain, narrow = _arrays_of(arrays)
    note = np.array(json.dumps({**text, "narrow": narrow}))
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_TEXT: note}, **{f"{_TEXT}.{name}": x for name, x in plain.items()})


def _read_npz(path: Path) -> tuple[Arrays, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.file_size > entry.compress_size]
    if packed:
        raise FileError(f"{str(path)!r} holds compressed entries ({packed[0]}), which relprop does not write")
    with np.load(path, allow_pickle=False) as file:
        text = json.loads(str(file[_TEXT]))
        plain = {name.removeprefix(f"{_TEXT}."): file[name] for name in file.files if name != _TEXT}
    return _tensors_of(plain, text["narrow"]), text


def _write_safetensors(path: Path, arrays: Arrays, text: dict[str, Any]) -> None:
    _safetensors().torch.save_file(arrays, str(path), metadata={_TEXT: json.dumps(text)})


def _read_safetensors(path: Path) -> tuple[Arrays, dict[str, Any]]:
    load = _safetensors().safe_open
    with load(str(path), framework="pt") as file:
        text = json.loads(file.metadata()[_TEXT])
        return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 (it is no dict)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            f'.safetensors needs the package safetensors ({error}); run: pip install "relprop[safetensors]", or '
            "take .npz, which needs nothing",
            name=error.name,
        ) from error
    return safetensors


def _write_json(path: Path, arrays: Arrays, text: dict[str, Any]) -> None:
    plain, narrow = _arrays_of(arrays)
    told = {name: {"dtype": x.dtype.name, "shape": list(x.shape), "values": _numbers(x)} for name, x in plain.items()}
    path.write_text(json.dumps({**text, "narrow": narrow, "arrays": told}, allow_nan=False), encoding="utf-8")


def _numbers(x: np.ndarray) -> list[Any]:
    """Values in order, no longer than they must be; what is not finite, which JSON does not know, as text."""
    flat = x.ravel()
    if x.dtype.kind != "f":
        return flat.tolist()
    digits = {2: 5, 4: 9, 8: 17}[x.dtype.itemsize]
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else str(v) for v in flat.tolist()]


def _read_json(path: Path) -> tuple[Arrays, dict[str, Any]]:
    text = json.loads(path.read_text(encoding="utf-8"))
    plain = {name: _array(told) for name, told in text["arrays"].items()}
    return _tensors_of(plain, text["narrow"]), text


def _array(told: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(told["dtype"])
    if dtype.kind not in "fiub":
        raise TypeError(f"arrays of {dtype}")
    values = [float(v) for v in told["values"]] if dtype.kind == "f" else told["values"]
    return np.array(values, dtype).reshape(told["shape"])


_WRITERS: dict[str, Callable[[Path, Arrays, dict[str, Any]], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".json": _write_json,
}
_READERS: dict[str, Callable[[Path], tuple[Arrays, dict[str, Any]]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".json": _read_json,
}
