"""What a model computes with NumPy, or with lists of numbers, cannot be seen: its results are constants, and told."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import OURS
from ..graph.outside import outside

LEAVES = (Tensor.numpy, Tensor.__array__, Tensor.tolist)
RETURNS = (torch.from_numpy, torch.tensor, torch.as_tensor, torch.asarray)
TORCH = os.path.dirname(torch.__file__) + os.sep


class NumpyParts(TorchFunctionMode):
    """Within it, a tensor that is made of what NumPy computed depends on the tensor that NumPy got, but is a constant.

    Attributes:
        places: where NumPy got values that are no parameters, such as ``net.py:12``.
        looked: whether values of any kind that are no parameters left torch.
    """

    def __init__(self, parameters: list[Tensor]):
        super().__init__()
        self.places: dict[str, None] = {}
        self.looked = False
        self._parameters = {p.data_ptr() for p in parameters}
        self._source: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in LEAVES and args[0].data_ptr() not in self._parameters:
            self.looked = True
            if args[0].dtype.is_floating_point:
                self._source = args[0]
                self.places[_place()] = None
        if function in RETURNS and self._source is not None and isinstance(args[0], (np.ndarray, np.generic, list)):
            return outside(self._source, result)
        return result


def _place() -> str:
    """Where in the model this is called."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TORCH, *OURS)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
