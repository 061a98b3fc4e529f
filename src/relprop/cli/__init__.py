"""The command line: ``relprop explain MODEL INPUT``. It stands on the public face alone.

``main.py`` runs a command and turns whatever goes wrong into one line; ``commands/`` has a file for each command;
``models/`` and ``reading/`` make models and tensors of what was typed. Nothing heavy is imported before it is needed,
so that help comes at once.
"""

from .main import main

__all__ = ["main"]
