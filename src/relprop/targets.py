"""What to explain: one scalar per sample of the model's output.

A target is None (the predicted class), a class index, one index per sample, an index tuple, or any function of the
model's output. The helpers here make such functions; all of them work on any output, also nested ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .errors import RelpropError, TargetError, reason_of
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
    return _of_kind(seed, kind)


def _of_kind(seed: Seed, kind: str) -> Seed:
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
        raise TargetError(
            f"the model's output holds no floating-point tensor (it holds {', '.join(kinds) or 'nothing'})."
        )
    if len(floats) == 1:
        return floats[0]
    numbered = unflatten(list(range(len(leaves))))
    for name in ("logits", "out"):
        found = numbered.get(name) if hasattr(numbered, "get") else getattr(numbered, name, None)
        if isinstance(found, int) and found in floats:
            return found
    names = [f"{_path(numbered, i)} {_shown(leaves[i].shape)}" for i in floats]
    raise TargetError(
        f"the model returns several tensors ({'; '.join(names)}): say which one with a function, such as "
        "target=lambda output: output[0][:, 3], that gives one scalar per sample."
    )


def _shown(shape: Sequence[Any]) -> str:
    """A shape, with B for the number of samples if it is open."""
    return "(" + ", ".join(str(n) if isinstance(n, int) else "B" for n in shape) + ")"


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
    output: Tensor = leaves[position]
    if output.ndim == 0:
        raise TargetError("the output is a single number, with no dimension for samples; expected [B, ...].")
    index = _index(target, output)
    value, coefficient = pick(_accumulate(output), index)
    shown = index[0] if len(index) == 1 else (target if target is not None else torch.zeros(len(value)).long())
    return Seed({position: coefficient}, value, shown)


def seed_at(index: Tensor, leaves: list[Any], unflatten: Callable[[list[Any]], Any], kind: str = "output") -> Seed:
    """The seed of an index that is known when a program runs, [B] for an output [B, C], else [B, dimensions].

    A negative class of an output [B, C] is the predicted one. Nothing is checked: a program cannot look at values.
    """
    position = main_output(leaves, unflatten)
    output = _accumulate(leaves[position])
    if index.ndim == 1:
        index = torch.where(index < 0, output.argmax(1), index)[:, None]
    value, coefficient = pick(output, index.unbind(1))
    return _of_kind(Seed({position: coefficient}, value, index), kind)


def index_for(target: Target, leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> Tensor | None:
    """A target as the index that :func:`seed_at` takes; None if it is a function, or there is nothing to choose.

    Raises:
        TargetError: if the target does not fit the output, or there are several.
    """
    if callable(target):
        return None
    output = leaves[main_output(leaves, unflatten)]
    parts = _index(target, output)
    if not parts:
        return None
    return parts[0] if output.ndim == 2 else torch.stack(parts, 1)


def pick(output: Tensor, index: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One number of each sample, [B], and the coefficient that picks it, in the shape of the output.

    Args:
        output: [B, ...].
        index: one tensor [B] for each dimension behind the first.
    """
    flat, place = output.reshape(output.shape[0], -1), torch.zeros(output.shape[:1]).long().to(output.device)
    for i, size in zip(index, output.shape[1:], strict=False):
        place = place * size + i
    return flat.gather(1, place[:, None])[:, 0], torch.zeros_like(flat).scatter(1, place[:, None], 1).view_as(output)


def _index(target: Target, output: Tensor) -> tuple[Tensor, ...]:
    """The index of every sample, one tensor [B] per dimension behind the first."""
    shape, samples = tuple(output.shape), output.shape[0]
    if isinstance(target, np.ndarray):
        target = torch.from_numpy(target)
    if isinstance(target, np.integer):
        target = int(target)
    if target is None:
        if output.ndim == 1:
            return ()
        if output.ndim == 2:
            return (output.argmax(1),)
        raise TargetError(
            f"the output has shape {shape}: say what to explain. Choose an index tuple of {output.ndim - 1} numbers, "
            f"such as target={tuple([0] * (output.ndim - 1))}, or a function from the output to one scalar per sample, "
            "such as target=lambda output: output.flatten(1).sum(1)."
        )
    if isinstance(target, Tensor):
        return _tensor_index(target, output)
    if isinstance(target, bool) or not isinstance(target, (int, tuple)):
        raise TargetError(
            f"target must be None, an int, a LongTensor [B], a tuple of ints, a function, or several([...]); "
            f"got {target!r}."
        )
    entries = target if isinstance(target, tuple) else (target,)
    if output.ndim == 1 and entries == (0,):
        return ()
    if len(entries) != output.ndim - 1:
        raise TargetError(
            f"target {target!r} has {len(entries)} index(es) for an output of shape {shape}; it needs "
            f"{output.ndim - 1} (all but the first dimension, that of the samples), or a function from the output to "
            "one scalar per sample."
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
        # an output with a graph stays in it, so that relevance can be differentiated
        connected = any(leaves[i].requires_grad for i in floats)
        variables = {i: _variable(_accumulate(leaves[i])) for i in floats}
        value = _called(target, unflatten([variables.get(i, x) for i, x in enumerate(leaves)]))
        if not isinstance(value, Tensor):
            raise TargetError(
                f"a target function must return a tensor [B], one scalar per sample; got {type(value).__name__}."
            )
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
        gradients = torch.autograd.grad(
            value.sum(), list(variables.values()), create_graph=connected, allow_unused=True
        )
    coefficients = {i: g for i, g in zip(floats, gradients, strict=True) if g is not None}
    return Seed(coefficients, value if connected else value.detach(), target)


def _called(target: Target, output: Any) -> Any:
    """What a target function makes of the output."""
    try:
        return target(output)
    except RelpropError:
        raise  # one of the helpers here says what is wrong
    except Exception as error:
        parts = [
            f"output{pytree.keystr(path)}: {f'{_shown(x.shape)} {x.dtype}' if isinstance(x, Tensor) else repr(x)}"
            for path, x in pytree.tree_flatten_with_path(output)[0]
        ]
        name, kind = getattr(target, "__name__", repr(target)), type(output).__name__
        raise TargetError(
            f"the target function {name!r} raised {reason_of(error)}. It was given the model's output, a {kind} "
            f"({'; '.join(parts)})."
        ) from error


def _variable(x: Tensor) -> Tensor:
    return x.clone() if x.requires_grad else x.detach().clone().requires_grad_()


def _accumulate(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _along_batch(v: Tensor, like: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (like.ndim - 1)) if like.shape[:1] == v.shape else v.mean()


# ---------------------------------------------------------------------------------------------------------------------
# Helpers: functions from the output to one scalar per sample
# ---------------------------------------------------------------------------------------------------------------------

Scalar = Callable[[Any], Tensor]


def class_index(index: int | Tensor) -> Scalar:
    """The score of a class, in an output [B, C]: one class for all samples, or one for each."""
    return lambda output: _pick(scores(output), index)


def token(position: int | Tensor, id: int | Tensor) -> Scalar:
    """The score of a token at a position, in an output [B, T, vocabulary]."""
    return lambda output: _pick(scores(output), position, id)


def span(start: int, ids: Sequence[int] | Tensor) -> Scalar:
    """The scores of a generated answer, summed over its tokens.

    Args:
        start: position of the answer's first token in the input. A causal model predicts it one position earlier.
        ids: the answer's tokens, [T] or one row for each sample, [B, T].

    Raises:
        TargetError: if the answer starts at the first position, where nothing predicts it.
    """
    if start == 0:
        raise TargetError("span: nothing in front of position 0 predicts its token; start is counted in the input")

    def target(output: Any) -> Tensor:
        z = scores(output)
        rows = torch.as_tensor(ids, device=z.device).expand(len(z), -1)
        first = start % z.shape[1] - 1
        return z[:, first : first + rows.shape[1]].gather(2, rows[..., None])[..., 0].sum(1)

    return target


def contrast(target: int | Tensor | Scalar, other: int | Tensor | Scalar) -> Scalar:
    """Why this and not that: the difference of two targets, which are classes or helpers like these."""
    one, two = (t if callable(t) else class_index(t) for t in (target, other))
    return lambda output: one(output) - two(output)


def against_rest(index: int | Tensor) -> Scalar:
    """Why this class and none of the others: relevance starts as y_t at the class, and as -y_t, shared, at the rest.

    Relevance of the class minus that of its dual concept, CLRP1 of Gu et al. (2018): where it is positive, as they show
    it, ``relevance.clamp(min=0)``. It starts with a sum of zero, so that ``seed="unit"`` has nothing to scale.

    Args:
        index: a class of an output [B, C], or one for each sample.
    """

    def seed(z: Tensor) -> Tensor:
        chosen = _one_hot(z, index)
        value = (z * chosen).sum(1, keepdim=True)
        return value * (chosen - (1 - chosen) / (z.shape[1] - 1))

    return _starting_with(seed)


def softmax_gradient(index: int | Tensor) -> Scalar:
    """Why this class gets its probability p_t: relevance starts as ∂p_t/∂z (SGLRP, Iwana et al. 2019).

    That is p_t (1 - p_t) at the class and -p_t p_n at the others, which so count by how close they come. It starts
    with a sum of zero, so that ``seed="unit"`` has nothing to scale.

    Args:
        index: a class of the logits [B, C], or one for each sample.
    """

    def seed(z: Tensor) -> Tensor:
        p, chosen = z.softmax(1), _one_hot(z, index)
        return (p * chosen).sum(1, keepdim=True) * (chosen - p)

    return _starting_with(seed)


def _starting_with(seed: Callable[[Tensor], Tensor]) -> Scalar:
    """A target whose relevance is ``seed`` at the outputs [B, C]; at an output of exactly zero there is none."""

    def target(output: Any) -> Tensor:
        z = scores(output)
        if z.ndim != 2:
            raise TargetError(f"this target is for an output [B, C], not of shape {tuple(z.shape)}.")
        return (z * divide(seed(z.detach()), z.detach())).sum(1)

    return target


def _one_hot(z: Tensor, index: int | Tensor) -> Tensor:
    chosen = torch.zeros_like(z)
    chosen[torch.arange(len(z), device=z.device), index.to(z.device) if isinstance(index, Tensor) else index] = 1
    return chosen


def mask(region: Tensor, index: int) -> Scalar:
    """The scores of a class within a region of a segmentation [B, C, ...], summed.

    Args:
        region: what counts, a boolean or a weight per pixel, [H, W] or [B, H, W].
        index: the class.
    """
    return lambda output: (scores(output)[:, index] * region.to(scores(output).device)).flatten(1).sum(1)


def class_region(index: int) -> Scalar:
    """The scores of a class in a segmentation [B, C, ...], summed over the pixels that it wins."""

    def target(output: Any) -> Tensor:
        z = scores(output)
        return (z[:, index] * (z.argmax(1) == index)).flatten(1).sum(1)

    return target


def box(index: int | None, number: int | None = None) -> Scalar:
    """The score of a detected box.

    Args:
        index: the class, for scores [B, boxes, C]; None for detections that are a list of dictionaries (one per sample,
            with "scores"), as torchvision makes them.
        number: which box; None is the one that scores highest.
    """

    def target(output: Any) -> Tensor:
        found = [d["scores"] for d in output] if index is None else list(scores(output)[..., index])
        return torch.stack([z.max() if number is None else z[number] for z in found])

    return target


def regression(reference: float | Tensor, index: int = 0) -> Scalar:
    """How far a prediction is from a reference value, y - reference (Letzgus et al. 2022).

    The reference acts as a bias of the output: the ledger books its share, and the inputs explain y itself.

    Args:
        reference: the value compared with, such as the mean of the data, or one for each sample.
        index: which output, of several [B, n].
    """
    return lambda output: scores(output).flatten(1)[:, index] - torch.as_tensor(reference).to(scores(output))


def scores(output: Any) -> Tensor:
    """The tensor that index targets refer to: the only one, or the one called ``logits``."""
    leaves, spec = pytree.tree_flatten(output)
    found: Tensor = leaves[main_output(leaves, lambda x: pytree.tree_unflatten(x, spec))]
    return found


def _pick(z: Tensor, *index: int | Tensor) -> Tensor:
    if z.ndim != len(index) + 1:
        raise TargetError(f"the output has shape {tuple(z.shape)}; this target is for {len(index) + 1} dimensions.")
    columns = (i.to(z.device) if isinstance(i, Tensor) else i for i in index)
    return z[(torch.arange(len(z), device=z.device), *columns)]
