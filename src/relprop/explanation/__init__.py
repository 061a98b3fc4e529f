"""The result of an explanation, and how it shows itself.

What is drawn is chosen here; how it is drawn is the matter of :mod:`relprop.view`, which knows arrays only.
"""

from .explanation import Explanation, report
from .verification import Finding, verify

load = Explanation.load

__all__ = ["Explanation", "Finding", "load", "report", "verify"]
