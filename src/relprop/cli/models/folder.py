"""A folder as Hugging Face's libraries save models: config.json, weights, tokenizer or preprocessor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..failures import Failure, Usage
from ..reading.pixels import Pixels
from .model import Model


def folder(path: Path) -> Model:
    """
    Raises:
        Usage: if the folder holds no model.
        Failure: if the model cannot be loaded, or weights are missing or pickled.
        ImportError: if transformers is missing.
    """
    config = _json(path / "config.json")
    if config is None:
        raise Usage(f"folder {str(path)!r} holds no config.json: it is no model of Hugging Face")
    names = config.get("architectures") or []
    if not names:
        raise Failure(f"{str(path / 'config.json')!r} does not say which architecture it is ('architectures')")
    if not any(path.glob("*.safetensors")):
        raise Failure(
            f"folder {str(path)!r} holds no .safetensors; other weights are pickles, which are never loaded, as "
            "unpickling runs whatever code their author put in. Save it with model.save_pretrained(folder)"
        )
    transformers = _transformers()
    kind = getattr(transformers, names[0], None)
    if kind is None:
        raise Failure(f"transformers {transformers.__version__} has no {names[0]}, which {str(path)!r} asks for")
    model = Model(_loaded(kind, path), _pixels(path))
    if any((path / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        model.tokenizer = tokenizer_of(path)
    causal = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    model.is_causal = names[0] in causal.values()
    return model


def tokenizer_of(path: Path) -> Any:
    """
    Raises:
        Usage: if there is no such folder.
        Failure: if it holds no tokenizer.
    """
    if not path.is_dir():
        raise Usage(f"--tokenizer: there is no folder {str(path)!r}")
    try:
        return _transformers().AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise Failure(f"folder {str(path)!r} holds no tokenizer that can be loaded: {str(error)[:200]}") from error


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f'a folder of Hugging Face needs transformers ({error}); run: pip install "relprop[text]"'
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _loaded(kind: Any, path: Path) -> Any:
    try:
        model, told = kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # whatever transformers, safetensors and torch say of a folder that is not whole
        raise Failure(f"folder {str(path)!r} cannot be loaded: {type(error).__name__}: {str(error)[:300]}") from error
    if told["missing_keys"]:
        missing = sorted(told["missing_keys"])
        raise Failure(
            f"folder {str(path)!r} lacks {len(missing)} weights ({', '.join(missing[:3])}): they would be random"
        )
    return model


def _pixels(path: Path) -> Pixels:
    """What preprocessor_config.json says of pictures."""
    told = _json(path / "preprocessor_config.json")
    if not told:
        return Pixels()
    whole, cropped = _size(told.get("size")), _size(told.get("crop_size"))
    size, crop = whole, None
    if told.get("do_center_crop") and cropped and whole:
        size, crop = cropped, min(1.0, cropped[0] / whole[0])
    elif isinstance(told.get("size"), dict) and "shortest_edge" in told["size"]:
        crop = 1.0
    scale = 255 * told.get("rescale_factor", 1 / 255)
    normalises = told.get("do_normalize", True) and "image_mean" in told
    mean, std = (told["image_mean"], told["image_std"]) if normalises else ([0.0], [1.0])
    return Pixels(
        size,
        crop=crop,
        mean=tuple(m / scale for m in mean),
        std=tuple(s / scale for s in std),
        resample=told.get("resample", 3),
        known=True,
    )


def _size(told: Any) -> tuple[int, int] | None:
    if isinstance(told, int):
        return told, told
    if isinstance(told, dict) and "shortest_edge" in told:
        return told["shortest_edge"], told["shortest_edge"]
    if isinstance(told, dict) and "height" in told:
        return told["height"], told["width"]
    return None


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Failure(f"{str(path)!r} is no JSON: {error}") from error
    return found if isinstance(found, dict) else None
