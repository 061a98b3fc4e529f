"""What to explain: one scalar per sample of the model's output.

A target is None (the predicted class), a class index, one index per sample, an index tuple, or any function of the
model's output. The helpers here make such functions; all of them work on any output, also nested ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .errors import TargetError
from .message import divide

Target = Any


@dataclass(frozen=True)
class Several:
    """Several targets, explained with one forward pass; results get a leading dimension, one entry per target."""

    targets: tuple[Target, ...]


@dataclass
class Seed:
    """Where relevance starts: a coefficient for each output tensor, and the value explained for each sample."""

    coefficients: dict[int, Tensor]
    """Position among the leaves of the output -> coefficient in the shape of that leaf."""
    value: Tensor
    """The explained value, [B]."""
    target: Any
    """The class that was explained, [B], or the target as it was given."""


def several(targets: Sequence[Target]) -> Several:
    """Explain several targets with a single forward pass: ``target=several([281, 282])``.

    Raises:
        TargetError: if there is none.
    """
    if len(targets) == 0:
        raise TargetError("several() needs at least one target")
    return Several(tuple(targets))


def seed_of(target: Target, leaves: list[Any], unflatten: Callable[[list[Any]], Any], kind: str = "output") -> Seed:
    """The seed of a target.

    Args:
        target: anything a user may give, but :class:`Several`.
        leaves: leaves of the model's output.
        unflatten: makes the output of its leaves.
        kind: "output" starts with the explained value as relevance, "unit" with one.

    Raises:
        TargetError: if the target does not fit the output.
    """
    seed = _from_function(target, leaves, unflatten) if callable(target) else _from_index(target, leaves, unflatten)
    if kind == "unit":
        scale = divide(torch.ones_like(seed.value), seed.value)
        seed.coefficients = {i: c * _along_batch(scale, c) for i, c in seed.coefficients.items()}
        seed.value = torch.ones_like(seed.value)
    return seed


def main_output(leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> int:
    """Position of the tensor that index targets refer to: the only one, or the one called ``logits``.

    Raises:
        TargetError: if there is none, or no telling which.
    """
    floats = [i for i, x in enumerate(leaves) if _is_float(x)]
    if not floats:
        kinds = [str(x.dtype) if isinstance(x, Tensor) else type(x).__name__ for x in leaves]
        raise TargetError(f"the model's output holds no floating-point tensor (it holds {', '.join(kinds) or 'nothing'}).")
    if len(floats) == 1:
        return floats[0]
    numbered = unflatten(list(range(len(leaves))))
    for name in ("logits", "out"):
        found = numbered.get(name) if hasattr(numbered, "get") else getattr(numbered, name, None)
        if isinstance(found, int) and found in floats:
            return found
    names = [f"{_path(numbered, i)} {tuple(leaves[i].shape)}" for i in floats]
    raise TargetError(
        f"the model returns several tensors ({'; '.join(names)}): say which one with a function, such as "
        "target=lambda output: output[0][:, 3], that gives one scalar per sample."
    )


def _path(numbered: Any, i: int) -> str:
    for path, leaf in pytree.tree_flatten_with_path(numbered)[0]:
        if isinstance(leaf, int) and leaf == i:
            return f"output{pytree.keystr(path)}"
    return f"output leaf {i}"


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.is_floating_point


# ---------------------------------------------------------------------------------------------------------------------
# Index targets
# ---------------------------------------------------------------------------------------------------------------------


def _from_index(target: Target, leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> Seed:
    position = main_output(leaves, unflatten)
    output: Tensor = leaves[position].detach()
    if output.ndim == 0:
        raise TargetError("the output is a single number, with no dimension for samples; expected [B, ...].")
    index = _index(target, output)
    batch = torch.arange(output.shape[0], device=output.device)
    full = (batch, *index)
    value = _accumulate(output)[full]
    coefficient = torch.zeros_like(_accumulate(output))
    coefficient[full] = 1
    shown = index[0] if len(index) == 1 else (target if target is not None else batch * 0)
    return Seed({position: coefficient}, value, shown)


def _index(target: Target, output: Tensor) -> tuple[Tensor, ...]:
    """The index of every sample, one tensor [B] per dimension behind the first."""
    shape, samples = tuple(output.shape), output.shape[0]
    if target is None:
        if output.ndim == 1:
            return ()
        if output.ndim == 2:
            return (output.argmax(1),)
        raise TargetError(
            f"the output has shape {shape}: say what to explain. Choose an index tuple of {output.ndim - 1} numbers, such as "
            f"target={tuple([0] * (output.ndim - 1))}, or a function from the output to one scalar per sample, such as "
            "target=lambda output: output.flatten(1).sum(1)."
        )
    if isinstance(target, Tensor):
        return _tensor_index(target, output)
    if isinstance(target, bool) or not isinstance(target, (int, tuple)):
        raise TargetError(
            f"target must be None, an int, a LongTensor [B], a tuple of ints, a function, or several([...]); got {target!r}."
        )
    entries = target if isinstance(target, tuple) else (target,)
    if output.ndim == 1 and entries == (0,):
        return ()
    if len(entries) != output.ndim - 1:
        raise TargetError(
            f"target {target!r} has {len(entries)} index(es) for an output of shape {shape}; it needs {output.ndim - 1} "
            "(all but the first dimension, that of the samples), or a function from the output to one scalar per sample."
        )
    index = []
    for d, entry in enumerate(entries, start=1):
        if isinstance(entry, Tensor):
            entry = _checked(entry, samples)
        elif isinstance(entry, int) and not isinstance(entry, bool):
            entry = torch.full((samples,), entry, device=output.device)
        else:
            raise TargetError(f"target {target!r}: an index must be an int or a LongTensor [B], got {entry!r}.")
        index.append(_in_range(entry.to(output.device), shape[d], target, d))
    return tuple(index)


def _tensor_index(target: Tensor, output: Tensor) -> tuple[Tensor, ...]:
    target = _checked(target, output.shape[0])
    if output.ndim != 2:
        raise TargetError(f"a target of one index per sample needs an output [B, C], got {tuple(output.shape)}.")
    return (_in_range(target.to(output.device), output.shape[1], target, 1),)


def _checked(target: Tensor, samples: int) -> Tensor:
    if target.dtype.is_floating_point or target.dtype in (torch.bool,) or target.dtype.is_complex:
        raise TargetError(f"target tensors hold class indices (dtype torch.long), got {target.dtype}.")
    if target.ndim == 0:
        target = target.expand(samples)
    if target.shape != (samples,):
        raise TargetError(f"a target tensor has one index per sample, [{samples}], got shape {tuple(target.shape)}.")
    return target.long()


def _in_range(index: Tensor, size: int, target: Any, dim: int) -> Tensor:
    if bool(((index >= size) | (index < -size)).any()):
        raise TargetError(f"target {target!r} is out of range: dimension {dim} of the output has size {size}.")
    return index % size


# ---------------------------------------------------------------------------------------------------------------------
# Functions of the output
# ---------------------------------------------------------------------------------------------------------------------


def _from_function(target: Target, leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> Seed:
    floats = [i for i, x in enumerate(leaves) if _is_float(x)]
    if not floats:
        raise TargetError("the model's output holds no floating-point tensor, so that nothing of it can be explained.")
    with torch.enable_grad():
        variables = {i: _accumulate(leaves[i].detach()).clone().requires_grad_() for i in floats}
        value = target(unflatten([variables.get(i, x) for i, x in enumerate(leaves)]))
        if not isinstance(value, Tensor):
            raise TargetError(f"a target function must return a tensor [B], one scalar per sample; got {type(value).__name__}.")
        samples = next((x.shape[0] for x in leaves if isinstance(x, Tensor) and x.ndim), 1)
        if value.ndim == 0 and samples == 1:
            value = value.reshape(1)
        if value.ndim != 1:
            raise TargetError(
                f"a target function must return one scalar per sample, a tensor [B]; got shape {tuple(value.shape)}. "
                "Sum or index the other dimensions, but not the samples."
            )
        if not value.requires_grad:
            raise TargetError("the target function does not depend on the output through a differentiable function.")
        gradients = torch.autograd.grad(value.sum(), list(variables.values()), allow_unused=True)
    coefficients = {i: g for i, g in zip(floats, gradients, strict=True) if g is not None}
    return Seed(coefficients, value.detach(), target)


def _accumulate(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _along_batch(v: Tensor, like: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (like.ndim - 1)) if like.shape[:1] == v.shape else v.mean()
