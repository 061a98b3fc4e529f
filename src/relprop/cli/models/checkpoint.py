"""A network of timm with weights from a file: ``timm:resnet50:weights.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..failures import Failure, Usage, meant
from ..reading.pixels import RESAMPLING, Pixels
from .bundled import imagenet_classes
from .model import Model


def checkpoint(word: str) -> Model:
    """
    Raises:
        Usage: if there is no such network or file.
        Failure: if the weights are not those of the network, or are a pickle.
        ImportError: if timm or safetensors is missing.
    """
    name, _, file = word.partition(":")
    path = Path(file)
    if not file:
        raise Usage(f"timm:{name} needs weights, which are never fetched: timm:{name}:FILE.safetensors")
    if path.suffix.lower() != ".safetensors":
        raise Failure(
            f"weights must be .safetensors, not {file!r}: other files are pickles, and unpickling runs whatever code "
            "their author put in"
        )
    if not path.is_file():
        raise Usage(f"there is no file {file!r}")
    try:
        import timm
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f'timm:{name} needs timm and safetensors ({error}); run: pip install timm "relprop[safetensors]"'
        ) from error
    if not timm.is_model(name):
        raise Usage(f"timm has no network {name!r}; {_near(name, timm.list_models())}")
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors has an error of its own for damaged files, and none for the rest
        raise Failure(f"{file!r} cannot be read: {error}") from error
    network = _network(timm, name, weights, file)
    return Model(network, _pixels(network.pretrained_cfg), classes=_classes(network))


def _near(name: str, known: list[str]) -> str:
    told = meant(name, known)
    return told if told.startswith("did") else f"timm.list_models() names its {len(known)}"


def _network(timm: Any, name: str, weights: dict[str, Any], file: str) -> Any:
    """The network with as many classes as the file has, and its weights."""
    settings = timm.get_pretrained_cfg(name)
    head = getattr(settings, "classifier", None)
    score = weights.get(f"{head}.weight") if isinstance(head, str) else None
    options = {} if score is None else {"num_classes": int(score.shape[0])}
    network = timm.create_model(name, pretrained=False, **options)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Failure(f"{file!r} does not hold the weights of {name}: {' '.join(lines[1:2])[:200]}") from error
    return network


def _pixels(settings: dict[str, Any]) -> Pixels:
    """The preprocessing that the network was evaluated with."""
    channels, height, width = settings["input_size"]
    return Pixels(
        (height, width),
        crop=None if settings.get("crop_mode") == "squash" else settings["crop_pct"],
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        resample=RESAMPLING.get(settings["interpolation"], 3),
        gray=channels == 1,
        known=True,
    )


def _classes(network: Any) -> list[str] | None:
    names = imagenet_classes()
    return names if names is not None and network.num_classes == len(names) else None
