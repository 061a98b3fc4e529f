"""Makes torchvision importable where its compiled operators are not.

A torchvision wheel built for another torch (CUDA beside CPU) cannot load its C++ library, and then its own import
fails on operators that nobody declared. Importing this module before torchvision, timm or transformers declares
them; they still cannot run. It does nothing where the library loads or torchvision is absent.
"""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch

_DECLARED = ("nms", "qnms")  # what torchvision/_meta_registrations.py names without asking whether it is there
_library = None  # a declaration lives as long as its library object


def _has_operators(package: Path) -> bool:
    for file in package.glob("_C.*"):
        with suppress(OSError):
            torch.ops.load_library(file)
    return hasattr(torch.ops.torchvision, "nms")


if (_spec := find_spec("torchvision")) and _spec.origin and not _has_operators(Path(_spec.origin).parent):
    _library = torch.library.Library("torchvision", "DEF")
    for _name in _DECLARED:
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
