"""The optional dependencies of the views, imported where they are used and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def image_extra() -> Iterator[None]:
    """Guard the import of matplotlib or pillow.

    Raises:
        ImportError: one of them is missing; the message names the extra that brings both.
    """
    try:
        yield
    except ImportError as error:
        message = f'drawing relevance needs matplotlib and pillow ({error}); run: pip install "relprop[image]"'
        raise ImportError(message, name=error.name, path=error.path) from error


def new_figure(**options: Any) -> Figure:
    """An empty figure, which shows itself in a notebook.

    Raises:
        ImportError: the extra `relprop[image]` is not installed.
    """
    with image_extra():
        import matplotlib.figure  # noqa: F401 (asked for at every call, whatever was imported before)

        from relprop.view.shown import ShownFigure
    return ShownFigure(**options)
