"""Recurrent layers stay whole while a model is exported.

To learn the shape of an LSTM's output, torch.export runs the layer in Python, step by step, with symbolic sizes:
seconds for a hundred steps, and a graph for sequences of that length only. While a model is exported, its layers
therefore call operations of our own that state their shapes. The first pass over the graph puts torch's back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import CaptureError
from ..graph import Graph, calls

aten = torch.ops.aten

_LIBRARY = torch.library.Library("relprop", "DEF")
_REST = "Tensor[] params, bool biases, int layers, float dropout, bool train, bool bidirectional, bool batch_first"
_WHOLE: dict[Any, Any] = {}
"""What a layer calls -> the operation that stands for it."""
_TORCH: dict[Any, Any] = {}
"""That operation -> torch's."""


def _shapes(x: Tensor, states: Any, params: Any, *options: Any) -> tuple[Tensor, ...]:
    directions = 2 if options[-2] else 1
    states = states if isinstance(states, (list, tuple)) else [states]
    sequence = x.new_empty(*x.shape[:2], directions * states[0].shape[2])
    return (sequence, *(s.new_empty(s.shape) for s in states))


for _name, _states, _results, _original in (
    ("lstm", "Tensor[] hx", "(Tensor, Tensor, Tensor)", aten.lstm.input),
    ("gru", "Tensor hx", "(Tensor, Tensor)", aten.gru.input),
    ("rnn_tanh", "Tensor hx", "(Tensor, Tensor)", aten.rnn_tanh.input),
    ("rnn_relu", "Tensor hx", "(Tensor, Tensor)", aten.rnn_relu.input),
):
    _LIBRARY.define(f"{_name}(Tensor input, {_states}, {_REST}) -> {_results}")
    _LIBRARY.impl(_name, _original, "CompositeExplicitAutograd")
    torch.library.register_fake(f"relprop::{_name}", _shapes, lib=_LIBRARY)
    _whole = getattr(torch.ops.relprop, _name).default
    _WHOLE[getattr(torch, _name)] = _whole
    _TORCH[_whole] = _original


class WholeLayers(TorchFunctionMode):
    """Within it, recurrent layers call one operation.

    Raises:
        CaptureError: at a packed sequence: its lengths, which are values, decide about shapes.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole = _WHOLE.get(function)
        if function is torch._VF._pack_padded_sequence or (whole and not isinstance(args[3], bool)):
            raise CaptureError(PACKED)
        return (whole or function)(*args, **(kwargs or {}))


PACKED = (
    "packed sequences cannot be captured: their lengths decide about the shapes of everything behind them. Give the "
    "layer the padded batch and pick the last step of every sample, output[torch.arange(len(x)), lengths - 1]: in one "
    "direction this computes the same. A layer of both directions needs samples of one length at a time."
)


def restore_layers(graph: Graph) -> None:
    """Call torch's operations again."""
    for node in graph.nodes:
        if calls(node) and node.target in _TORCH:
            node.target = _TORCH[node.target]
