"""From signed numbers to colours: zero is the exact centre of the map, and -x is as far from it as +x."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from relprop.view._extra import image_extra
from relprop.view.arrays import RGB, Floats

if TYPE_CHECKING:
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

ColourMap: TypeAlias = "str | Colormap"

# An even number of entries has no middle one, and zero would come out slightly pink; 511 gives each sign the 255 steps
# that a byte can hold.
_ENTRIES = 511


def colour_map(cmap: ColourMap) -> Colormap:
    """The matplotlib colour map of that name, or "coldhot", with an entry of its own for zero.

    Raises:
        ValueError: matplotlib has no map of that name.
    """
    with image_extra():
        import matplotlib
        from matplotlib.colors import LinearSegmentedColormap
    if cmap == "coldhot":  # matplotlib's dark-centred maps do not reach black
        return LinearSegmentedColormap.from_list("coldhot", ["cyan", "blue", "black", "red", "yellow"], N=_ENTRIES)
    if not isinstance(cmap, str):
        return cmap.resampled(_ENTRIES)
    if cmap not in matplotlib.colormaps:
        raise ValueError(
            f"cmap={cmap!r} is no colour map; take 'seismic' or 'bwr' (white centre), 'coldhot' (black centre) "
            "or another name in matplotlib.colormaps"
        )
    return matplotlib.colormaps[cmap].resampled(_ENTRIES)


Percentile: TypeAlias = 'float | Literal["auto"] | None'

# "auto" draws the strongest of this share of the magnitudes in one colour, if they are so many times stronger than the
# rest: a few pixels would else leave the others nearly white.
_MOST, _TIMES = 99.5, 3.0


def limits(relevance: Floats, *, scale: float | None, percentile: Percentile, shared: bool = False) -> Floats:
    """The magnitude that gets the last colour: one for each of the B samples of relevance [B, ...].

    `scale` if given; else the `percentile` of the magnitudes that are not zero (most pixels of a sparse map are); else
    the largest magnitude. "auto" takes the 99.5th percentile where the largest is more than three times as strong. A
    map of zeros gets 1, so that all of it is the centre.

    Raises:
        ValueError: `scale` or `percentile` is out of range, or both are given.
    """
    if percentile == "auto":
        percentile = None if scale is not None else _fitting(relevance)
    if isinstance(percentile, str):
        raise ValueError(f"percentile={percentile!r}; it is a number in (0, 100], or 'auto'")
    if scale is not None and percentile is not None:
        raise ValueError(f"scale={scale} and percentile={percentile} both set the end of the colours; give one")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale={scale}; it is the magnitude of the last colour, a finite number above 0")
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}; it lies in (0, 100]")
    if scale is not None:
        return np.full(len(relevance), float(scale))
    groups = np.abs(relevance).reshape(1 if shared else len(relevance), -1)
    found = [_limit(magnitudes[magnitudes > 0], percentile) for magnitudes in groups]
    return np.broadcast_to(np.array(found), len(relevance))


def _fitting(relevance: Floats) -> float | None:
    magnitudes = np.abs(relevance)
    magnitudes = magnitudes[magnitudes > 0]
    blank = magnitudes.size and magnitudes.max() > _TIMES * np.percentile(magnitudes, _MOST)
    return _MOST if blank else None


def _limit(magnitudes: Floats, percentile: float | None) -> float:
    if magnitudes.size == 0:
        return 1.0
    return float(np.percentile(magnitudes, 100 if percentile is None else percentile))


def colours(values: Floats, limit: float, cmap: ColourMap) -> RGB:
    """Values [...] as RGB bytes [..., 3]: -limit and below the first colour of the map, +limit and above the last."""
    position = (np.clip(values / limit, -1, 1) + 1) / 2  # dividing first keeps subnormal and huge limits exact
    rgba = np.asarray(colour_map(cmap)(position))
    return np.rint(255 * rgba[..., :3]).astype(np.uint8)  # matplotlib's own bytes are truncated, not rounded


def brightness(rgb: npt.NDArray[Any]) -> Floats:
    """Brightness [...] of colours [..., 3], by the weights of ITU-R BT.601.

    Term by term: the grey levels of a photo lie halfway between two bytes of an overlay, and how a matrix product
    rounds, which depends on processor and memory layout, would be seen.
    """
    return 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]


def colour_bar(fig: Figure, values: Floats, limit: float, cmap: ColourMap, **place: Any) -> Colorbar:
    """Add a colour bar in units of relevance; where values are beyond it, it has arrows and says how many are."""
    with image_extra():
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
    beyond = "both" if np.abs(values).max() > limit else "neither"
    key = ScalarMappable(Normalize(-limit, limit), colour_map(cmap))
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    bar = fig.colorbar(key, ticks=ticks, format="%.3g", extend=beyond, **place)
    if beyond == "both":
        bar.set_label(f"{100 * np.mean(np.abs(values) > limit):.2g} % stronger")
    return bar
