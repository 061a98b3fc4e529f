"""Which pixels made a reader of text see one character rather than the next best?

EasyOCR's reader takes a line of the page that scikit-image ships, by convolutions and two LSTMs. Pictures of its
characters go to ``out/``.

    make weights
    python examples/reader.py --characters 0 6 13
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import real_models
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import relprop
from relprop import rules, select, targets, view

LINE = (0, 64, 384, 88)  # left, top, right, bottom: "background. These markers are pixels that we can label"

# Over 255 steps the usual ε = 0.001 lets relevance grow ten thousand times, far from the character; this holds it.
COMPOSITE = relprop.Composite(
    [
        (select.recurrent(), rules.Recurrent(epsilon=0.1)),
        (select.convolution() | select.affine(), rules.ZPlus()),
        (select.dense(), rules.Epsilon(0.001)),
    ],
    name="reader",
)


def line() -> Image.Image:
    """A line of the page, 64 pixels high as the reader wants it."""
    page = Image.open(real_models.files("skimage") / "data" / "page.png").convert("L").crop(LINE)
    return page.resize((page.width * 64 // page.height, 64), Image.Resampling.BICUBIC)


def preprocess(image: Image.Image) -> Tensor:
    """An image as the reader wants it, [1, 64, W] in [-1, 1]."""
    return torch.from_numpy(np.array(image, dtype=np.float32) / 127.5 - 1)[None]


def why(scores: Tensor, step: int) -> tuple[targets.Scalar, str]:
    """The best character of a step rather than the next best (the blank is none), and that one."""
    order = [i for i in scores[step].argsort(descending=True).tolist() if i > 0]
    target = targets.contrast(targets.token(step, order[0]), targets.token(step, order[1]))
    return target, real_models.Reader.CHARACTERS[order[1] - 1]


def figure(image: Image.Image, relevance: Tensor, titles: list[str]) -> Figure:
    """The line, coloured by the relevance for each of its characters, one below the other."""
    fig = Figure(figsize=(10, 1.1 * len(titles)), layout="constrained")
    grey = torch.from_numpy(np.array(image)).expand(len(titles), 1, -1, -1)
    rows = view.overlay(relevance, grey, percentile=99.5)
    for ax, row, title in zip(fig.subplots(len(titles), squeeze=False)[:, 0], rows, titles, strict=True):
        ax.imshow(row)
        ax.set_title(title)
        ax.set_axis_off()
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description="Which pixels made a reader see one character rather than another?")
    parser.add_argument("--characters", nargs="+", type=int, default=[0, 6, 18], help="positions in the line")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    image, model = line(), real_models.reader()
    x = preprocess(image)[None]
    with torch.no_grad():
        scores = model(x)[0]
    read = real_models.Reader.text(scores)
    print(f"reads {''.join(character for character, _ in read)!r}\n")
    chosen = [read[i] for i in options.characters]
    reasons = [why(scores, step) for _, step in chosen]
    explanation = relprop.LRP(model, COMPOSITE).explain(x, target=[target for target, _ in reasons])
    titles = []
    for i, ((character, step), (_, other)) in enumerate(zip(chosen, reasons, strict=True)):
        columns = explanation.relevance[i, 0, 0].abs().sum(0)
        centre = float((columns * torch.arange(len(columns))).sum() / columns.sum())
        titles.append(f"{character!r} rather than {other!r}: {float(explanation.value[i, 0]):.1f}")
        print(f"{titles[-1]}; it is at pixel {4 * step + 4}, relevance around {centre:.0f}")
        print(explanation.ledger[i].table(largest=3), "\n")
    path = options.out / "reader.png"
    view.save(path, figure(image, explanation.relevance[:, 0], titles))
    print(f"a row for each character is in {path.resolve()}")


if __name__ == "__main__":
    main()
