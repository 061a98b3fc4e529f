"""Which words made a language model say " Paris", and which of them " Paris" rather than " London"?

SmolLM2-135M goes on with a text; relevance of every token for its next one goes to ``out/`` as a picture and as HTML.

    make weights
    python examples/language_model.py
    python examples/language_model.py "The opposite of hot is" --rather-than " warm"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import real_models

import relprop
from relprop import targets


def encode(tokenizer: Any, *texts: str) -> dict[str, Any]:
    """The model's arguments for texts of one length in tokens."""
    return dict(tokenizer(list(texts), return_tensors="pt"))


def word(tokenizer: Any, text: str) -> int:
    """The first token of a text, which should begin with a space if a word of its own is meant."""
    return int(tokenizer.encode(text)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Which words made a language model say its next one?")
    parser.add_argument("text", nargs="?", default="The capital of France is")
    parser.add_argument("--rather-than", default=" London", help="the word to compare the next one with")
    parser.add_argument("--composite", default="auto", help="a name in relprop.composites")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    tokenizer, model = real_models.language_model()
    inputs = encode(tokenizer, options.text)
    said, other = int(model(**inputs).logits[0, -1].argmax()), word(tokenizer, options.rather_than)
    says, rather = (targets.token(-1, one) for one in (said, other))
    lrp = relprop.LRP(model, options.composite)
    explanation = lrp.explain(inputs, target=[says, targets.contrast(says, rather)])

    tokens = [tokenizer.decode([i]) for i in inputs["input_ids"][0]]
    titles = [f"{tokenizer.decode([said])!r}", f"{tokenizer.decode([said])!r} rather than {options.rather_than!r}"]
    pages = []
    for which, (title, name) in enumerate(zip(titles, ("says", "rather"), strict=True)):
        relevance, value = explanation.relevance["input_ids"][which, 0], float(explanation.value[which, 0])
        print(f"{options.text!r} -> {title}: {value:.2f}")
        for token, r in zip(tokens, relevance.tolist(), strict=True):
            print(f"{token!r:>20} {r:8.2f}")
        print(explanation.ledger[which].table(largest=3), "\n")
        explanation.save(options.out / f"language_model_{name}.png", tokens=tokens, which=which, title=title)
        pages.append(explanation.html(tokens, which=which, title=title))
    (options.out / "language_model.html").write_text("\n".join(pages), encoding="utf-8")
    print(f"language_model.html and two pictures are in {options.out.resolve()}")


if __name__ == "__main__":
    main()
