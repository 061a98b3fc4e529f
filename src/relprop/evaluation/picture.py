"""The curves of an evaluation as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .. import view
from .statistics import Floats, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(panels: Mapping[str, Mapping[str, Floats]], weights: Floats) -> Figure:
    """Mean curves with their bands.

    Args:
        panels: replacement -> method -> curves [samples, 2, steps + 1]; most relevant first is drawn as a line, least
            relevant first dashed.
        weights: of the bootstrap.
    """
    fig = view.new_figure(figsize=(1 + 4.2 * len(panels), 4), layout="constrained")
    grid = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (replacement, methods) in zip(grid, panels.items(), strict=True):
        for i, (method, curves) in enumerate(methods.items()):
            share = np.linspace(0, 1, curves.shape[-1])
            low, high = interval(curves, weights)
            for k, style in ((0, "-"), (1, "--")):
                ax.plot(share, curves[:, k].mean(0), style, color=f"C{i}", label=method if k == 0 else None)
                ax.fill_between(share, low[k], high[k], color=f"C{i}", alpha=0.15, linewidth=0)
        ax.set(title=replacement, xlabel="share that is replaced")
    grid[0].set_ylabel("explained output")
    grid[-1].legend(title="most relevant first\n(dashed: least)", fontsize="small")
    return fig
