"""Whether anything of a model but its parameters and buffers may have changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, itemgetter
from types import CellType
from typing import Any

import torch
from torch import Tensor, nn

from .reach import Reach

_code = attrgetter("__code__", "__defaults__", "__kwdefaults__")
_of_modules = itemgetter("__call__", "_call_impl", "_wrapped_call_impl", "__getattr__")
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


class State:
    """What the code of a model can see, as it is now.

    Whether it still is so is asked at every call. So the identities of all values are put in one list, and compared:
    about 30 ns each. What a value is compared by is looked at only where an identity differs.
    """

    def __init__(self, reach: Reach):
        self.reach = reach
        self._mappings = list(reach.mappings.values())
        self._stores = list(reach.stores.values())
        self._sequences = list(reach.sequences.values())
        attributes = [mapping for _, mapping in reach.attributes]
        self._sizes = [*reach.hooks.values(), *reach.sizes.values(), *attributes, *map(vars, reach.classes.values())]
        chosen = [(mapping, names) for mapping, names in reach.chosen.values() if names]
        self._chosen = [(itemgetter(*names, names[0]), mapping) for mapping, names in chosen]
        self._now = self._look()
        self._saved = dict(self._slots())

    def same(self) -> bool:
        """Whether every value is the very one that it was."""
        try:
            return self._look() == self._now
        except Exception:  # a name that is gone, a cell that is empty
            return False

    def changes(self) -> set[str]:
        """Names of the values that are others than they were; empty if there are none."""
        if self.same():
            return set()
        now = dict(self._slots())
        names = now.keys() | self._saved.keys()
        changed = {name for name in names if not _alike(now.get(name, GONE), self._saved.get(name, GONE))}
        if not changed:  # other objects of the same values
            self._now, self._saved = self._look(), now
        return changed

    def _look(self) -> list[Any]:
        reach = self.reach
        ids: list[Any] = [*map(id, chain.from_iterable(self._mappings))]
        ids += map(id, chain.from_iterable(map(dict.values, self._mappings)))
        ids += map(id, chain.from_iterable([get(mapping) for get, mapping in self._chosen]))
        ids += map(id, chain.from_iterable(self._sequences))
        ids += map(len, self._sizes)
        ids += map(id, map(type, reach.objects))
        ids += [id(vars(x)) for x, _ in reach.attributes]
        ids += map(id, map(content, reach.cells.values()))
        ids += map(id, chain.from_iterable(map(_code, reach.functions.values())))
        ids += [id(getattr(x, name)) for x, name in reach.slots.values()]
        ids += map(_version, reach.tensors.values())
        ids += [x.tobytes() for x in reach.arrays.values()]
        tensors = list(chain.from_iterable(map(dict.values, self._stores)))
        ids += map(id, tensors)
        ids += [None if t is None else (t.shape, t.dtype, t.device) for t in tensors]
        ids += map(id, _of_modules(vars(nn.Module)))
        ids.append(torch.get_default_dtype())
        return ids

    def _slots(self) -> Iterator[tuple[str, Any]]:
        """Name and value of all that is watched. Tensors are told by their identity, and not kept alive."""
        reach = self.reach
        for path, mapping in reach.mappings.items():
            yield from ((f"{path}.{key}", _held(value)) for key, value in list(dict.items(mapping)))
        for path, (mapping, names) in reach.chosen.items():
            yield from ((f"{path}.{name}", _held(mapping.get(name, GONE))) for name in names)
        for path, sequence in reach.sequences.items():
            yield f"{path} (entries)", tuple(map(_held, sequence))
        for path, large in {**reach.hooks, **reach.sizes}.items():
            yield f"{path} (size)", len(large)
        for x, attributes in reach.attributes:
            yield f"attributes of {type(x).__name__} at {id(x)}", tuple(attributes)
        for path, kind in reach.classes.items():
            yield f"{path} (names)", tuple(vars(kind))
        yield "classes", tuple(map(type, reach.objects))
        yield "attributes", tuple(id(vars(x)) for x, _ in reach.attributes)
        for path, cell in reach.cells.items():
            yield f"{path} (variable)", _held(content(cell))
        for path, function in reach.functions.items():
            yield f"{path} (code)", _code(function)
        for path, (x, name) in reach.slots.items():
            yield path, _held(getattr(x, name, GONE))
        for path, t in reach.tensors.items():
            yield f"{path} (values)", _version(t)
        for path, array in reach.arrays.items():
            yield f"{path} (values)", array.tobytes()
        tensors = [t for store in reach.stores.values() for t in store.values()]
        first: dict[int, int] = {}
        yield "shared tensors", tuple(first.setdefault(id(t), i) for i, t in enumerate(tensors))
        yield "tensors", tuple(None if t is None else (t.shape, t.dtype, t.device) for t in tensors)
        yield "class Module", _of_modules(vars(nn.Module))
        yield "default dtype", torch.get_default_dtype()


GONE = object()
"""In the place of a value that is not there."""


def _held(value: Any) -> Any:
    return ("tensor", id(value)) if isinstance(value, Tensor) else value


def _version(weak: Any) -> Any:
    """How often a tensor was changed in place, and what it is; those of inference mode do not count."""
    t = weak()
    return None if t is None else (None if t.is_inference() else t._version, t.shape, t.dtype, t.device)


def content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet
        return GONE


def _alike(x: Any, y: Any) -> bool:
    """Whether two values are one, or are plain and equal; NaN is what it was."""
    if x is y:
        return True
    if type(x) is not type(y):
        return False
    if isinstance(x, tuple) and not isinstance(x, torch.Size):
        return len(x) == len(y) and all(map(_alike, x, y))
    return isinstance(x, PLAIN) and (bool(x == y) or bool(x != x and y != y))
