"""How faithful explanations are: methods measured on the same samples, against baselines, with intervals."""

from .result import Evaluation
from .run import evaluate

__all__ = ["Evaluation", "evaluate"]
