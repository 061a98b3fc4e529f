"""What to do about inputs that a model cannot run on: what is recommended has been tried."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
SPELT = {torch.float32: "float()", torch.float64: "double()", torch.float16: "half()", torch.bfloat16: "bfloat16()"}


def described(x: Any) -> str:
    """What came, in a few words."""
    if isinstance(x, Tensor):
        return f"shape {tuple(x.shape)}, {x.dtype}"
    if isinstance(x, np.ndarray):
        return f"a NumPy array of shape {x.shape} and {x.dtype}"
    if is_image(x):
        return f"an image of PIL, {x.mode}, {x.size[0]} x {x.size[1]}"
    text = repr(x)
    return text if len(text) <= 80 else f"{text[:60]}... ({type(x).__name__})"


def is_image(x: Any) -> bool:
    """Whether it is an image of PIL, which need not be installed."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(x, pil.Image)


def as_tensor(x: Any) -> str:
    """How something that is no tensor becomes one, as advice; empty if that is not known."""
    if isinstance(x, np.ndarray):
        return "Give a tensor in the model's dtype: torch.from_numpy(x).float()."
    if is_image(x):
        return (
            "Give what the model was trained on, with a dimension for the samples: transform(image)[None], such as "
            "torchvision.transforms.functional.to_tensor(image)[None], normalised as in training; of several images "
            "torch.stack([transform(image) for image in images])."
        )
    if isinstance(x, (bool, int, float)):
        return "Give torch.tensor(...) of the numbers."
    if isinstance(x, str):
        return "Give what the tokenizer of the model makes of a text: tokenizer(text, return_tensors='pt')."
    return ""


@dataclass(frozen=True)
class _Change:
    """Of the inputs, and how a user makes it."""

    words: str
    leaves: list[Any]
    spec: pytree.TreeSpec


def remedy(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], runs: Callable[[Arguments], bool]) -> str:
    """What would make a model run on its inputs, as a sentence; empty if nothing that was tried does.

    Args:
        model: that cannot run on them.
        args, kwargs: the inputs.
        runs: whether it can run on others.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    came = _Change("", leaves, spec)
    every = [*_casts(came, _own_dtype(model)), *_shapes(came)]
    every += [second for first in every for second in (*_casts(first, _own_dtype(model)), *_shapes(first))]
    if _takes(model, args, kwargs):  # so many arguments are meant
        every = [change for change in every if change.spec == spec]
    for change in every:
        if runs(pytree.tree_unflatten(change.leaves, change.spec)):
            shapes = ", ".join(described(x) for x in change.leaves if isinstance(x, Tensor))
            return f"It does run on {change.words.format('x')} ({shapes}), if that is what you mean."
    return ""


def _takes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a model has arguments of these numbers and names."""
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):  # or it does not say
        return False
    return True


def _own_dtype(model: nn.Module) -> torch.dtype | None:
    """The dtype of all parameters that are floating-point numbers; None if there are several, or none."""
    found = {p.dtype for p in model.parameters() if p.dtype.is_floating_point}
    return found.pop() if len(found) == 1 else None


def _casts(came: _Change, dtype: torch.dtype | None) -> Iterator[_Change]:
    def cast(which: Callable[[Tensor], bool], to: torch.dtype) -> list[Any]:
        return [x.to(to) if isinstance(x, Tensor) and which(x) else x for x in came.leaves]

    if dtype is not None:
        name = SPELT.get(dtype, f"to({dtype})")
        if any(x.dtype.is_floating_point and x.dtype != dtype for x in _tensors(came)):
            yield _then(came, f"{{}}.{name}", cast(lambda x: x.dtype.is_floating_point, dtype))
        if any(_is_integer(x) for x in _tensors(came)):
            yield _then(came, f"{{}}.{name}", cast(_is_integer, dtype))
    if any(x.dtype.is_floating_point and bool((x == x.round()).all()) for x in _tensors(came)):
        yield _then(came, "{}.long()", cast(lambda x: x.dtype.is_floating_point, torch.long))


def _shapes(came: _Change) -> Iterator[_Change]:
    tensors = _tensors(came)
    if not tensors or len(tensors) != len(came.leaves):
        return
    one = pytree.tree_flatten(((tensors[0],), {}))[1]
    yield _then(came, "a batch of one sample, {}[None]", [x[None] for x in tensors])
    if len(tensors) == 1 and (x := tensors[0]).ndim in (3, 4) and x.shape[-1] in (1, 3, 4):
        order = (0, 3, 1, 2) if x.ndim == 4 else (2, 0, 1)
        yield _then(came, f"channels first, {{}}.permute{order}", [x.permute(order)])
    if len(tensors) > 1 and len({(x.shape, x.dtype, x.device) for x in tensors}) == 1:
        if tensors[0].ndim and len(tensors[0]) == 1:
            yield _Change("one batch, torch.cat(list(inputs))", [torch.cat(tensors)], one)
        yield _Change("one batch, torch.stack(list(inputs))", [torch.stack(tensors)], one)
    if len(tensors) > 1:
        yield _Change("the first of them alone, inputs[0]", tensors[:1], one)


def _then(came: _Change, words: str, leaves: Sequence[Any]) -> _Change:
    """One more change: the words of the first hold a place for the input, those of the second follow on it."""
    if came.words:
        first = came.words.rpartition(", ")[2].format("x")
        words = words.format(first.replace("list(inputs)", "inputs"))
    return _Change(words, list(leaves), came.spec)


def _tensors(came: _Change) -> list[Tensor]:
    return [x for x in came.leaves if isinstance(x, Tensor)]


def _is_integer(x: Tensor) -> bool:
    return not x.dtype.is_floating_point and not x.dtype.is_complex and x.dtype != torch.bool
