"""Recurrent layers stay whole while a model is exported.

To learn the shape of an LSTM's output, torch.export runs the layer in Python, step by step, with symbolic sizes:
seconds for a hundred steps, and a graph for sequences of that length only. While a model is exported, its layers
therefore call operations of our own that state their shapes. The first pass over the graph puts torch's back.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..graph.graph import Graph, calls
from .packed import Packing, restore_packing

aten = torch.ops.aten

_LIBRARY = torch.library.Library("relprop", "FRAGMENT")
_REST = "Tensor[] params, bool biases, int layers, float dropout, bool train, bool bidirectional"
_WHOLE: dict[Any, Any] = {}
"""What a layer calls, and whether for a packed sequence -> the operation that stands for it."""
_TORCH: dict[Any, Any] = {}
"""That operation -> torch's."""


def _shapes(x: Tensor, states: Any, params: Any, *options: Any) -> tuple[Tensor, ...]:
    directions = 2 if options[4] else 1
    states = states if isinstance(states, (list, tuple)) else [states]
    sequence = x.new_empty(*x.shape[:-1], directions * states[0].shape[2])
    return (sequence, *(s.new_empty(s.shape) for s in states))


def _packed_shapes(data: Tensor, sizes: Tensor, states: Any, *rest: Any) -> tuple[Tensor, ...]:
    return _shapes(data, states, *rest)


def _define(name: str, signature: str, original: Any, shapes: Any) -> Any:
    _LIBRARY.define(name + signature)
    _LIBRARY.impl(name, original, "CompositeExplicitAutograd")
    torch.library.register_fake(f"relprop::{name}", shapes, lib=_LIBRARY)
    whole = getattr(torch.ops.relprop, name).default
    _TORCH[whole] = original
    return whole


for _name, _states, _results in (
    ("lstm", "Tensor[] hx", "(Tensor, Tensor, Tensor)"),
    ("gru", "Tensor hx", "(Tensor, Tensor)"),
    ("rnn_tanh", "Tensor hx", "(Tensor, Tensor)"),
    ("rnn_relu", "Tensor hx", "(Tensor, Tensor)"),
):
    _padded = f"(Tensor input, {_states}, {_REST}, bool batch_first) -> {_results}"
    _packed = f"(Tensor data, Tensor sizes, {_states}, {_REST}) -> {_results}"
    _called, _overloads = getattr(torch, _name), getattr(aten, _name)
    _WHOLE[_called, False] = _define(_name, _padded, _overloads.input, _shapes)
    _WHOLE[_called, True] = _define(f"packed_{_name}", _packed, _overloads.data, _packed_shapes)


class WholeLayers(TorchFunctionMode):
    """Within it, recurrent layers call one operation, and so does what packs sequences for them."""

    def __init__(self) -> None:
        super().__init__()
        self._packing, self._undo = Packing(), ExitStack()

    def __enter__(self) -> Any:
        self._undo.enter_context(self._packing.expected_shapes())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._undo.close()
        super().__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_packed = len(args) > 3 and not isinstance(args[3], bool)
        called = self._packing.instead(function, args) or _WHOLE.get((function, is_packed), function)
        return called(*args, **(kwargs or {}))


def restore_layers(graph: Graph) -> None:
    """Call torch's operations again."""
    for node in graph.nodes:
        if calls(node) and node.target in _TORCH:
            node.target = _TORCH[node.target]
    restore_packing(graph)
