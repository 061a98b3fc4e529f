"""A page on this machine: ``relprop serve``. It stands on the public face alone.

Two processes. The one that serves the page (``server.py``, ``page.py``, ``panel.py``) never decodes a picture and never
runs a model; the other one (``worker.py``, ``answers.py``) does nothing else, and can be killed. ``desk.py`` stands
between them: one job at a time, in turn, each with a time limit. What they say to each other is plain data, of
``asked.py``.
"""

from .server import serve
from .subject import Limits, Refused, Sample, Subject

__all__ = ["Limits", "Refused", "Sample", "Subject", "serve"]
