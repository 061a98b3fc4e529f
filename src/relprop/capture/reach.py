"""All that the code of a model can see: its modules' attributes, hooks, classes, functions and what these name."""

from __future__ import annotations

import copyreg
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, cached_property, partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules

_Cached = type(cache(lambda: None))

FOREIGN = {"torch", "relprop", "numpy", "functorch", *sys.stdlib_module_names}
"""Packages whose code does not change by itself. What their objects hold of a model's is looked at all the same."""
CONTAINERS = {"SimpleNamespace", "Namespace", "UserDict", "UserList", "ChainMap"}
"""Classes of the standard library that hold a user's values."""
CALLED = {"forward", "__call__", "__getattr__", "__getattribute__"}
"""Methods that run without being named anywhere."""
EVERYWHERE = [value for name, value in vars(of_all_modules).items() if name.startswith("_global_")]
"""Hooks for the modules of all models."""
BIG = 10_000
"""A container of more entries is watched by its length."""
LIMIT = 100_000
"""So many entries are watched at most."""


class Reach:
    """The places that hold what a model's answer may depend on, besides its inputs, parameters and buffers."""

    def __init__(self, model: nn.Module):
        self.mappings: dict[str, dict[Any, Any]] = {}
        """Attributes of objects, and dicts, by where they were found."""
        self.chosen: dict[str, tuple[Any, tuple[str, ...]]] = {}
        """Attributes of modules, classes and Python modules, and the names of those that matter."""
        self.classes: dict[str, type] = {}
        self.hooks: dict[str, Any] = {}
        """Hooks that run with a forward pass: mostly there are none."""
        self.sequences: dict[str, Any] = {}
        """Lists, deques and sets."""
        self.sizes: dict[str, Any] = {}
        """Containers that are too big to look at each entry."""
        self.cells: dict[str, CellType] = {}
        self.functions: dict[str, FunctionType] = {}
        self.slots: dict[str, tuple[Any, str]] = {}
        self.tensors: dict[str, ref[Tensor]] = {}
        """Tensors that are neither parameters nor buffers."""
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self.objects: list[Any] = []
        """Modules and objects, whose classes may be exchanged."""
        self.attributes: list[tuple[Any, dict[str, Any]]] = []
        """Those of them that have a dict of attributes, and that dict."""
        self.stores: dict[str, dict[str, Tensor | None]] = {}
        """The dicts of parameters and buffers."""
        self.complete = True
        """Whether all was seen: there was not too much, and nothing that changes unseen, such as a generator."""

        self._seen: dict[int, Any] = {}
        self._left: deque[tuple[str, Any]] = deque([("", model)])
        self._known_names = set(CALLED)
        self._methods: dict[str, list[tuple[str, Any]]] = {}
        """Methods of classes that nobody has named yet."""
        self._count = 0
        for hooks in EVERYWHERE:
            if isinstance(hooks, dict):
                self._left.append(("a hook for all modules", hooks))
        while self._left and self._count < LIMIT:
            self._visit(*self._left.popleft())
        self.complete = self.complete and not self._left
        del self._seen, self._left, self._methods, self._known_names

    def _visit(self, path: str, x: Any) -> None:
        kind = type(x)
        if kind in ATOMS or id(x) in self._seen:
            return
        self._seen[id(x)] = x
        self._count += 1
        for of, visit in VISITORS:
            if issubclass(kind, of):
                visit(self, path, x)
                return
        self._object(path, x)

    # -- values -------------------------------------------------------------------------------------------------------

    def _mapping(self, path: str, x: dict[Any, Any], dotted: bool = False) -> None:
        if len(x) > BIG:
            self.sizes[_free(self.sizes, path)] = x
            return
        self.mappings[_free(self.mappings, path)] = x
        self._count += len(x)
        for key, value in list(dict.items(x)):
            if type(value) not in ATOMS:
                self._left.append((f"{path}.{key}" if dotted else f"{path}[{key!r}]", value))

    def _dict(self, path: str, x: dict[Any, Any]) -> None:
        self._mapping(path, x)
        self._attributes(path, x)

    def _sequence(self, path: str, x: Any) -> None:
        if not isinstance(x, (tuple, frozenset)):
            if len(x) > BIG:
                self.sizes[_free(self.sizes, path)] = x
                return
            self.sequences[_free(self.sequences, path)] = x
            self._count += len(x)
        self._left.extend((f"{path}[{i}]", value) for i, value in enumerate(list(x)) if type(value) not in ATOMS)
        self._attributes(path, x)

    def _module(self, path: str, x: nn.Module) -> None:
        if isinstance(x, torch.jit.ScriptModule):  # which keeps its values outside of Python
            self.complete = False
            return
        attributes, dot = vars(x), f"{path}." if path else ""
        own = tuple(key for key in attributes if key not in STANDARD)
        self.chosen[_free(self.chosen, path)] = attributes, own
        self._object_of(x, attributes)
        for name in ("_parameters", "_buffers"):
            if isinstance(store := attributes.get(name), dict):
                self.stores[dot + name] = store
                self._seen.update((id(t), t) for t in (store, *store.values()))
        children = attributes.get("_modules", {})
        self.mappings[f"{dot}_modules"] = children
        self._left += [(dot + name, child) for name, child in children.items()]
        self._left += [(dot + key, attributes[key]) for key in own if type(attributes[key]) not in ATOMS]
        self._count += len(own) + len(children)
        for key in HOOKS & attributes.keys():
            self.hooks[dot + key] = attributes[key]
            if attributes[key]:
                self._left.append((dot + key, attributes[key]))
        self._class(type(x))

    def _object_of(self, x: Any, attributes: dict[str, Any] | None) -> None:
        self.objects.append(x)
        if attributes is not None:
            self.attributes.append((x, attributes))

    def _object(self, path: str, x: Any) -> None:
        kind = type(x)
        if hasattr(kind, "__next__"):
            self.complete = False
        package = (kind.__module__ or "").partition(".")[0]
        if package not in FOREIGN or kind.__name__ in CONTAINERS:
            self._object_of(x, self._attributes(path, x))
            for name in copyreg._slotnames(kind):  # type: ignore[attr-defined]
                if hasattr(x, name):
                    self.slots[f"{path}.{name}"] = (x, name)
                    self._left.append((f"{path}.{name}", getattr(x, name)))
        if package not in FOREIGN:
            self._class(kind)
        if wrapped := getattr(x, "__wrapped__", None) if kind is _Cached else None:
            self._left.append((path, wrapped))

    def _attributes(self, path: str, x: Any) -> dict[str, Any] | None:
        try:
            attributes = object.__getattribute__(x, "__dict__")
        except AttributeError:
            return None
        if not isinstance(attributes, dict):
            return None
        if attributes or not isinstance(x, (FunctionType, dict, list)):
            self._mapping(path, attributes, dotted=True)
        return attributes

    def _tensor(self, path: str, x: Tensor) -> None:
        self.tensors[_free(self.tensors, path)] = ref(x)  # what a model keeps of a call is kept no longer

    def _array(self, path: str, x: np.ndarray[Any, Any]) -> None:
        self.arrays[_free(self.arrays, path)] = x

    # -- code ---------------------------------------------------------------------------------------------------------

    def _class(self, kind: type) -> None:
        for one in kind.__mro__:
            if id(one) in self._seen or one in (object, nn.Module):
                continue
            self._seen[id(one)] = one
            package = one.__module__.partition(".")[0]
            path = _free(self.chosen, f"class {one.__module__}.{one.__qualname__}")
            if package not in FOREIGN or (package == "torch" and issubclass(one, nn.Module)):
                names = tuple(n for n in vars(one) if n in CALLED or not n.startswith("__"))
                self.classes[path], self.chosen[path] = one, (vars(one), names)
                self._count += len(names)
            if package in FOREIGN:
                continue
            for name, value in list(vars(one).items()):
                function = _function_of(value)
                if isinstance(function, FunctionType) and name not in self._known_names:
                    self._methods.setdefault(name, []).append((f"{path}.{name}", function))
                elif name in self._known_names or not (isinstance(function, type) or name.startswith("__")):
                    self._left.append((f"{path}.{name}", function))

    def _method(self, path: str, x: MethodType) -> None:
        self._left += [(path, x.__func__), (f"{path}.__self__", x.__self__)]

    def _partial(self, path: str, x: partial[Any]) -> None:
        self._left += [(path, x.func), (path, x.args)]
        self._mapping(path, x.keywords)

    def _function(self, path: str, x: FunctionType) -> None:
        self.functions[_free(self.functions, path)] = x
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
            self.cells[_free(self.cells, f"{path}: {name}")] = cell
            with suppress(ValueError):  # it is not filled yet
                self._left.append((f"{path}: {name}", cell.cell_contents))
        self._left += [(path, x.__defaults__), (path, x.__kwdefaults__)]
        self._attributes(path, x)
        if x.__globals__.get("__name__", "").partition(".")[0] not in FOREIGN:
            names = set(_names(x.__code__))
            self._name(names)
            self._variables(x.__globals__, names)

    def _name(self, names: set[str]) -> None:
        """Methods that have these names run, for all one can know."""
        for name in names - self._known_names:
            self._known_names.add(name)
            self._left.extend(self._methods.pop(name, ()))

    def _variables(self, variables: dict[str, Any], names: set[str]) -> None:
        """What these names stand for in a Python module, and in the modules that it has imported."""
        found = tuple(sorted(names & variables.keys()))
        module = variables.get("__name__", "")
        path = f"module {module}"
        key = f"{path} ({', '.join(found)})"
        if not found or key in self.chosen:
            return
        self.chosen[key] = variables, found
        self._count += len(found)
        for name in found:
            value = variables[name]
            if isinstance(value, ModuleType):
                self._variables(vars(value), names)
            elif module.partition(".")[0] not in FOREIGN:
                if isinstance(value, type):
                    if (value.__module__ or "").partition(".")[0] not in FOREIGN:
                        self._class(value)
                else:
                    self._left.append((f"{path}.{name}", value))


def _free(known: dict[str, Any], path: str) -> str:
    """A name that nothing has yet."""
    while path in known:
        path += "'"
    return path


def _function_of(value: Any) -> Any:
    """The function behind an entry of a class."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, cached_property) else value


def _names(code: CodeType) -> Iterator[str]:
    """The names in a function and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


HOOKS = {
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
}
STANDARD = vars(nn.Module()).keys() - {"training"}
"""Attributes of every module that are looked at in another way, or that a forward pass does not use."""
ATOMS = {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, torch.layout, slice}
"""Values that hold no others."""
VISITORS: tuple[tuple[Any, Callable[..., None]], ...] = (
    (nn.Module, Reach._module),
    (Tensor, Reach._tensor),
    (dict, Reach._dict),
    ((list, tuple, deque, set, frozenset), Reach._sequence),
    (FunctionType, Reach._function),
    (MethodType, Reach._method),
    (partial, Reach._partial),
    (np.ndarray, Reach._array),
    ((type, ModuleType), lambda self, path, x: None),
)
