"""Digests: what two people compare to know that they have the same model, the same inputs, the same relevance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(value: Any) -> str:
    """SHA-256, in hexadecimal, of tensors, numbers and text in dicts, lists and tuples; of anything else of its text.

    A list and a tuple of the same have one digest, and so has whatever a file makes of them. Of a tensor its type,
    shape and bytes count, not its device or how it lies in memory.
    """
    found = hashlib.sha256()
    _add(found, value)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        found.update(f"tensor {value.dtype} {list(value.shape)} ".encode())
        plain = value.detach().cpu()
        plain = plain.to_dense() if plain.layout != torch.strided else plain
        found.update(plain.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        found.update(f"dict {len(value)} ".encode())
        for key, inner in value.items():
            _add(found, str(key))
            _add(found, inner)
    elif isinstance(value, (list, tuple)):
        found.update(f"list {len(value)} ".encode())
        for inner in value:
            _add(found, inner)
    elif value is None or isinstance(value, (bool, int, float)):
        found.update(f"number {value!r} ".encode())
    else:
        text = str(value).encode()
        found.update(f"text {len(text)} ".encode() + text)
