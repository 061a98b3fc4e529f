"""The result of an explanation, and how it shows itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from . import view
from .engine.given import Given
from .engine.ledger import Ledger
from .engine.plan import Plan
from .engine.question import Answer, Question, stacked, together
from .targets import Titled, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Explanation:
    """What :meth:`relprop.LRP.explain` returns.

    With several targets (:func:`relprop.targets.several`), relevance, values and recorded relevances have a leading
    dimension with one entry per target, and ``target`` and ``ledger`` are lists.

    Attributes:
        relevance: relevance of the inputs, in their structure; None for an input that is not explained.
        output: the model's output; a dataclass that torch does not know is given as its fields.
        target: what was explained: the class of every sample [B], or the target as it was given.
        value: the explained value of every sample, [B].
        relevances: relevance of hidden tensors, by module path (``record=``).
        ledger: where relevance went, per sample.
        plan: which rule ran where.
        inputs: the inputs as they were given.
    """

    relevance: Any
    output: Any
    target: Any
    value: Tensor
    ledger: Ledger
    plan: Plan
    inputs: Any
    relevances: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Given, question: Question, answers: Sequence[Answer]) -> Explanation:
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
        )

    def figure(
        self,
        sample: int = 0,
        image: Any = None,
        *,
        tokens: Sequence[str] | None = None,
        wrt: str | int | None = None,
        which: int | None = None,
        **options: Any,
    ) -> Figure:
        """Draw one sample with matplotlib: a heatmap for an image, bars for a series, coloured words for text.

        Relevance [B, C, H, W] is an image, [B, T, F] a series ([B, F, T] if a 1-D convolution reads it), [B, T] of
        integers text and of other numbers a series. The title names the target and its value.

        Args:
            sample: which one of the batch.
            image: the photo to show beside and under the heatmap, [C, H, W], uint8 or in [0, 1]; by default the
                input, stretched to [0, 1]. Several targets of an image are rows on one scale.
            tokens: the words of a text, one string per position; for [B, T] or embeddings [B, T, D].
            wrt: name or position of the input to draw, if several have relevance.
            which: which of several targets; by default all, if it is an image.
            options: passed on to :func:`relprop.view.figure`, :func:`~relprop.view.series` or
                :func:`~relprop.view.tokens_figure`: ``title``, ``cmap``, ``scale``, ``percentile`` and others.

        Raises:
            ValueError: if there is no such sample, target or input, or no picture for relevance of this shape.
            ImportError: if the extra ``relprop[image]`` is not installed.
        """
        drawn = self._drawn(sample, wrt, which)
        relevance, given, titles = drawn.relevance, drawn.given, drawn.titles
        if tokens is None and relevance.ndim == 4:
            if image is None and given.ndim == 3 and given.shape[0] in (1, 3):
                image = view.stretch(given)
            if isinstance(image, Tensor) or hasattr(image, "ndim"):
                image = torch.as_tensor(image)
                image = image.expand(len(relevance), *([1] if image.ndim == 2 else []), *image.shape)
            options.setdefault("title", titles if len(titles) > 1 else titles[0])
            options.setdefault("shared", True)
            return view.figure(relevance, image, **options)
        if image is not None:
            raise ValueError(f"image= is for images; relevance of one sample has shape {list(relevance.shape[1:])}")
        if len(relevance) > 1:
            raise ValueError(f"there are {len(relevance)} targets: choose one with which=0 to {len(relevance) - 1}")
        options.setdefault("title", titles[0])
        only = relevance[0]
        if tokens is not None or not given.dtype.is_floating_point:
            return view.tokens_figure(_words(tokens, only, given), only, **options)
        if only.ndim in (1, 2):
            if drawn.channels_first:
                only, given = only.T, given.T
            return view.series(only, options.pop("values", given), **options)
        raise ValueError(
            f"no picture for relevance of shape {list(relevance.shape[1:])} (one sample); an image is [C, H, W], a "
            "series [T, F] or [T]. Reduce .relevance to one of these and draw it with relprop.view"
        )

    def html(
        self,
        tokens: Sequence[str] | None = None,
        sample: int = 0,
        *,
        wrt: str | int | None = None,
        which: int | None = None,
        **options: Any,
    ) -> str:
        """One text as HTML, every token on the colour of its relevance; several targets one below the other.

        Args:
            tokens: one string per position; by default the numbers of the tokens.
            sample, wrt, which: as in :meth:`figure`.
            options: passed on to :func:`relprop.view.tokens_html`.

        Raises:
            ValueError: if there is no such sample, target or input, or relevance is not that of a text.
            ImportError: if the extra ``relprop[image]`` is not installed.
        """
        drawn = self._drawn(sample, wrt, which)
        if drawn.relevance.ndim not in (2, 3):
            raise ValueError(f"relevance of a text is [T] or [T, D], not {list(drawn.relevance.shape[1:])}")
        words = _words(tokens, drawn.relevance[0], drawn.given)
        return "\n".join(
            view.tokens_html(words, relevance, **{"title": title, **options})
            for relevance, title in zip(drawn.relevance, drawn.titles, strict=True)
        )

    def save(
        self, path: str | PathLike[str], sample: int = 0, image: Any = None, *, dpi: float = 150, **options: Any
    ) -> Path:
        """Write the :meth:`figure` of one sample to a file, whose suffix names the format, and return its path.

        Raises:
            ValueError: as :meth:`figure`; also if the path has no suffix.
            OSError: if the file cannot be written.
        """
        return view.save(path, self.figure(sample, image, **options), dpi=dpi)[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Explanation:
        return Explanation(**{f.name: copy.deepcopy(getattr(self, f.name), memo) for f in fields(self)})

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: data. Of the plan its text, and of functions that are targets their names."""
        return {**self.__dict__, "target": pytree.tree_map(_picklable, self.target)}

    def __repr__(self) -> str:
        ledgers = self.ledger if isinstance(self.ledger, list) else [self.ledger]
        targets = self.target if isinstance(self.ledger, list) else [self.target]
        return "\n\n".join(f"Explanation of {_short(t)}\n{ledger}" for t, ledger in zip(targets, ledgers, strict=True))

    # -- in a notebook ------------------------------------------------------------------------------------------------

    def _repr_png_(self) -> bytes | None:
        """The first sample. Without the extra, or without a picture for the shape, the notebook shows the text."""
        try:
            return None if self._is_text() else view.png(self.figure())
        except (ImportError, ValueError):
            return None

    def _repr_html_(self) -> str | None:
        try:
            return self.html() if self._is_text() else None
        except (ImportError, ValueError):
            return None

    def _is_text(self) -> bool:
        return not self._drawn(0, None, None).given.dtype.is_floating_point

    # -- inside -------------------------------------------------------------------------------------------------------

    def _drawn(self, sample: int, wrt: str | int | None, which: int | None) -> _Drawn:
        """Relevance [targets, ...] and the input of one sample."""
        several = isinstance(self.ledger, list)
        name, relevance, given = self._input(wrt)
        relevance = relevance.detach().cpu() if several else relevance.detach().cpu()[None]
        count = len(self.value[0] if several else self.value)
        if relevance.ndim < 2 or given.ndim < 1 or given.shape[0] != count:
            raise ValueError(f"relevance {list(relevance.shape[several:])} has no dimension for {count} samples")
        if not -count <= sample < count:
            raise ValueError(f"sample={sample}; there are {count} samples")
        if which is not None and not several:
            raise ValueError(f"which={which} is for several targets; this explanation has one")
        if which is not None and not -len(relevance) <= which < len(relevance):
            raise ValueError(f"which={which}; there are {len(relevance)} targets")
        chosen = range(len(relevance)) if which is None else [range(len(relevance))[which]]
        values = self.value.detach() if several else self.value.detach()[None]
        targets = self.target if several else [self.target]
        return _Drawn(
            relevance=relevance[list(chosen), sample],
            given=given.detach().cpu()[sample],
            titles=[f"{_short(targets[i], sample)}: {float(values[i, sample]):.4g}" for i in chosen],
            channels_first=name in self.plan.convolved,
        )

    def _input(self, wrt: str | int | None) -> tuple[str, Tensor, Tensor]:
        """Name, relevance and value of the input to draw."""
        names = self.plan.input_names
        relevances = pytree.tree_leaves(self.relevance)
        leaves = zip(names, relevances, Given.of(self.inputs).leaves, strict=True)
        explained = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf[1], Tensor)}
        known = ", ".join(f"{i} ({leaf[0]!r})" if leaf[0] != str(i) else str(i) for i, leaf in explained.items())
        if wrt is None:
            if words := self._words_among(explained):
                return words
            if len(explained) != 1:
                raise ValueError(f"{len(explained)} inputs have relevance: choose one with wrt=, of {known or 'none'}")
            return next(iter(explained.values()))
        for i, leaf in explained.items():
            if wrt in (i, leaf[0]):
                return leaf
        raise ValueError(f"wrt={wrt!r} has no relevance; there are {known}")

    def _words_among(self, explained: dict[int, tuple[str, Tensor, Tensor]]) -> tuple[str, Tensor, Tensor] | None:
        """Of several inputs that are all ids, those of the largest table: words, not their types or positions."""
        if len(explained) < 2 or any(given.is_floating_point() for _, _, given in explained.values()):
            return None
        rows = self.plan.table_rows
        return max(explained.values(), key=lambda leaf: rows.get(leaf[0], 0))


@dataclass
class _Drawn:
    """What is drawn: one input of one sample."""

    relevance: Tensor
    """[targets, ...]"""
    given: Tensor
    titles: list[str]
    channels_first: bool


def _words(tokens: Sequence[str] | None, relevance: Tensor, given: Tensor) -> Sequence[str]:
    """One word for each position, by default the number that the model was given."""
    if tokens is not None:
        return tokens
    if given.dtype.is_floating_point or given.ndim != 1:
        raise ValueError(f"relevance of a sample is {list(relevance.shape)}; pass tokens=, one string per position")
    return [f"{i} " for i in given.tolist()]


def _short(target: Any, sample: int | None = None) -> str:
    """A target in a few words, of all samples or of one."""
    name = name_of(target, sample)
    return name if callable(target) or isinstance(target, str) else f"target {name}"


def _picklable(target: Any) -> Any:
    """Of a function its name, unless it can be pickled itself."""
    return name_of(target) if callable(target) and not isinstance(target, Titled) else target
