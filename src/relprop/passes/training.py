"""A model in training mode gives another answer at every call: refuse it."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..errors import CaptureError
from ..graph.graph import Graph, calls, place

aten = torch.ops.aten


def refuse_training_mode(graph: Graph) -> None:
    """Raise if the graph drops out at random or normalises by the statistics of the batch."""
    for node in graph.nodes:
        if calls(node) and _is_training(node):
            raise CaptureError(
                f"the model is in training mode: {place(node)} is random, or uses the statistics of the batch. "
                "Call model.eval() before explaining it (and model.train() again afterwards)."
            )


def _is_training(node: Node) -> bool:
    target: Any = node.target
    args: Any = node.args
    if target is aten.dropout.default:
        return bool(args[2]) and bool(args[1] != 0)
    if target is aten.native_dropout.default:
        return bool(args[2]) and bool(args[1] != 0)
    if target in (aten._native_batch_norm_legit.default, aten._native_batch_norm_legit_functional.default):
        return bool(args[5])
    if target is aten.batch_norm.default:
        return bool(args[5])
    if target in (aten.bernoulli.default, aten.bernoulli.p, aten.alpha_dropout.default, aten.feature_dropout.default):
        return True
    if target in (aten.lstm.input, aten.gru.input):
        return bool(args[6]) and bool(args[5] != 0)
    if target in (aten.lstm.data, aten.gru.data):
        return bool(args[7]) and bool(args[6] != 0)
    if target is aten.scaled_dot_product_attention.default:
        return bool(node.kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0) != 0)
    return False
