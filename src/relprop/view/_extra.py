"""What draws, imported where it is used and nowhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from relprop.extra import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_extra() -> AbstractContextManager[None]:
    """Guard the import of matplotlib or pillow.

    Raises:
        ImportError: one of them is missing; the message names the extra that brings both.
    """
    return extra("image", "drawing relevance needs matplotlib and pillow")


def new_figure(**options: Any) -> Figure:
    """An empty figure, which shows itself in a notebook.

    Raises:
        ImportError: the extra `relprop[image]` is not installed.
    """
    with image_extra():
        import matplotlib.figure  # noqa: F401 (asked for at every call, whatever was imported before)

        from relprop.view.shown import ShownFigure
    return ShownFigure(**options)
