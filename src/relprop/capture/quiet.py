"""torch writes what it could not export to the terminal, by the page; a caller is told in the words of one error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.export import _trace


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, no warnings, no log of torch's (but what ``TORCH_LOGS`` asks for), and no graphs that it gave up."""
    known = logging.root.manager.loggerDict.items()
    loggers = [x for name, x in list(known) if name.startswith("torch.") and isinstance(x, logging.Logger)]
    silenced = [x for x in loggers if not x.disabled and (x.level == logging.NOTSET or x.level >= logging.WARNING)]
    module: Any = _trace
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in silenced:
            logger.disabled = True
        module.print = lambda *args, **kwargs: None  # a name that hides the built-in one there
        try:
            yield
        finally:
            del module.print
            for logger in silenced:
                logger.disabled = False
