"""The optional dependencies of the views, imported where they are used and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager


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
