"""The result of an explanation, and how it shows itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch.utils._pytree as pytree
from torch import Tensor

from .. import view
from ..view.save import path_of
from .drawn import Drawn, words_of
from .explained import Explained
from .facts import books, guesses
from .files import FORMATS, read, write
from .look import Look, SavedLook, WordLook
from .pictures import image_figure, row_figure, volume_figure
from .report import Choice, sheet_of, write_report
from .stored import content_of, fields_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..view.colour import Percentile
    from ..view.page import Sheet


@dataclass(repr=False)
class Explanation(Explained):
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
        classes: the names of the classes, if they are known.
    """

    def figure(
        self,
        sample: int = 0,
        image: Any = None,
        *,
        tokens: Any = None,
        wrt: str | int | None = None,
        which: int | None = None,
        **options: Unpack[Look],
    ) -> Figure:
        """Draw one sample with matplotlib: a heatmap for an image, bars for a series, coloured words for text.

        Relevance [B, C, H, W] is an image, [B, C, D, H, W] a volume or video, [B, T, F] a series ([B, F, T] if a 1-D
        convolution reads it), [B, T] of integers text, of up to 64 other numbers the row of a table, and of more a
        series. The title names the target and its value.

        Args:
            sample: which one of the batch.
            image: the photo to show beside and under the heatmap: a path, a PIL image, or an array (see
                :func:`relprop.view.picture`, also for ``crop=``); by default the input, stretched to [0, 1]. Several
                targets of an image are rows on one scale. On a dark photo colours get brighter with relevance.
            tokens: the words of a text, one string per position, for [B, T] or embeddings [B, T, D]; or the tokenizer
                of the ids [B, T], whose pieces are then merged into words.
            wrt: name or position of the input to draw, if several have relevance.
            which: which of several targets; by default all, if it is an image.
            options: passed on to :func:`relprop.view.figure`, :func:`~relprop.view.series`,
                :func:`~relprop.view.table` or :func:`~relprop.view.tokens_figure`: ``title``, ``cmap``, ``scale``,
                ``percentile``, ``names`` and others. Of a volume ``slices=`` chooses numbers along D, by default the
                six with most relevance; of a row ``kind=`` says "table" or "series".

        Raises:
            ValueError: if there is no such sample, target or input, or no picture for relevance of this shape.
            ImportError: if the extra ``relprop[image]`` is not installed.
        """
        drawn = Drawn.of(self, sample, wrt, which)
        relevance, given, titles = drawn.relevance, drawn.given, drawn.titles
        look: dict[str, Any] = {**options}
        if tokens is None and relevance.ndim == 4:
            return image_figure(drawn, image, look)
        if image is not None:
            raise ValueError(f"image= is for images; relevance of one sample has shape {list(relevance.shape[1:])}")
        if len(relevance) > 1:
            raise ValueError(f"there are {len(relevance)} targets: choose one with which=0 to {len(relevance) - 1}")
        look.setdefault("title", titles[0])
        if tokens is not None or not given.dtype.is_floating_point:
            words, numbers = words_of(tokens, relevance[0], given)
            return view.tokens_figure(words, numbers, **look)
        if relevance.ndim == 5:
            return volume_figure(relevance[0], given, look.pop("slices", None), look)
        if relevance.ndim in (2, 3):
            return row_figure(drawn, look.pop("kind", None), look)
        raise ValueError(
            f"no picture for relevance of shape {list(relevance.shape[1:])} (one sample); an image is [C, H, W], a "
            "volume [C, D, H, W], a series [T, F] or [T]. Reduce .relevance to one of these for relprop.view"
        )

    def html(
        self,
        tokens: Any = None,
        sample: int = 0,
        *,
        wrt: str | int | None = None,
        which: int | None = None,
        **options: Unpack[WordLook],
    ) -> str:
        """One text as HTML, every token on the colour of its relevance; several targets one below the other.

        Args:
            tokens: one string per position, or the tokenizer; by default the numbers of the tokens.
            sample, wrt, which: as in :meth:`figure`.
            options: passed on to :func:`relprop.view.tokens_html`.

        Raises:
            ValueError: if there is no such sample, target or input, or relevance is not that of a text.
            ImportError: if the extra ``relprop[image]`` is not installed.
        """
        drawn = Drawn.of(self, sample, wrt, which)
        if drawn.relevance.ndim not in (2, 3):
            raise ValueError(f"relevance of a text is [T] or [T, D], not {list(drawn.relevance.shape[1:])}")
        look: dict[str, Any] = {**options}
        return "\n".join(
            view.tokens_html(*words_of(tokens, relevance, drawn.given), **{"title": title, **look})
            for relevance, title in zip(drawn.relevance, drawn.titles, strict=True)
        )

    def save(
        self,
        path: str | PathLike[str],
        sample: int = 0,
        image: Any = None,
        *,
        dpi: float = 150,
        **options: Unpack[SavedLook],
    ) -> Path:
        """Write a picture of one sample, or all that is known of all samples, and return the path.

        The suffix names the format: ``.png``, ``.pdf``, ``.svg`` and what else matplotlib writes hold the
        :meth:`figure`; ``.npz``, ``.safetensors`` and ``.json`` hold relevance, output, values, ledger, inputs and the
        plan as text, which :func:`relprop.load` reads again; ``.html`` is a report in one file (see
        :func:`relprop.report`) of one sample.

        Raises:
            TypeError: if the path is none, or for an option that the format does not have.
            ValueError: as :meth:`figure`; also if the path has no suffix or an unknown one.
            FileError: if a tensor is of a type that files do not hold.
            OSError: if the file cannot be written.
        """
        path = path_of(path)
        if path.suffix.lower() in (".html", ".htm"):
            if unknown := options.keys() - {"title", "tokens", "wrt", "crop"}:
                named = ", ".join(sorted(unknown))
                raise TypeError(f"a report takes sample, image, title, tokens, wrt and crop; leave out {named}")
            Drawn.check_sample(self, sample)
            looked: dict[str, Any] = {**options}
            return write_report([(self, sample % len(self))], path, _figure, image=image, **looked)
        if path.suffix.lower() not in FORMATS:
            return view.save(path, self.figure(sample, image, **options), dpi=dpi)[0]
        if sample != 0 or image is not None or options:
            told = ["sample"] * (sample != 0) + ["image"] * (image is not None) + sorted(options)
            raise ValueError(f"{path.suffix} holds all samples, and no picture: leave out {', '.join(told)}")
        write(path, content_of(self))
        return path

    def sheet(
        self,
        sample: int = 0,
        image: Any = None,
        *,
        tokens: Any = None,
        wrt: str | int | None = None,
        crop: float | None = None,
        percentile: Percentile = "auto",
    ) -> Sheet:
        """What a report shows of one sample, as words, numbers and pictures: for pages of your own.

        Arguments and errors as :meth:`figure`; ``percentile`` says where the colours of an image end.
        """
        Drawn.check_sample(self, sample)
        return sheet_of(self, sample % len(self), _figure, Choice(image, tokens, wrt, crop, percentile))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Explanation:
        """Read what :meth:`save` wrote as ``.npz``, ``.safetensors`` or ``.json``. It runs no code from the file.

        The plan is its text, functions that were targets are their names, and mappings are dicts.

        Raises:
            FileError: if the file is not one of these, is damaged, or comes from a later version.
            ImportError: if ``.safetensors`` is to be read and its package is missing.
            OSError: if there is no such file, or it cannot be read.
        """
        path = path_of(path)
        return cls(**fields_of(read(path), str(path)))

    # -- as text ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return "\n\n".join(part._told() for part in self.parts)

    def _told(self) -> str:
        """One target in words; of several samples, sums."""
        value = ", ".join(f"{float(v):.4g}" for v in self.value[:4]) + (", ..." if len(self) > 4 else "")
        best = guesses(self.output, 0, 3)
        thought = ", ".join(f"{self.class_name(g.index)} ({g.score:.4g})" for g in best)
        shapes = ", ".join(
            f"{name} {list(r.shape)}"
            for name, r in zip(self.plan.input_names, pytree.tree_leaves(self.relevance), strict=False)
            if isinstance(r, Tensor)
        )
        lines = [
            f"Explanation of {self.name()}",
            f"value       {value}",
            f"prediction  {thought}" + (" for the first sample" if len(self) > 1 else "") if best else "",
            f"rules       {self.plan.title}",
            f"relevance   {shapes}",
            *books(self.ledger),
        ]
        return "\n".join(line for line in lines if line)

    # -- in a notebook ------------------------------------------------------------------------------------------------

    def _repr_png_(self) -> bytes | None:
        """The first sample. Without the extra, or without a picture for the shape, the notebook shows the text."""
        try:
            return None if self._is_text() else view.png(self.figure())
        except (ImportError, ValueError):
            return None

    def _repr_html_(self) -> str | None:
        """The picture and the words. Without the extra, or without a picture for the shape, the words alone."""
        try:
            if self._is_text():
                shown = self.html()
            else:
                data = base64.b64encode(view.png(self.figure())).decode()
                shown = f'<img alt="{escape(self._title())}" src="data:image/png;base64,{data}">'
        except (ImportError, ValueError):
            return None
        return f"{shown}\n<pre>{escape(repr(self))}</pre>"

    def _title(self) -> str:
        return "relevance: " + "; ".join(title.replace("\n", ", ") for title in Drawn.of(self, 0, None, None).titles)

    def _is_text(self) -> bool:
        return not Drawn.of(self, 0, None, None).given.dtype.is_floating_point


def _figure(explanation: Any, sample: int, which: int | None) -> Any:
    return explanation.figure(sample, which=which)


def report(
    explanations: Explanation | Sequence[Explanation],
    path: str | PathLike[str],
    *,
    title: str | None = None,
    image: Any = None,
    tokens: Any = None,
    wrt: str | int | None = None,
    crop: float | None = None,
) -> Path:
    """Write a report of all samples of one or several explanations: one file that asks no network for anything.

    It shows the input, the prediction, maps of all targets on one scale with values to read, the ledger, what should be
    looked at before a map is believed, the plan, and how to reproduce it.

    Args:
        explanations: one or several; ``explanation[i]`` is one sample of it.
        path: of the file, such as "report.html".
        title: of the page.
        image: as in :meth:`Explanation.figure`, for all samples; or a list of one for each.
        tokens, wrt, crop: as in :meth:`Explanation.figure`, for all samples.

    Returns:
        The path.

    Raises:
        TypeError: if something else than explanations is given.
        ValueError: if there are no samples, or more than 32; if the path does not end in .html; as
            :meth:`Explanation.figure`.
        ImportError: if the extra ``relprop[report]`` is not installed.
        OSError: if the file cannot be written.
    """
    path = path_of(path)
    given: list[Any] = [explanations]
    if isinstance(explanations, Iterable) and not isinstance(explanations, Explanation):
        given = list(explanations)
    for one in given:
        if not isinstance(one, Explanation):
            raise TypeError(f"report takes explanations, as lrp.explain returns them, got {type(one).__name__}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is a page: path must end in .html, got {str(path)!r}")
    samples = [(one, i) for one in given for i in range(len(one))]
    return write_report(samples, path, _figure, title, image, tokens, wrt, crop)
