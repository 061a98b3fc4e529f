"""Which pixels made a vision transformer find a part of a photograph salient?

DINOv2 ViT-S/14 with a decoder scores every pixel. The target is the score of all pixels that it takes for salient,
summed; heatmaps go to ``out/``.

    make weights
    python examples/vision_transformer.py --photos camera flower
"""

from __future__ import annotations

import argparse
from pathlib import Path

import demo
import numpy as np
import real_models
import torch
from PIL import Image
from torch import Tensor

import relprop

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def preprocess(image: Image.Image) -> Tensor:
    """An image as the network wants it, [3, 224, 224]."""
    return ((torch.from_numpy(np.array(image)) / 255 - MEAN) / DEVIATION).permute(2, 0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Which pixels made a vision transformer find a region salient?")
    parser.add_argument("--photos", nargs="+", default=["camera", "coffee", "flower"], metavar="NAME")
    parser.add_argument("--gamma", type=float, default=0.05, help="γ of the linear layers; 0 is LRP-ε")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    lrp = relprop.LRP(real_models.saliency_network(), relprop.composites.attnlrp(gamma=options.gamma))
    for name in options.photos:
        image = demo.crop(demo.photo(name))
        explanation = lrp.explain(preprocess(image)[None], target=lambda scores: scores.relu().flatten(1).sum(1))
        salient = float((explanation.output > 0).float().mean())
        print(f"{name}: {salient:.0%} of the picture are salient\n{explanation.ledger.table(largest=3)}\n")
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        path = options.out / f"vision_transformer_{name}.png"
        explanation.save(path, image=picture, title=f"{name}: what is salient, and why", percentile=99.5)
    print(f"{len(options.photos)} pictures are in {options.out.resolve()}")


if __name__ == "__main__":
    main()
