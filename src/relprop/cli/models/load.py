"""Which of its forms MODEL has."""

from __future__ import annotations

import json
from pathlib import Path

from ..failures import Failure, Usage
from ..options import InputOptions, ModelOptions
from .model import Model

FORMS = (
    "MODEL is a .pt2 or .onnx file, package.module:factory, a folder of Hugging Face, timm:NAME:FILE.safetensors, or "
    "example:lite0"
)
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".t7"}


def load(word: str, options: ModelOptions, inputs: InputOptions) -> Model:
    """The model that a word stands for, ready to be explained.

    Raises:
        Usage: if the word is none of the forms, or names a file or a model that is not there.
        Failure: if it cannot be loaded, or is of a kind that never is.
    """
    classes = None if options.classes is None else class_names(options.classes)
    model = _found(word)
    if options.tokenizer is not None:
        from .folder import tokenizer_of

        model.tokenizer = tokenizer_of(options.tokenizer)
    model.classes = classes or model.classes
    model.pixels = model.pixels.changed(inputs.size, inputs.mean, inputs.std, inputs.gray)
    _place(model, options)
    return model


def _found(word: str) -> Model:
    scheme, _, rest = word.partition(":")
    path = Path(word)
    if scheme == "example":
        from .bundled import bundled

        return bundled(rest)
    if scheme == "timm":
        from .checkpoint import checkpoint

        return checkpoint(rest)
    if path.is_dir():
        from .folder import folder

        return folder(path)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise Failure(
            f"{word!r} is a pickle, which is never loaded: unpickling runs whatever code its author put in. Save the "
            "program with torch.export.save as .pt2, or the weights as .safetensors, and name the network as "
            "package.module:factory"
        )
    if suffix == ".safetensors":
        raise Usage(f"{word!r} holds weights without a network: give timm:NAME:{word}, or package.module:factory")
    if suffix in (".pt2", ".onnx"):
        if not path.is_file():
            raise Usage(f"there is no file {word!r}")
        return Model(path)
    if rest and not path.exists():
        from .factory import factory

        return factory(word)
    raise Usage(f"{word!r} is no model{'' if path.exists() else ' and no file'}. {FORMS}")


def _place(model: Model, options: ModelOptions) -> None:
    """The model on its device and in its precision, in evaluation mode."""
    model.device, model.double = options.device, options.double
    if isinstance(model.runs, Path):
        if options.device != "cpu" or options.double:
            raise Usage(f"{str(model.runs)!r} runs as it was saved: leave out --device and --double")
        return
    import torch

    try:
        model.runs = model.runs.eval().to(torch.device(options.device))
    except (RuntimeError, AssertionError) as error:
        raise Usage(f"--device {options.device}: {str(error).splitlines()[0]}") from error
    if options.double:
        model.runs = model.runs.double()


def class_names(path: Path) -> list[str]:
    """One name a line, or a list in JSON.

    Raises:
        Usage: if there is no such file.
        Failure: if it is no list of names.
    """
    if not path.is_file():
        raise Usage(f"--classes: there is no file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix.lower() == ".json" else [x for x in text.splitlines() if x.strip()]
    except ValueError as error:
        raise Failure(f"--classes {str(path)!r} cannot be read: {error}") from error
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found, key=int)] if all(key.isdigit() for key in found) else None
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise Failure(f"--classes {str(path)!r} holds no list of names, one for each class in order")
    return found
