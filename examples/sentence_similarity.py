"""Which pairs of words make two sentences similar?

The similarity is the dot product of two sentence embeddings of all-MiniLM-L6-v2, divided by their lengths. BiLRP
(Eberle et al. 2020) shares it among pairs of tokens; a heatmap goes to ``out/``.

    make weights
    python examples/sentence_similarity.py "A cat sleeps on the sofa." "The kitten naps on the couch."
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import real_models
import torch
from matplotlib.figure import Figure
from torch import Tensor

import relprop
from relprop import view


def encode(tokenizer: Any, sentence: str) -> tuple[dict[str, Tensor], list[str]]:
    """The model's arguments, and the tokens."""
    encoded = tokenizer(sentence, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    return inputs, tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])


def figure(pairs: Tensor, rows: list[str], columns: list[str], title: str) -> Figure:
    """Tokens of the first sentence down, of the second across."""
    fig = Figure(figsize=(2 + 0.5 * len(columns), 2 + 0.4 * len(rows)), layout="constrained")
    ax, end = fig.subplots(), float(pairs.abs().max())
    drawn = ax.imshow(pairs, cmap="bwr", vmin=-end, vmax=end)
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    fig.colorbar(drawn)
    fig.suptitle(title)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description="Which pairs of words make two sentences similar?")
    parser.add_argument("first", nargs="?", default="A cat sleeps on the sofa.")
    parser.add_argument("second", nargs="?", default="The kitten naps on the couch.")
    parser.add_argument("--composite", default="auto", help="a name in relprop.composites")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    tokenizer, model = real_models.sentence_encoder()
    (one, rows), (two, columns) = (encode(tokenizer, text) for text in (options.first, options.second))
    with torch.no_grad():
        a, b = model(**one)[0], model(**two)[0]
    lengths = float(a.norm() * b.norm())
    pairs = relprop.bilrp(relprop.LRP(model, options.composite), one, two)[0] / lengths

    similarity = float(a @ b) / lengths
    print(f"{options.first!r}, {options.second!r}: cosine {similarity:.3f}")
    print(f"pairs of tokens explain {float(pairs.sum()):.3f} of it; biases, and softmaxes on both sides, took the rest")
    for i in pairs.flatten().argsort(descending=True)[:10].tolist():
        row, column = divmod(i, len(columns))
        print(f"{rows[row]:>15} - {columns[column]:<15} {float(pairs[row, column]):7.3f}")
    path = options.out / "sentence_similarity.png"
    view.save(path, figure(pairs, rows, columns, f"cosine {similarity:.2f}"))
    print(f"all pairs are in {path.resolve()}")


if __name__ == "__main__":
    main()
