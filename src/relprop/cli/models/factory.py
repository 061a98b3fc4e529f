"""A model that code makes: ``package.module:factory``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from ..failures import Failure, Usage, meant
from .model import Model


def factory(word: str) -> Model:
    """Call a function that returns a model, or a model and its preprocessing.

    Modules are looked for in the current folder as well, as ``python -m`` does. The preprocessing is a tokenizer, or a
    function from a PIL picture, an array or a text to what the model reads.

    Raises:
        Usage: if there is no such module, or no such name in it.
        Failure: if it fails, or returns something else.
    """
    module_name, _, name = word.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise Usage(f"{word!r} is no package.module:factory, and no file")
    made = getattr(_module(module_name), name, None)
    if made is None:
        known = [one for one, value in vars(sys.modules[module_name]).items() if callable(value) and one[0] != "_"]
        raise Usage(f"module {module_name!r} has no {name!r}; {meant(name, known)}")
    return _model(word, made)


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise Usage(f"there is no module {name!r} here or among the installed packages") from error
        raise Failure(f"module {name!r} needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise Failure(f"importing {name!r} failed: {type(error).__name__}: {error}") from error


def _model(word: str, made: Any) -> Model:
    from torch import nn

    if not isinstance(made, nn.Module):
        if not callable(made):
            raise Failure(f"{word} is a {type(made).__name__}, neither a model nor a function that returns one")
        try:
            made = made()
        except Exception as error:
            raise Failure(f"{word}() failed: {type(error).__name__}: {error}") from error
    module, prepare = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise Failure(f"{word}() returned {type(made).__name__}; it must be an nn.Module, or one and its preprocessing")
    if hasattr(prepare, "convert_ids_to_tokens"):
        return Model(module, tokenizer=prepare)
    if prepare is not None and not callable(prepare):
        raise Failure(f"{word}(): the preprocessing is a {type(prepare).__name__}, which cannot be called")
    return Model(module, prepare=prepare)
