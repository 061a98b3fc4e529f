"""What to explain: one scalar per sample of the model's output.

A target is None (the predicted class), a class index, one index per sample, an index tuple, or any function of the
model's output. The helpers here make such functions, which know their names, compare and can be pickled; all of them
work on any output, also nested ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
import torch.utils._pytree as pytree
from numpy.typing import NDArray
from torch import Tensor

from .errors import TargetError
from .rules.message import divide
from .titled import Titled, name_of, titled

__all__ = [
    "PREDICTED",
    "Several",
    "Target",
    "Targets",
    "Titled",
    "against_rest",
    "box",
    "class_index",
    "class_region",
    "contrast",
    "mask",
    "name_of",
    "regression",
    "scores",
    "several",
    "softmax_gradient",
    "span",
    "titled",
    "token",
]

One = str | SupportsIndex | Tensor | Sequence[int] | NDArray[Any]
"""A class: its number, its name, or one for every sample, [B]."""

Target = None | One | tuple[One, ...] | Callable[[Any], Tensor]
"""None, an int, a name, a LongTensor [B], a tuple of these, or a function from the output to [B]."""

PREDICTED = torch.iinfo(torch.int64).min
"""In the place of a class: the predicted one. Programs, which take numbers only, are asked for it so."""


@dataclass(frozen=True)
class Several:
    """Several targets, explained with one forward pass; results get a leading dimension, one entry per target."""

    targets: tuple[Target, ...]


Targets = Target | Several | Sequence[Target]
"""What ``target=`` takes: one target, or several of them."""


def several(targets: Sequence[Target]) -> Several:
    """Explain several targets with a single forward pass: ``target=several([281, 282])``.

    Raises:
        TargetError: if there is none.
    """
    if len(targets) == 0:
        raise TargetError("several() needs at least one target")
    return Several(tuple(targets))


def main_output(leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> int:
    """Position of the tensor that index targets refer to: the only one, or the one called ``logits``.

    Raises:
        TargetError: if there is none, or no telling which.
    """
    floats = [i for i, x in enumerate(leaves) if is_float_tensor(x)]
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
    names = [f"{_path(numbered, i)} {shown(leaves[i].shape)}" for i in floats]
    raise TargetError(
        f"the model returns several tensors ({'; '.join(names)}): say which one with a function, such as "
        "target=lambda output: output[0][:, 3], that gives one scalar per sample."
    )


def shown(shape: Sequence[Any]) -> str:
    """A shape, with B for the number of samples if it is open."""
    return "(" + ", ".join(str(n) if isinstance(n, int) else "B" for n in shape) + ")"


def _path(numbered: Any, i: int) -> str:
    for path, leaf in pytree.tree_flatten_with_path(numbered)[0]:
        if isinstance(leaf, int) and leaf == i:
            return f"output{pytree.keystr(path)}"
    return f"output leaf {i}"


def is_float_tensor(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.is_floating_point


# ---------------------------------------------------------------------------------------------------------------------
# Helpers: functions from the output to one scalar per sample
# ---------------------------------------------------------------------------------------------------------------------

Scalar = Callable[[Any], Tensor]


@titled("class {index}")
def class_index(output: Any, index: int | Tensor) -> Tensor:
    """The score of a class, in an output [B, C]: one class for all samples, or one for each."""
    return _pick(scores(output), index)


@titled("token {id} at position {position}")
def token(output: Any, position: int | Tensor, id: int | Tensor) -> Tensor:
    """The score of a token at a position, in an output [B, T, vocabulary]."""
    return _pick(scores(output), position, id)


def span(start: int, ids: Sequence[int] | Tensor) -> Titled:
    """The scores of a generated answer, summed over its tokens.

    Args:
        start: position of the answer's first token in the input. A causal model predicts it one position earlier.
        ids: the answer's tokens, [T] or one row for each sample, [B, T].

    Raises:
        TargetError: if the answer starts at the first position, where nothing predicts it.
    """
    if start == 0:
        raise TargetError("span: nothing in front of position 0 predicts its token; start is counted in the input")
    return _span(start, ids)


@titled("tokens {ids} from {start}")
def _span(output: Any, start: int, ids: Sequence[int] | Tensor) -> Tensor:
    z = scores(output)
    rows = torch.as_tensor(ids, device=z.device).expand(len(z), -1)
    first = start % z.shape[1] - 1
    return z[:, first : first + rows.shape[1]].gather(2, rows[..., None])[..., 0].sum(1)


def contrast(target: int | Tensor | Scalar, other: int | Tensor | Scalar) -> Titled:
    """Why this and not that: the difference of two targets, which are classes or helpers like these."""
    one, two = (t if callable(t) else class_index(t) for t in (target, other))
    return _difference(one, two)


@titled("{one} - {two}")
def _difference(output: Any, one: Scalar, two: Scalar) -> Tensor:
    return one(output) - two(output)


@titled("class {index} against the rest")
def against_rest(output: Any, index: int | Tensor) -> Tensor:
    """Why this class and none of the others: relevance starts as y_t at the class, and as -y_t, shared, at the rest.

    Relevance of the class minus that of its dual concept, CLRP1 of Gu et al. (2018): where it is positive, as they show
    it, ``relevance.clamp(min=0)``. It starts with a sum of zero, so that ``seed="unit"`` has nothing to scale.

    Args:
        index: a class of an output [B, C], or one for each sample.
    """
    z = _classes(output)
    chosen = _one_hot(z, index)
    value = (z * chosen).sum(1, keepdim=True)
    return _starting_with(value * (chosen - (1 - chosen) / (z.shape[1] - 1)), z)


@titled("probability of class {index}")
def softmax_gradient(output: Any, index: int | Tensor) -> Tensor:
    """Why this class gets its probability p_t: relevance starts as ∂p_t/∂z (SGLRP, Iwana et al. 2019).

    That is p_t (1 - p_t) at the class and -p_t p_n at the others, which so count by how close they come. It starts
    with a sum of zero, so that ``seed="unit"`` has nothing to scale.

    Args:
        index: a class of the logits [B, C], or one for each sample.
    """
    z = _classes(output)
    p, chosen = z.softmax(1), _one_hot(z, index)
    return _starting_with((p * chosen).sum(1, keepdim=True) * (chosen - p), z)


def _classes(output: Any) -> Tensor:
    """The scores of all classes, [B, C]."""
    z = scores(output)
    if z.ndim != 2:
        raise TargetError(f"this target is for an output [B, C], not of shape {tuple(z.shape)}.")
    return z


def _starting_with(seed: Tensor, z: Tensor) -> Tensor:
    """A value whose relevance is ``seed`` at the outputs [B, C]; at an output of exactly zero there is none."""
    return (z * divide(seed.detach(), z.detach())).sum(1)


def _one_hot(z: Tensor, index: int | Tensor) -> Tensor:
    chosen = torch.zeros_like(z)
    chosen[torch.arange(len(z), device=z.device), index.to(z.device) if isinstance(index, Tensor) else index] = 1
    return chosen


@titled("class {index} within a region")
def mask(output: Any, region: Tensor, index: int) -> Tensor:
    """The scores of a class within a region of a segmentation [B, C, ...], summed.

    Args:
        region: what counts, a boolean or a weight per pixel, [H, W] or [B, H, W].
        index: the class.
    """
    z = scores(output)
    return (z[:, index] * region.to(z.device)).flatten(1).sum(1)


@titled("class {index} where it wins")
def class_region(output: Any, index: int) -> Tensor:
    """The scores of a class in a segmentation [B, C, ...], summed over the pixels that it wins."""
    z = scores(output)
    return (z[:, index] * (z.argmax(1) == index)).flatten(1).sum(1)


def box(index: int | None, number: int | None = None) -> Titled:
    """The score of a detected box.

    Args:
        index: the class, for scores [B, boxes, C]; None for detections that are a list of dictionaries (one per sample,
            with "scores"), as torchvision makes them.
        number: which box; None is the one that scores highest.
    """
    return _best_box(index) if number is None else _box(index, number)


@titled("box {number}, class {index}")
def _box(output: Any, index: int | None, number: int) -> Tensor:
    return torch.stack([z[number] for z in _boxes(output, index)])


@titled("best box, class {index}")
def _best_box(output: Any, index: int | None) -> Tensor:
    return torch.stack([z.max() for z in _boxes(output, index)])


def _boxes(output: Any, index: int | None) -> list[Tensor]:
    """The scores of the boxes of every sample."""
    return [d["scores"] for d in output] if index is None else list(scores(output)[..., index])


@titled("output {index} - {reference}")
def regression(output: Any, reference: float | Tensor, index: int = 0) -> Tensor:
    """How far a prediction is from a reference value, y - reference (Letzgus et al. 2022).

    The reference acts as a bias of the output: the ledger books its share, and the inputs explain y itself.

    Args:
        reference: the value compared with, such as the mean of the data, or one for each sample.
        index: which output, of several [B, n].
    """
    z = scores(output)
    return z.flatten(1)[:, index] - torch.as_tensor(reference).to(z)


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
