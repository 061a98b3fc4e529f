"""Which part of an explanation is drawn: one input of one sample, with its title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

from .. import view
from ..engine.given import Given
from .explained import Explained
from .facts import share_of


@dataclass(frozen=True)
class Drawn:
    """What is drawn: one input of one sample."""

    name: str
    relevance: Tensor
    """[targets, ...]"""
    given: Tensor
    titles: list[str]
    channels_first: bool

    @classmethod
    def of(cls, explanation: Explained, sample: int, wrt: str | int | None, which: int | None) -> Drawn:
        """
        Raises:
            ValueError: if there is no such sample, input or target.
        """
        several = explanation.several
        name, relevance, given = input_of(explanation, wrt)
        relevance = relevance.detach().cpu() if several else relevance.detach().cpu()[None]
        count = len(explanation)
        if relevance.ndim < 2 or given.ndim < 1 or given.shape[0] != count:
            raise ValueError(f"relevance {list(relevance.shape[several:])} has no dimension for {count} samples")
        cls.check_sample(explanation, sample)
        if which is not None and not several:
            raise ValueError(f"which={which} is for several targets; this explanation has one")
        if which is not None and not -len(relevance) <= which < len(relevance):
            raise ValueError(f"which={which}; there are {len(relevance)} targets")
        chosen = range(len(relevance)) if which is None else [range(len(relevance))[which]]
        parts = explanation.parts
        return cls(
            name=name,
            relevance=relevance[list(chosen), sample],
            given=given.detach().cpu()[sample],
            titles=[_title(parts[i], sample, name) for i in chosen],
            channels_first=name in explanation.plan.convolved,
        )

    @staticmethod
    def check_sample(explanation: Explained, sample: int) -> None:
        """
        Raises:
            ValueError: if there is no such sample.
        """
        count = len(explanation)
        if not isinstance(sample, int) or not -count <= sample < count:
            raise ValueError(f"sample={sample}; there are {count} samples")


def _title(part: Explained, sample: int, name: str) -> str:
    """What is shown: the target, its value, and how much of it is in the picture."""
    title = f"{part.name(sample)}: {float(part.value[sample]):.4g}"
    share = share_of(part.ledger, sample, name)
    return title if share is None else f"{title}\n{share} of it reached {_called(name)}"


def _called(name: str) -> str:
    """An input whose name says no more than that it is one."""
    return "the input" if name in ("0", "x", "input", "inputs") else name


def input_of(explanation: Explained, wrt: str | int | None) -> tuple[str, Tensor, Tensor]:
    """Name, relevance and value of the input to show.

    Raises:
        ValueError: if there is none of that name, or no telling which.
    """
    leaves = zip(
        explanation.plan.input_names,
        pytree.tree_leaves(explanation.relevance),
        Given.of(explanation.inputs).leaves,
        strict=True,
    )
    explained = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf[1], Tensor)}
    known = ", ".join(f"{i} ({leaf[0]!r})" if leaf[0] != str(i) else str(i) for i, leaf in explained.items())
    if wrt is None:
        if words := _words_among(explanation.plan.table_rows, explained):
            return words
        if len(explained) != 1:
            raise ValueError(f"{len(explained)} inputs have relevance: choose one with wrt=, of {known or 'none'}")
        return next(iter(explained.values()))
    for i, leaf in explained.items():
        if wrt in (i, leaf[0]):
            return leaf
    raise ValueError(f"wrt={wrt!r} has no relevance; there are {known}")


def _words_among(
    rows: dict[str, int], explained: dict[int, tuple[str, Tensor, Tensor]]
) -> tuple[str, Tensor, Tensor] | None:
    """Of several inputs that are all ids, those of the largest table: words, not their types or positions."""
    if len(explained) < 2 or any(given.is_floating_point() for _, _, given in explained.values()):
        return None
    return max(explained.values(), key=lambda leaf: rows.get(leaf[0], 0))


def words_of(tokens: Any, relevance: Tensor, given: Tensor) -> tuple[Sequence[str], Any]:
    """Words and their relevance: one for each position, by default the number that the model was given; those of a
    tokenizer are merged.

    Raises:
        ValueError: if there are no ids, and no words for them.
    """
    if hasattr(tokens, "convert_ids_to_tokens"):
        if given.dtype.is_floating_point or given.ndim != 1:
            raise ValueError(
                f"a tokenizer names ids [T]; the input of a sample is {list(given.shape)} of {given.dtype}"
            )
        pieces = [str(piece) for piece in tokens.convert_ids_to_tokens(given.tolist())]
        special = set(getattr(tokens, "all_special_tokens", ()))
        return view.merged(pieces, relevance, special, getattr(tokens, "convert_tokens_to_string", None))
    if tokens is not None:
        return tokens, relevance
    if given.dtype.is_floating_point or given.ndim != 1:
        raise ValueError(f"relevance of a sample is {list(relevance.shape)}; pass tokens=, one string per position")
    return [f"{i} " for i in given.tolist()], relevance


def photo_of(image: Any, given: Tensor, size: Sequence[int], crop: float | None) -> Any:
    """What is shown beside a map, [C, H, W] in [0, 1]: the caller's, or the input, if it can be one."""
    if image is None and given.ndim == 3 and given.shape[0] in (1, 3):
        return view.stretch(given)
    return None if image is None else view.picture(image, (size[0], size[1]), crop=crop)
