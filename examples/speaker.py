"""Which moments of a recording made two clips the same voice?

An LSTM hears two sentences, spoken by one voice or by two, and puts each on a sphere: the closer, the more alike. The
target is the cosine to the other clip. Voices are synthetic (eSpeak NG), the encoder learned from real ones. Relevance
over time goes to ``out/``.

    make weights
    python examples/speaker.py --voices en+m3 en+f2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import real_models
import torch
from torch import Tensor

import relprop
from relprop import view

KNOWN = "The quick brown fox jumps over the lazy dog near the river."
NEW = "She sells sea shells by the sea shore every summer morning."


def clip(text: str, voice: str) -> Tensor:
    """What the encoder hears, [1, T, 40]."""
    return real_models.mel(real_models.speech(text, voice))[None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Which moments made two clips the same voice?")
    parser.add_argument("--voices", nargs="+", default=["en+m3", "en+f2"], help="the first one is the known voice")
    parser.add_argument("--composite", default="auto", help="a name in relprop.composites")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    encoder = real_models.voice_encoder()
    with torch.no_grad():
        known = encoder(clip(KNOWN, options.voices[0]))[0]
    lrp = relprop.LRP(encoder, options.composite)
    for voice in options.voices:
        explanation = lrp.explain(clip(NEW, voice), target=lambda embedding: embedding @ known)
        title = f"{voice} compared with {options.voices[0]}: cosine {float(explanation.value):.2f}"
        frames = explanation.relevance[0].sum(1)
        print(f"{title}\n{explanation.ledger.table(largest=3)}")
        loudest = [f"{i / 100:.2f} s" for i in sorted(frames.argsort(descending=True)[:8].tolist())]
        print(f"most relevant moments: {', '.join(loudest)}\n")
        loudness = explanation.inputs[0].sum(1).log10()
        view.save(options.out / f"speaker_{voice}.png", view.series(frames, loudness, title=title))
    print(f"{len(options.voices)} pictures (a step is 10 ms, the line is loudness) are in {options.out.resolve()}")


if __name__ == "__main__":
    main()
