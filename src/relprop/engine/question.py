"""What is asked of a session, how it is to be worked out, and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import SelectionError, TargetError
from ..targets import Several, Target, Targets
from .ledger import Ledger
from .plan import Plan

SeedName = Literal["output", "unit"]
SEEDS: tuple[str, ...] = get_args(SeedName)

Channels = None | int | Sequence[int] | Tensor | Callable[[Tensor], Tensor]
"""What of a hidden tensor relevance may pass through, or starts at."""

Wrt = None | str | int | Sequence[str | int]
"""Names or positions of the inputs to explain."""


@dataclass(frozen=True)
class Question:
    """What to explain, and what of it to keep.

    Raises:
        TargetError, SelectionError, ValueError: if something is of the wrong kind.
    """

    targets: tuple[Target, ...] = (None,)
    several: bool = False
    """Whether results have a leading dimension, one entry for each target."""
    listed: bool = False
    """Whether they came as a plain list, which could be taken for an index of each sample."""
    wrt: Wrt = None
    seed: str = "output"
    record: tuple[str, ...] = ()
    mask: Mapping[str, Channels] = field(default_factory=dict)
    at: str | tuple[str, Channels] | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise TargetError("an empty list of targets")
        if self.seed not in SEEDS:
            raise ValueError(f"seed must be one of {', '.join(map(repr, SEEDS))}, got {self.seed!r}")
        if not isinstance(self.mask, Mapping):
            raise SelectionError(f"mask must be a dict, module path -> channels, got {self.mask!r}.")
        at = self.at
        if at is not None and not isinstance(at, str) and not (_is_pair(at) and isinstance(at[0], str)):
            raise SelectionError(f"at must be a module path or (path, channels), got {at!r}.")

    @classmethod
    def of(
        cls,
        target: Targets,
        wrt: Wrt = None,
        seed: str = "output",
        record: str | Iterable[str] = (),
        mask: Mapping[str, Channels] | None = None,
        at: str | tuple[str, Channels] | None = None,
    ) -> Question:
        """A question in the words of :meth:`relprop.LRP.explain`."""
        asked: Any = target
        listed, several = isinstance(target, list), isinstance(target, (list, Several))
        targets: tuple[Target, ...] = tuple(asked) if listed else asked.targets if several else (asked,)
        recorded = (record,) if isinstance(record, str) else tuple(record or ())
        return cls(targets, several, listed, wrt, seed, recorded, {} if mask is None else mask, at)


def _is_pair(at: Any) -> bool:
    return isinstance(at, tuple) and len(at) == 2


@dataclass(frozen=True)
class How:
    """How an answer is worked out; it is the same either way."""

    accounting: bool = False
    """Keep the ledger."""
    differentiable: bool = False
    """Relevance can be differentiated in turn."""
    checkpoint: bool = False
    """Run the network once more, part by part, instead of holding all that the way back needs."""


PLAIN = How()


@dataclass(frozen=True)
class Answer:
    """What is answered to one target."""

    relevances: Sequence[Tensor | None]
    """For every leaf of the inputs; None for one that is not explained."""
    target: Any
    """The class of every sample, [B], or the target as it was given."""
    value: Tensor
    """The explained value of every sample, [B]."""
    ledger: Ledger | None
    hidden: Mapping[str, Tensor]
    """Module path -> relevance of its output."""
    outputs: Sequence[Any]
    """The leaves of the model's output."""
    plan: Plan


def together(answers: Sequence[Answer], several: bool) -> list[Tensor | None]:
    """Relevance of every leaf of the inputs, stacked if there are several targets."""
    found = zip(*(answer.relevances for answer in answers), strict=True)
    return [None if r[0] is None else stacked(r, several) for r in found]


def stacked(tensors: Sequence[Tensor], several: bool) -> Tensor:
    return torch.stack(list(tensors)) if several else tensors[0]
