"""What an evaluation found, and how it shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import view
from ..extra import extra
from .flipping import area_between, area_under
from .page import write_page
from .picture import draw
from .statistics import Floats, holm, interval, p_value, resampled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """One method under one replacement, over all samples."""

    method: str
    replacement: str
    area: float
    """Mean of the area between the curves of the explained number."""
    low: float
    high: float
    """95 % of the bootstrap."""
    p: float
    """Of no difference to the first method, corrected for all comparisons (Holm); NaN for the first."""
    most: float
    """How much faster than at random the output falls with the most relevant first, in area."""
    least: float
    """How much slower with the least relevant first."""
    probability: float
    """Mean of the area between the curves of the probability; NaN where no class is explained."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What :func:`relprop.evaluate` returns. ``print`` it.

    Attributes:
        found: of every method, what was measured of every sample.
        replacements: what took the place of what was flipped.
        settings: what the numbers depend on.
    """

    found: Mapping[str, Sequence[Mapping[str, Any]]]
    replacements: Sequence[str]
    settings: Mapping[str, str]

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.found.values())))

    def curves(self, method: str, replacement: str, sample: int) -> Tensor:
        """The output at every step, [most relevant first, least relevant first], [2, steps + 1], double."""
        return self._curves(method, replacement, sample)[:, 0]

    def _curves(self, method: str, replacement: str, sample: int) -> Tensor:
        """[2, measures, steps + 1]."""
        return torch.tensor(self.found[method][sample]["curves"][replacement], dtype=torch.float64)

    def areas(self, method: str, replacement: str) -> Floats:
        """The area between the curves of every sample, [N]."""
        return np.array([float(area_between(self.curves(method, replacement, i))) for i in range(len(self))])

    @cached_property
    def rows(self) -> list[Row]:
        """The table, one replacement after the other."""
        return [row for replacement in self.replacements for row in self._rows(replacement)]

    def _rows(self, replacement: str) -> list[Row]:
        seed, names = int(self.settings["seed"]), list(self.found)
        drawn, areas = resampled(len(self), seed), {name: self.areas(name, replacement) for name in names}
        p_values = holm([p_value(areas[name] - areas[names[0]], drawn) for name in names[1:]])
        chance = np.array([float(area_under(c)[:, 0].mean()) for c in self._all("random", replacement)])
        rows = []
        for name, p in zip(names, [float("nan"), *p_values], strict=True):
            both = self._all(name, replacement)
            unders = np.array([area_under(c)[:, 0].tolist() for c in both])
            low, high = interval(areas[name], drawn)
            probability = np.mean([float(area_between(c)[1]) if c.shape[1] > 1 else np.nan for c in both])
            most, least = float((chance - unders[:, 0]).mean()), float((unders[:, 1] - chance).mean())
            area, ends = float(areas[name].mean()), (float(low), float(high))
            rows.append(Row(name, replacement, area, *ends, p, most, least, float(probability)))
        return rows

    def _all(self, method: str, replacement: str) -> list[Tensor]:
        return [self._curves(method, replacement, i) for i in range(len(self))]

    def checks(self, method: str) -> dict[str, float]:
        """The mean over samples of what else was measured: sanity and localisation."""
        own = self.found[method]
        found = {name: [s[name] for s in own if s[name] is not None] for name in own[0] if name != "curves"}
        return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}

    def ranking(self, replacement: str) -> list[str]:
        """The methods, the largest area first."""
        own = [row for row in self.rows if row.replacement == replacement]
        return [row.method for row in sorted(own, key=lambda row: -row.area)]

    @property
    def notes(self) -> list[str]:
        """What a reader should know before believing the table."""
        notes = list(self._changes())
        best = [row for row in self.rows if row.method != "random" and row.low > 0]
        if not best:
            notes.append("No method is better than chance beyond its interval: more samples may tell.")
        if len(self) < 10:
            notes.append(f"{len(self)} samples are few: intervals of the bootstrap are too narrow.")
        return notes

    def _changes(self) -> Iterator[str]:
        """Where the order of the methods depends on the replacement."""
        rankings = {r: self.ranking(r) for r in self.replacements}
        if len({tuple(ranking) for ranking in rankings.values()}) == 1:
            return
        best = {r: ranking[0] for r, ranking in rankings.items()}
        if len(set(best.values())) > 1:
            told = ", ".join(f"{method} under {r}" for r, method in best.items())
            yield f"The best method changes with the replacement: {told}."
        else:
            yield f"{next(iter(best.values()))} is best under every replacement; below it the order changes:"
        swapped = [
            f"{a} and {b}"
            for a, b in combinations(self.found, 2)
            if len({ranking.index(a) < ranking.index(b) for ranking in rankings.values()}) > 1
        ]
        more = f" and {len(swapped) - 6} more pairs" if len(swapped) > 6 else ""
        yield f"  {', '.join(swapped[:6])}{more} change places."

    # -- how it shows itself ------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        checks = {method: self.checks(method) for method in self.found}
        by = {(row.method, row.replacement): row for row in self.rows}
        lines = [[f"area ({len(self)} samples)", *self.replacements, *next(iter(checks.values()))]]
        for method, extra_cells in checks.items():
            cells = [_cell(by[method, r]) for r in self.replacements]
            lines.append([method, *cells, *(f"{value:.2f}" for value in extra_cells.values())])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        legends = [_LEGENDS[name] for name in next(iter(checks.values()))]
        return "\n".join([*table, "", _LEGEND.format(first=next(iter(self.found))), *legends, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def to_frame(self, *, samples: bool = False) -> Any:
        """A pandas DataFrame: one row for each method and replacement, or also for each sample.

        Raises:
            ImportError: if the extra ``relprop[evaluate]`` is not installed.
        """
        with extra("evaluate", "tables need pandas"):
            import pandas as pd
        if not samples:
            return pd.DataFrame([{**vars(row), **self.checks(row.method)} for row in self.rows])
        return pd.DataFrame(
            [
                {"method": method, "replacement": r, "sample": i, "area": area, **_but_curves(self.found[method][i])}
                for method in self.found
                for r in self.replacements
                for i, area in enumerate(self.areas(method, r))
            ]
        )

    def figure(self) -> Figure:
        """The mean curves of every method, with 95 % of the bootstrap, one panel for each replacement.

        Raises:
            ImportError: if the extra ``relprop[image]`` is not installed.
        """
        panels = {
            r: {m: np.stack([c[:, 0].numpy() for c in self._all(m, r)]) for m in self.found} for r in self.replacements
        }
        return draw(panels, resampled(len(self), int(self.settings["seed"])))

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it: ``.html`` is a page that asks no network for anything, ``.csv`` the table, else the figure.

        Raises:
            ValueError: if the path has no suffix, or an unknown one.
            ImportError: if an extra is not installed.
            OSError: if the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() in (".html", ".htm"):
            return write_page(path, str(self), self.figure(), self.settings)
        if path.suffix.lower() == ".csv":
            self.to_frame().to_csv(path, index=False)
            return path
        return view.save(path, self.figure())[0]


_LEGEND = (
    "Area between the curves of least and most relevant first, with 95 % of the bootstrap: chance is 0, larger is "
    "better. * differs from {first} (p < 0.05, Holm)."
)


_LEGENDS = {
    "alike": "alike: cosine to the map of the runner-up; near 1 the map shows what is salient, whatever the class.",
    "randomised": "randomised: rise of the map's entropy with random parameters; at 0 it may not depend on them.",
    "smooth": "smooth: rank correlation with the map of random parameters, both smoothed; near 0 is right.",
    "mass": "mass: share of positive relevance within the region.",
    "rank": "rank: share within the region of as many positions, the most relevant.",
    "pointing": "pointing: how often the most relevant position is within the region.",
}


def _but_curves(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "curves"}


def _cell(row: Row) -> str:
    return f"{row.area:.3g} [{row.low:.3g}, {row.high:.3g}]" + (" *" if row.p < 0.05 else "")
