"""From the word MODEL to a model, with what it reads and what its classes are called."""

from .load import load
from .model import Model

__all__ = ["Model", "load"]
