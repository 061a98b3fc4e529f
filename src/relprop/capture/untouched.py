"""A model that runs writes where it likes: to attributes, lists, variables. All of that is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from .reach import Reach
from .state import GONE, content


@contextmanager
def untouched(reach: Reach) -> Iterator[None]:
    """What is written within to anything of a model but the values of its parameters and buffers is undone."""
    attributes = [mapping for _, mapping in reach.attributes]
    whole = [*reach.mappings.values(), *reach.stores.values(), *reach.hooks.values(), *attributes]
    owners = [(x, _items(x)) for x in [*whole, *reach.classes.values()]]
    sequences = [(x, list(x)) for x in reach.sequences.values()]
    cells = [(cell, content(cell)) for cell in reach.cells.values()]
    modules = [entry for path, entry in reach.chosen.items() if path not in reach.classes]
    variables = [(d, n, d[n]) for d, names in modules for n in names]
    slots = [(x, name, getattr(x, name, GONE)) for x, name in reach.slots.values()]
    arrays = [(x, x.copy()) for x in reach.arrays.values()]
    tensors = [(t, t.detach().clone(), t._version) for t in _alive(reach) if not t.is_inference()]
    data = [(t, t.detach()) for store in reach.stores.values() for t in store.values() if t is not None]
    try:
        yield
    finally:
        for owner, before in owners:
            _restore(owner, _items(owner), before)
        for x, items in sequences:
            if len(x) != len(items) or any(a is not b for a, b in zip(x, items, strict=True)):
                _refill(x, items)
        for cell, value in cells:
            if value is not GONE and content(cell) is not value:
                cell.cell_contents = value
        for d, name, value in variables:
            if d.get(name, GONE) is not value:
                d[name] = value
        for x, name, value in slots:
            if value is not GONE and getattr(x, name, GONE) is not value:
                object.__setattr__(x, name, value)
        for array, values in arrays:
            if array.tobytes() != values.tobytes():
                array[...] = values
        for t, copy, version in tensors:
            if t._version != version:
                t.detach().copy_(copy)
                torch._C._autograd._unsafe_set_version_counter((t,), (version,))
        for t, alias in data:
            with suppress(RuntimeError):  # a tensor without memory
                if t.data_ptr() != alias.data_ptr() or t.shape != alias.shape:
                    t.data = alias


def _alive(reach: Reach) -> list[Tensor]:
    return [t for t in (weak() for weak in reach.tensors.values()) if t is not None]


def _items(owner: Any) -> dict[Any, Any]:
    """The attributes of a class, or what is in a dict, by no method of a subclass."""
    return dict(vars(owner)) if isinstance(owner, type) else dict(dict.items(owner))


def _restore(owner: Any, now: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Let a dict, or the attributes of a class, be what they were."""
    is_class = isinstance(owner, type)
    for key in now.keys() - before.keys():
        delattr(owner, key) if is_class else owner.pop(key)
    for key, value in before.items():
        if now.get(key, GONE) is not value:
            setattr(owner, key, value) if is_class else owner.__setitem__(key, value)


def _refill(x: Any, items: list[Any]) -> None:
    x.clear()
    x.update(items) if isinstance(x, set) else x.extend(items)
