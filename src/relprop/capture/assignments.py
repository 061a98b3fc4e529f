"""Weights that a forward assigns through ``.data`` are written down, as those are that it changes in place.

Layers that keep their weights below a largest norm do so (EEGNet). torch takes what is assigned so for no operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Assignments(TorchFunctionMode):
    """Within it, ``x.data`` is ``x.detach()``, and ``x.data = y`` is ``x.copy_(y)``."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function == GET:
            return args[0].detach()
        if function == SET and args[0].shape == args[1].shape:
            with torch.no_grad():
                args[0].copy_(args[1])
            return None
        return function(*args, **(kwargs or {}))


GET, SET = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]
