"""BiLRP: which pairs of features make two inputs similar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..engine.given import Given
from ..engine.question import Question, Wrt
from ..engine.session import Session
from ..errors import TargetError
from ..graph.graph import Graph
from ..graph.modes import own_modes
from ..lrp import LRP
from ..progress import Progress, bar
from ..targets import class_index, main_output


@own_modes()
def bilrp(
    lrp: LRP,
    a: Any,
    b: Any,
    *,
    wrt: Wrt = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
    progress: bool = True,
) -> Tensor:
    """Relevance of pairs of features for the similarity of two inputs (Eberle et al. 2020, BiLRP).

    A model that embeds its inputs makes them similar by the dot product of the embeddings, <φ(a), φ(b)>. Each of its
    terms is explained on both sides, and a pair of features gets the product of its relevances::

        R_jk = Σ_m R_j[φ_m(a)] R_k[φ_m(b)]

    Where LRP conserves, the sum over all pairs is the similarity itself. The forward pass runs once for each input; the
    reverse pass runs once for each dimension of the embedding.

    Args:
        lrp: the model, with an output [B, M]; for the cosine, let the model divide by the norm.
        a, b: two inputs, or batches of as many, as in :meth:`LRP.attribute`.
        wrt: the input to explain, if there are several: its name or position.
        reduce: makes fewer features of relevance before pairs are formed, such as ``lambda r: r.sum(1)`` for the
            channels of [B, C, H, W]. Pairs of single pixels would be too many.
        progress: show how far it is, on a terminal and where tqdm is installed.

    Returns:
        [B, features of a, features of b]; [B, T, T'] for tokens.

    Raises:
        TargetError: if the output is no [B, M].
        ValueError: if several inputs have relevance and ``wrt`` names none, or the batches differ.
        InputError, CaptureError, UnsupportedOperation: as :meth:`LRP.attribute`.
    """
    one, two = (
        _factor(lrp.session, x, wrt, reduce, bar(f"bilrp: {name}") if progress else iter)
        for x, name in ((a, "a"), (b, "b"))
    )
    if one.shape[:2] != two.shape[:2]:
        raise ValueError(f"a has {one.shape[1]} samples and b {two.shape[1]}: BiLRP explains pairs")
    pairs = torch.einsum("mbj,mbk->bjk", one.flatten(2), two.flatten(2))
    return pairs.reshape(one.shape[1], *one.shape[2:], *two.shape[2:])


def _factor(
    session: Session, x: Any, wrt: Wrt, reduce: Callable[[Tensor], Tensor] | None, progress: Progress
) -> Tensor:
    """Relevance for every dimension of the embedding, [M, B, ...]."""
    given = Given.of(x)
    # by functions, so that an embedding that ends in a sigmoid is explained itself, and not the score behind it
    question = Question(tuple(class_index(m) for m in range(_dimensions(session.graph(given)))), wrt=wrt)
    found = []
    for _, answer in zip(progress(list(question.targets)), session.answers(given, question), strict=True):
        relevances = [r for r in answer.relevances if r is not None]
        if len(relevances) != 1:
            raise ValueError(f"{len(relevances)} inputs have relevance: choose one with wrt=")
        found.append(relevances[0] if reduce is None else reduce(relevances[0]))
    return torch.stack(found)


def _dimensions(graph: Graph) -> int:
    """Length of the embedding."""
    values = [getattr(output, "meta", {}).get("val", output) for output in graph.outputs]
    shape = values[main_output(values, graph.unflatten_output)].shape
    if len(shape) != 2:
        raise TargetError(f"BiLRP needs a model with one embedding per sample, [B, M], not {len(shape)} dimensions.")
    return int(shape[1])
