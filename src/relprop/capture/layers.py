"""Layers that a model calls but does not register as its submodules, under their own names.

A Keras model made of a graph or a list of layers keeps them in a list of its own, where torch does not see them, so
that their operations would carry no name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def layers_registered(model: nn.Module) -> Iterator[None]:
    """Meanwhile the layers of every Keras model in a model are its submodules, under their names."""
    added: list[tuple[dict[str, Any], str]] = []
    try:
        _register(model, added, set())
        yield
    finally:
        for modules, name in reversed(added):
            del modules[name]


def _register(module: nn.Module, added: list[tuple[dict[str, Any], str]], seen: set[int]) -> None:
    if id(module) in seen:
        return
    seen.add(id(module))
    modules = module._modules
    if _is_keras(module):
        registered = {id(m) for m in modules.values()}
        for layer in getattr(module, "layers", ()):
            name = layer.name.replace(".", "_")  # a dot would be taken for a path
            if id(layer) not in registered and not hasattr(module, name):
                modules[name] = layer
                added.append((modules, name))
    for name, child in list(modules.items()):
        # in a Keras model these are Sequential's own graph of the same layers, and the parameters
        if child is not None and not (_is_keras(module) and name.startswith("_")):
            _register(child, added, seen)


def _is_keras(module: nn.Module) -> bool:
    keras = sys.modules.get("keras")  # a model of it cannot be there unless it was imported
    return keras is not None and hasattr(keras, "Model") and isinstance(module, keras.Model)
