"""Packed sequences, while a model is exported.

How many rows a packed sequence has, and how many steps, are values: the sum and the maximum of its lengths. While a
model is exported, packing and padding therefore call operations of our own, which leave both sizes open; at a run they
are what they are in the model. The number of samples, which torch reads off the packed sequence as a value too, is
known from what was packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.graph import Graph, calls
from ..graph.ops import PACK, PAD

aten = torch.ops.aten

_LIBRARY = torch.library.Library("relprop", "FRAGMENT")
_SIZES_ARE_VALUES = (torch.Tag.dynamic_output_shape,)
_LIBRARY.define(
    "pack(Tensor input, Tensor lengths, bool batch_first) -> (Tensor, Tensor)",
    tags=_SIZES_ARE_VALUES,
)
_LIBRARY.define(
    "pad(Tensor data, Tensor sizes, bool batch_first, Scalar value, SymInt steps, SymInt samples) -> (Tensor, Tensor)",
    tags=_SIZES_ARE_VALUES,
)
_LIBRARY.impl("pack", PACK, "CompositeExplicitAutograd")
_LIBRARY.impl("pad", lambda *arguments: PAD(*arguments[:-1]), "CompositeExplicitAutograd")


def _packed_shapes(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    samples, steps = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    torch._check(lengths.shape[0] == samples, lambda: f"{lengths.shape[0]} lengths for {samples} sequences")
    longest, rows = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    torch._check(longest <= steps)
    torch._check(longest <= rows)
    return x.new_empty(rows, *x.shape[2:]), lengths.new_empty(longest)


def _padded_shapes(
    data: Tensor, sizes: Tensor, batch_first: bool, value: Any, steps: int, samples: int
) -> tuple[Tensor, Tensor]:
    shape = (samples, steps) if batch_first else (steps, samples)
    return data.new_empty(*shape, *data.shape[1:]), sizes.new_empty(samples)


torch.library.register_fake("relprop::pack", _packed_shapes, lib=_LIBRARY)
torch.library.register_fake("relprop::pad", _padded_shapes, lib=_LIBRARY)


class Packing:
    """What is packed while one model is exported."""

    def __init__(self) -> None:
        self._samples: list[tuple[Tensor, Any]] = []
        """The batch sizes of a packed sequence, and its number of samples."""

    def instead(self, function: Any, args: Any) -> Callable[..., Any] | None:
        """What is called instead of a function; None if that is not for packing."""
        if function is torch._VF._pack_padded_sequence:
            return self._pack
        if function is torch._VF._pad_packed_sequence:
            return self._pad
        first = function is Tensor.__getitem__ and isinstance(args[1], int) and args[1] == 0
        if first and (samples := self._known(args[0])) is not None:
            return lambda sizes, index: samples
        return None

    def _pack(self, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        data, sizes = torch.ops.relprop.pack(x, lengths, batch_first)
        self._samples.append((sizes, x.shape[0 if batch_first else 1]))
        return data, sizes

    def _pad(self, data: Tensor, sizes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        samples = self._known(sizes)
        return torch.ops.relprop.pad(data, sizes, *rest, sizes[0].item() if samples is None else samples)

    def _known(self, sizes: Tensor) -> Any:
        return next((samples for known, samples in self._samples if known is sizes), None)

    @contextmanager
    def expected_shapes(self) -> Iterator[None]:
        """A layer that checks its initial states asks for the number of samples as a plain int: give it as it is."""
        original = nn.RNNBase.get_expected_hidden_size

        def expected(layer: nn.RNNBase, x: Tensor, sizes: Tensor | None) -> tuple[Any, ...]:
            samples = None if sizes is None else self._known(sizes)
            if samples is None:
                return original(layer, x, sizes)
            number = layer.num_layers * (2 if layer.bidirectional else 1)
            return number, samples, layer.proj_size or layer.hidden_size

        nn.RNNBase.get_expected_hidden_size = expected  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            nn.RNNBase.get_expected_hidden_size = original  # type: ignore[method-assign]


def restore_packing(graph: Graph) -> None:
    """Call torch's operations again, which are not told the number of samples."""
    for node in graph.nodes:
        if calls(node) and node.target is torch.ops.relprop.pack.default:
            node.target = PACK
        elif calls(node) and node.target is torch.ops.relprop.pad.default:
            node.target, node.args = PAD, node.args[:-1]
