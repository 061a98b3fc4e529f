"""``--target``: numbers, names of classes, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .failures import Usage

if TYPE_CHECKING:
    from .models import Model

PREDICTED = "predicted"


def target_of(words: Sequence[str], model: Model, inputs: Any) -> Any:
    """What ``LRP.explain`` is given as target; several are explained side by side.

    Args:
        words: a class by number or name each, or "predicted"; of a language model a token as text.
        model: that is explained.
        inputs: of the samples, as the model reads them.

    Raises:
        Usage: if a text is no single token.
    """
    from relprop.targets import several

    chosen = [_token(word, model, inputs) if model.is_causal else _class(word) for word in words or [PREDICTED]]
    return several(chosen) if len(chosen) > 1 else chosen[0]


def _class(word: str) -> int | str | None:
    if word == PREDICTED:
        return None
    return int(word) if word.removeprefix("-").isdigit() else word


def _token(word: str, model: Model, inputs: Any) -> Any:
    """The next token of a text."""
    import torch

    from relprop.targets import scores, token

    if word != PREDICTED:
        ids = model.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            parts = ", ".join(repr(model.tokenizer.decode([i])) for i in ids)
            raise Usage(f"--target {word!r} is {len(ids)} tokens ({parts}); give one")
        return token(-1, ids[0])
    from torch import nn

    assert isinstance(model.runs, nn.Module)
    with torch.inference_mode():
        best = scores(model.runs(**inputs))[:, -1].argmax(-1)
    return token(-1, best.clone())
