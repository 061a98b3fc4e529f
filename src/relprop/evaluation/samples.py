"""The data of an evaluation: one sample after the other, so that no result depends on the company that it was in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from ..engine.given import Given
from ..errors import InputError
from ..explanation.facts import target_of
from ..targets import Target


@dataclass(frozen=True)
class Sample:
    """One sample, as a batch of one."""

    number: int
    """Of the sample among the data; random numbers are drawn for it alone."""
    given: Given
    place: int
    """Of the input that is explained among the leaves."""
    target: Target
    """None, an int, a tuple of ints, or a function of the output."""

    @property
    def x(self) -> Tensor:
        """The input that is explained, [1, ...]."""
        found: Tensor = self.given.leaves[self.place]
        return found

    @property
    def inputs(self) -> Any:
        """As the model's inputs are given: a tuple, or a dict of keywords."""
        args, kwargs = self.given.call()
        return kwargs or args

    def holding(self, x: Tensor) -> Given:
        """The same inputs with other values [K, ...] of what is explained; what belongs to the sample is repeated."""
        leaves = [_repeated(leaf, len(x)) for leaf in self.given.leaves]
        leaves[self.place] = x
        return self.given.holding(leaves)

    def random(self, seed: int, stream: str) -> torch.Generator:
        """Random numbers of this sample, for one purpose."""
        digest = hashlib.sha256(f"{seed}/{self.number}/{stream}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def digest(self) -> str:
        """What tells this sample from another."""
        found = hashlib.sha256(repr(self.target if not callable(self.target) else str(self.target)).encode())
        for leaf in self.given.leaves:
            if isinstance(leaf, Tensor):
                found.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]

    def asking(self, target: Target) -> Sample:
        """The same sample with another target."""
        return replace(self, target=target)


def _repeated(leaf: Any, count: int) -> Any:
    holds = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == 1
    return leaf.expand(count, *leaf.shape[1:]) if holds else leaf


def gathered(data: Any, target: Target) -> tuple[Any, Target]:
    """Inputs of all samples and their target, from these themselves or from batches of (inputs, target).

    Raises:
        InputError: if there are no batches, or they are no pairs.
        ValueError: if there are two targets.
    """
    if isinstance(data, (Tensor, tuple, Mapping)):
        return data, target
    if not isinstance(data, Iterable):
        raise InputError(f"data are inputs as of attribute, or batches of (inputs, target), not {type(data).__name__}.")
    batches = list(data)
    if not batches or not all(isinstance(batch, (tuple, list)) and len(batch) == 2 for batch in batches):
        raise InputError("batches are pairs (inputs, target), as a DataLoader makes them; there are none, or others.")
    if target is not None:
        raise ValueError("target= is given by the batches, (inputs, target); leave it out")
    flat, specs = zip(*(pytree.tree_flatten(inputs) for inputs, _ in batches), strict=True)
    if any(spec != specs[0] for spec in specs):
        raise InputError("the batches are of different structure.")
    leaves = [torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0] for parts in zip(*flat, strict=True)]
    targets = [torch.as_tensor(t).reshape(-1) for _, t in batches]
    return pytree.tree_unflatten(leaves, specs[0]), torch.cat(targets)


def samples_of(inputs: Any, target: Target, place: int) -> list[Sample]:
    """Every sample of a batch.

    Raises:
        InputError: if the input that is explained has no samples.
    """
    given = Given.of(inputs)
    x = given.leaves[place]
    if not isinstance(x, Tensor) or not x.ndim or not len(x):
        raise InputError(f"input {place} holds no samples.")
    count, found = len(x), list[Sample]()
    for i in range(count):
        own = slice(i, i + 1)
        leaves = [_cut(leaf, own, count) for leaf in given.leaves]
        found.append(Sample(i, given.holding(leaves), place, _single(target_of(target, own, count))))
    return found


def _cut(leaf: Any, own: slice, count: int) -> Any:
    holds = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == count
    return leaf[own].detach() if holds else leaf


def _single(target: Any) -> Any:
    """A target of one sample with numbers in the place of tensors of one."""
    if isinstance(target, Tensor) and target.numel() == 1:
        return int(target)
    if isinstance(target, Sequence) and not isinstance(target, str):
        return tuple(_single(t) for t in target)
    return target
