"""What an explanation holds: relevance, books and values of every sample and target, as data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch.utils._pytree as pytree
from torch import Tensor

from ..engine.given import Given
from ..engine.ledger import Ledger
from ..engine.plan import Plan, PrintedPlan
from ..engine.question import Answer, Question, stacked, together
from .facts import moved, picklable, short, target_of, widths


@dataclass
class Explained:
    """The data of an :class:`~relprop.explanation.explanation.Explanation`, where every field is described."""

    relevance: Any
    output: Any
    target: Any
    value: Tensor
    ledger: Ledger
    plan: Plan | PrintedPlan
    inputs: Any
    relevances: dict[str, Tensor] = field(default_factory=dict)
    classes: list[str] | None = None

    @classmethod
    def of(cls, given: Given, question: Question, answers: Sequence[Answer], classes: list[str] | None = None) -> Self:
        """The answers to a question, one for each target."""
        first, several = answers[0], question.several
        ledgers: Any = [answer.ledger for answer in answers]
        return cls(
            relevance=given.like(together(answers, several)),
            output=first.plan.graph.unflatten_output(list(first.outputs)),
            target=[answer.target for answer in answers] if several else first.target,
            value=stacked([answer.value for answer in answers], several),
            ledger=ledgers if several else ledgers[0],
            plan=first.plan,
            inputs=given.inputs,
            relevances={name: stacked([a.hidden[name] for a in answers], several) for name in first.hidden},
            classes=classes,
        )

    @property
    def several(self) -> bool:
        """Whether there are several targets, in a leading dimension."""
        return isinstance(self.ledger, list)

    @property
    def ledgers(self) -> list[Ledger]:
        """The books, one for each target."""
        return self.ledger if isinstance(self.ledger, list) else [self.ledger]

    @property
    def parts(self) -> list[Self]:
        """An explanation of each target."""
        if not self.several:
            return [self]
        return [
            replace(
                self,
                relevance=pytree.tree_map(lambda r, i=i: None if r is None else r[i], self.relevance),
                target=self.target[i],
                value=self.value[i],
                ledger=book,
                relevances={name: r[i] for name, r in self.relevances.items()},
            )
            for i, book in enumerate(self.ledgers)
        ]

    def name(self, sample: int | None = None) -> str:
        """What is explained, in a few words: of all samples, or of one. Classes have their names, if they are known."""
        return short(self.target, sample, self._names)

    def class_name(self, index: int) -> str:
        """The name of a class, or its number."""
        names = self._names
        return str(index) if names is None else names[index]

    @property
    def _names(self) -> list[str] | None:
        """The names of the classes, if they are of what the output has one score for, each."""
        return self.classes if self.classes is not None and widths(self.output) == len(self.classes) else None

    def __len__(self) -> int:
        """The number of samples."""
        return self.value.shape[-1]

    def __getitem__(self, index: int | slice) -> Self:
        """One sample, as a batch of one, or some of them.

        What has no dimension for samples, such as an input that all share, stays as it is.

        Raises:
            IndexError: if there is no such sample.
            TypeError: if the index is no number or slice.
        """
        count = len(self)
        if isinstance(index, int):
            if not -count <= index < count:
                raise IndexError(f"sample {index}; there are {count} samples")
            index = slice(index % count, index % count + 1)
        if not isinstance(index, slice):
            raise TypeError(f"an explanation is indexed by a sample's number or a slice, got {index!r}")
        dim = int(self.several)
        where = (slice(None),) * dim + (index,)

        def cut(x: Any) -> Any:
            holds = isinstance(x, Tensor) and x.ndim and x.shape[0] == count
            return x[index] if holds else x

        def cut_relevance(x: Any) -> Any:
            return x[where] if isinstance(x, Tensor) and x.ndim > dim and x.shape[dim] == count else x

        books: Any = [book.mapped(lambda x: x[index]) for book in self.ledgers]
        targets = [target_of(t, index, count) for t in (self.target if self.several else [self.target])]
        return replace(
            self,
            relevance=pytree.tree_map(cut_relevance, self.relevance),
            output=pytree.tree_map(cut, self.output),
            inputs=pytree.tree_map(cut, self.inputs),
            target=targets if self.several else targets[0],
            value=self.value[..., index],
            ledger=books if self.several else books[0],
            relevances={name: cut_relevance(x) for name, x in self.relevances.items()},
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def to(self, *where: Any, **options: Any) -> Self:
        """With all tensors where ``Tensor.to`` brings them; a number type is for floating-point tensors only."""

        def move(x: Any) -> Any:
            return moved(x, where, options)

        books: Any = [book.mapped(move) for book in self.ledgers]
        names = ("relevance", "output", "target", "value", "inputs", "relevances")
        moved_fields = {name: pytree.tree_map(move, getattr(self, name)) for name in names}
        return replace(self, **moved_fields, ledger=books if self.several else books[0])

    def numpy(self) -> Any:
        """Relevance as numpy arrays, in the structure of the inputs; None for an input that is not explained."""
        return pytree.tree_map(lambda r: r.detach().cpu().numpy() if isinstance(r, Tensor) else r, self.relevance)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(**{f.name: copy.deepcopy(getattr(self, f.name), memo) for f in fields(self)})

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: data. Of the plan its text, and of functions that are targets their names."""
        return {**self.__dict__, "target": pytree.tree_map(picklable, self.target)}
