"""What a run does: products with every weight, forward and back, floating-point operations, bytes that are touched.

A product is counted in units of its linear operation's own work in the model's forward run, so that a product for one
sample of eight is an eighth, and two hundred steps of a recurrence are one. Forward is what sums over the inputs of a
neuron, as the model does; back is what sums over its outputs, as the gradient of the input does.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from relprop.graph.kernels import LINEAR

aten = torch.ops.aten

BY_ROWS = {"linear", "_linear_pointwise"}
MATRIX_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "_addmm_activation", *BY_ROWS}
CONVOLUTIONS = {"convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution"}
RECURRENT = {"mkldnn_rnn_layer": 1, "mkldnn_rnn_layer_backward": -1, "_cudnn_rnn": 1, "_cudnn_rnn_backward": -1}

Product = tuple[Tensor, int, float]
"""The weight, a direction (1 or -1), and the multiplications."""


class Watch(TorchDispatchMode):
    """Watches runs on one model.

    Args:
        model: whose parameters are the weights.
        forward: runs the model once, which tells what a product with each weight costs.
    """

    def __init__(self, model: nn.Module, forward: Callable[[], Any]):
        super().__init__()
        self._number = Counter(_key(p) for p in model.parameters() if p.ndim > 1)
        """Storage -> how many weights it holds: cuDNN keeps those of an LSTM in one."""
        self._origin = {key: key for key in self._number}
        """Storage -> the storage of the parameters that it holds, or that its values were made from."""
        self._unit: dict[int, tuple[int, float]] = {}
        """Weights -> the direction of the model's own product with them, and its multiplications."""
        self(forward)
        self._unit = {origin: (direction, work) for (origin, direction), work in self._work.items()}
        self._origin = {key: key for key in self._unit}

    def __call__(self, run: Callable[[], Any]) -> Any:
        """Watch one run."""
        self._work: Counter[tuple[int, int]] = Counter()
        self._flops = self._bytes = 0
        with self:
            return run()

    def found(self) -> dict[str, float]:
        """What the last run did."""
        counts = {1: 0.0, -1: 0.0}
        for (origin, direction), work in self._work.items():
            forward, unit = self._unit[origin]
            counts[direction * forward] += self._number[origin] * work / unit
        return {"forward": counts[1], "back": counts[-1], "flops": self._flops, "bytes": self._bytes}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view:
            return result
        name = func.overloadpacket.__name__
        given, made = ([x for x in tree_leaves(y) if isinstance(x, Tensor)] for y in ((args, kwargs), result))
        self._bytes += sum(map(_size, given)) + sum(map(_size, made))
        if count := FLOPS.get(func.overloadpacket):
            self._flops += count(*args, **kwargs, out_val=result)
        products = list(_products(name, args, result))
        for weight, direction, work in products:
            if (origin := self._origin.get(_key(weight))) is not None:
                self._work[origin, direction] += work
        if self._unit and not products:
            self._follow([x for x in args if isinstance(x, Tensor)], made)
        return result

    def _follow(self, given: list[Tensor], made: list[Tensor]) -> None:
        """A tensor made from a weight, in its size, is a modified weight."""
        weights = {x.numel(): self._origin[_key(x)] for x in given if _key(x) in self._origin}
        for x in made:
            key = _key(x)
            if x.numel() in weights and key not in self._origin:
                self._origin[key] = weights[x.numel()]
                weakref.finalize(x.untyped_storage(), self._origin.pop, key, None)


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _size(x: Tensor) -> int:
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def _products(name: str, args: Any, result: Any) -> Iterator[Product]:
    """The products that an operation makes; of the two factors of a matrix product, either may be a weight."""
    if name in MATRIX_PRODUCTS:
        a, b = args[:2] if name in BY_ROWS else args[-2:]
        rows = 1 if name in BY_ROWS else -2 if b.ndim > 1 else 0  # of b, which the product sums over
        work = result.numel() * a.shape[-1]
        yield a, 1 if a.stride(-1) == 1 else -1, work
        yield b, 1 if b.stride(rows) == 1 else -1, work
    elif name in CONVOLUTIONS:
        x, w, transposed = args[0], args[1], bool(args[6])
        yield w, -1 if transposed else 1, w[0].numel() * (x if transposed else result).numel()
    elif name == "convolution_backward" and args[-1][0]:
        g, x, w, transposed = *args[:3], args[7]
        yield w, 1 if transposed else -1, w[0].numel() * (x if transposed else g).numel()
    elif name in RECURRENT:
        steps = prod(args[0].shape[:-1])
        for w in tree_leaves(args[1:]):
            if isinstance(w, Tensor) and w.ndim == 2:
                yield w, RECURRENT[name], w.numel() * steps


def _linear_flops(a: Tensor, w: Tensor, *args: Any, out_val: Any) -> int:
    return 2 * w.shape[1] * int(out_val.numel())


def _attention_flops(*args: Any, out_val: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(*(x.shape for x in args[:3]))


def _attention_backward_flops(*args: Any, out_val: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(*(x.shape for x in args[:4]))


def _recurrent_flops(*args: Any, out_val: Any) -> float:
    return 2 * sum(work for _, _, work in _products("mkldnn_rnn_layer", args, None))


def _recurrent_backward_flops(*args: Any, out_val: Any) -> float:
    return 2 * _recurrent_flops(*args, out_val=None)  # gradients of the weights included


FLOPS: dict[Any, Any] = {
    **flop_registry,
    **({LINEAR.overloadpacket: _linear_flops} if LINEAR is not None else {}),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    **dict.fromkeys([aten.mkldnn_rnn_layer, aten._cudnn_rnn], _recurrent_flops),
    **dict.fromkeys([aten.mkldnn_rnn_layer_backward, aten._cudnn_rnn_backward], _recurrent_backward_flops),
}
"""Operation -> how many floating-point operations it takes; causal attention counts in full."""
