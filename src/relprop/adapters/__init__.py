"""relprop's results for other tools: Quantus, shap and ViRelAy."""

from .quantus import quantus_explain
from .shap import to_shap
from .virelay import to_virelay

__all__ = ["quantus_explain", "to_shap", "to_virelay"]
