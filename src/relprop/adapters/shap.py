"""An explanation as shap's, for its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .. import view
from ..explanation import Explanation
from ..explanation.drawn import input_of
from ..extra import extra

Array = npt.NDArray[Any]


def to_shap(
    explanation: Explanation,
    *,
    tokens: Any = None,
    names: Sequence[str] | None = None,
    image: Any = None,
    wrt: str | int | None = None,
) -> Any:
    """A ``shap.Explanation`` of all samples, which ``shap.plots`` draws.

    Images are [B, H, W, C], as shap has them, the rows of a table [B, F], and texts [B, T]; several targets stand in
    the last dimension. The base value of a sample is what did not reach this input (biases and other sinks), so that
    base value and values sum to what was explained. Unlike the base value of shap it is no expectation over data.

    Args:
        explanation: as ``lrp.explain`` returns it.
        tokens: the words of texts: one string per position (of one text), a list of these for each sample, or the
            tokenizer of the ids [B, T].
        names: one per feature of a table.
        image: the photos to show, [B, H, W, C] in [0, 1]; by default the inputs, stretched to [0, 1].
        wrt: name or position of the input, if several have relevance.

    Raises:
        ValueError: if there is no such input, or the words or names do not fit.
        ImportError: if the extra ``relprop[shap]`` is not installed.
    """
    with extra("shap", "shap's pictures need shap"):
        import shap
    _, relevance, given = input_of(explanation, wrt)
    values = relevance.detach().cpu() if explanation.several else relevance.detach().cpu()[None]
    if values.ndim < 3:
        raise ValueError(f"relevance is of shape {list(values.shape[1:])}; shap shows samples of several features")
    words = _words(tokens, given)
    if words is not None and values.ndim == 4:  # embeddings
        values = values.sum(-1)
    base = explanation.value.detach().cpu() - values.flatten(2).sum(-1)
    data: Any = given.detach().cpu()
    if words is not None:
        data = words
    elif values.ndim == 5:
        values, data = values.movedim(2, -1), _photos(image, data)
    if data.shape != values.shape[1:]:
        raise ValueError(f"relevance is of shape {list(values.shape[1:])}, and what it is of is {list(data.shape)}")
    if names is not None and len(names) != values.shape[2]:
        raise ValueError(f"{len(names)} names for {values.shape[2]} features")
    several = explanation.several
    return shap.Explanation(
        values=(values.movedim(0, -1) if several else values[0]).numpy(),
        base_values=(base.movedim(0, -1) if several else base[0]).numpy(),
        data=np.asarray(data),
        feature_names=None if names is None else list(names),
        output_names=[_name(part) for part in explanation.parts] if several else None,
    )


def _name(part: Explanation) -> str:
    """Of a target, if it is the same for all samples."""
    names = {part.name(i) for i in range(len(part))}
    return names.pop() if len(names) == 1 else part.name()


def _photos(image: Any, given: Tensor) -> Array:
    """[B, H, W, C] in [0, 1]."""
    return np.moveaxis(view.stretch(given), 1, -1) if image is None else np.asarray(image)


def _words(tokens: Any, given: Tensor) -> Array | None:
    """The words of all samples, [B, T], if there are any."""
    if tokens is None:
        return None if given.dtype.is_floating_point else np.array([[f"{i} " for i in row] for row in given.tolist()])
    if hasattr(tokens, "convert_ids_to_tokens"):
        if given.dtype.is_floating_point or given.ndim != 2:
            raise ValueError(f"a tokenizer names ids [B, T]; the inputs are {list(given.shape)} of {given.dtype}")
        return np.array([view.spaced(tokens.convert_ids_to_tokens(row)) for row in given.tolist()])
    rows = [tokens] if len(tokens) and isinstance(tokens[0], str) else list(tokens)
    if [len(row) for row in rows] != [given.shape[1]] * len(given):
        raise ValueError(f"tokens must be {given.shape[1]} strings for each of {len(given)} samples")
    return np.array(rows)
