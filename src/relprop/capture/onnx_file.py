"""ONNX files: onnx2pytorch makes a model of them."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import CaptureError, reason_of


def read(path: Path) -> nn.Module:
    """The model that an ONNX file holds. Its modules are called by operation and result, such as ``Gemm_logits``.

    Raises:
        ImportError: if packages are missing that this needs, or do not fit each other.
        CaptureError: if the file is missing or damaged, or has an operation that onnx2pytorch does not know.
    """
    onnx, ConvertModel = _packages()
    if not path.is_file():
        raise CaptureError(f"there is no file {str(path)!r}.")
    try:
        file = onnx.load(str(path))
        onnx.checker.check_model(file)
    except Exception as error:  # protobuf and onnx have no common base class for what can be wrong with a file
        raise CaptureError(f"{str(path)!r} is no ONNX file, or it is damaged: {reason_of(error)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ConvertModel(file)
    except Exception as error:  # of many kinds, for what onnx2pytorch does not know
        raise CaptureError(f"{str(path)!r} has what onnx2pytorch cannot turn into torch: {reason_of(error)}") from error
    _rename(model)
    return model.eval()


def arguments_of(model: nn.Module) -> list[str]:
    """What an ONNX file calls its inputs."""
    return [str(name) for name in model.input_names]  # type: ignore[union-attr]


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        from onnx2pytorch import ConvertModel
    except ImportError as error:
        raise ImportError(
            f'reading ONNX needs onnx and onnx2pytorch ({error}); run: pip install "relprop[onnx]"'
        ) from error
    except RuntimeError as error:  # operators of torchvision are missing
        raise ImportError(
            f"onnx2pytorch, which reads ONNX, cannot be imported ({reason_of(error)}): the torchvision that is "
            "installed was built for another torch. Install the one that belongs to yours (the same CPU or CUDA "
            'build), then pip install "relprop[onnx]".'
        ) from error
    return onnx, ConvertModel


def _rename(model: Any) -> None:
    """Let every module have a name that torch can look up: without dots, and without slashes."""
    taken = Counter[str]()
    for output, name in model.mapping.items():
        if name not in model._modules:
            continue
        new = re.sub(r"\W+", "_", name)
        taken[new] += 1
        new = f"{new}_{taken[new]}" if taken[new] > 1 else new
        model._modules[new] = model._modules.pop(name)
        model.mapping[output] = new
