"""Optional dependencies, imported where they are used and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, needs: str) -> Iterator[None]:
    """Guard the import of what an extra brings.

    Args:
        name: of the extra.
        needs: what needs which packages, such as "drawing relevance needs matplotlib and pillow".

    Raises:
        ImportError: something is missing; the message names the extra that brings it.
    """
    try:
        yield
    except ImportError as error:
        message = f'{needs} ({error}); run: pip install "relprop[{name}]"'
        raise ImportError(message, name=error.name, path=error.path) from error
