"""Whatever went wrong, in one sentence for a page."""

from __future__ import annotations

from .subject import Refused

_LONGEST = 400


def sentence(error: BaseException) -> str:
    """Why it cannot be done; never a traceback."""
    from relprop.errors import RelpropError

    said = " ".join(str(error).split())
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]} …"
    if isinstance(error, MemoryError):
        return "There is not enough memory for this; a smaller input may help."
    if isinstance(error, (Refused, RelpropError, ValueError, ImportError)) and said:
        return said
    return f"The model failed: {type(error).__name__}{': ' if said else ''}{said}"
