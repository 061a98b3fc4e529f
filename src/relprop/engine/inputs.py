"""What a user hands in: how the model is called with it, what is checked, what is explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..capture.remedies import as_tensor, described
from ..capture.source import Source
from ..errors import InputError
from ..graph.graph import Graph, shape_of
from ..rules.base import Step
from ..rules.layers import Convolution, layer_in
from ..rules.message import is_finite
from .lookups import explainable
from .question import Wrt

# ---------------------------------------------------------------------------------------------------------------------
# Inputs
# ---------------------------------------------------------------------------------------------------------------------


def call_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How the model is called with these inputs."""
    if any(map(_is_packed, pytree.tree_leaves(inputs, is_leaf=_is_packed))):
        raise InputError(
            "a PackedSequence is no input: it does not hold samples side by side. Explain a model that takes the "
            "padded batch and the lengths and packs them in its forward."
        )
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise InputError(
        f"inputs must be a tensor, a tuple (positional) or a dict (keywords), got {type(inputs).__name__}: "
        f"{described(inputs)}. {as_tensor(inputs)}".rstrip()
    )


def _is_packed(x: Any) -> bool:
    return isinstance(x, PackedSequence)


def repeated(x: Tensor, before: int, number: int) -> Tensor:
    """So many times the first sample, if the tensor holds samples, of which there were ``before``."""
    return torch.cat([x[:1]] * number) if x.ndim and x.shape[0] == before else x


def like_inputs(inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(inputs, Tensor):
        return args[0]
    return kwargs if isinstance(inputs, Mapping) else tuple(args)


def check_inputs(leaves: list[Any], source: Source) -> None:
    tensors = [(i, x) for i, x in enumerate(leaves) if isinstance(x, Tensor)]
    if not tensors:
        first = next(iter(leaves), None)
        came = f": input 0 is {described(first)}. {as_tensor(first)}" if leaves else "."
        raise InputError(f"the inputs hold no tensor{came}".rstrip())
    for i, x in tensors:
        if x.is_nested:
            raise InputError(
                f"input {i} is a nested tensor, in which samples do not lie side by side: explain a model that takes "
                "the padded batch, and a mask or the lengths."
            )
        if x.ndim and x.shape[0] == 0:
            raise InputError(f"input {i} is an empty batch: shape {tuple(x.shape)}.")
        if x.dtype.is_complex:
            raise InputError(f"input {i} is complex ({x.dtype}); give real and imaginary parts as real tensors.")
        if x.ndim and not source.lives_on(x.device):
            own = ", ".join(sorted(map(str, source.devices())))
            if own == "meta":
                raise InputError("the parameters of the model are on the device 'meta', without values: load them.")
            raise InputError(f"input {i} is on {x.device}, the model on {own}: move one of them with .to(device).")


def refuse_missing_batch(steps: Iterable[Step], leaves: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raise if one sample came alone, so that its output would be taken for as many samples as it has values.

    Raises:
        InputError: if the output is of one dimension and another length than the inputs, and they are of one, too, or
            a convolution got them without a dimension for samples.
    """
    given = [(i, x) for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.ndim]
    output = next((x for x in outputs if isinstance(x, Tensor)), None)
    if output is None or output.ndim != 1 or not given or any(len(x) == len(output) for _, x in given):
        return
    if all(x.ndim == 1 for _, x in given) or any(map(_takes_one_sample, steps)):
        i, x = given[0]
        raise InputError(
            f"input {i} has shape {tuple(x.shape)} and the output {tuple(output.shape)}: the first dimension of both "
            f"must be that of the samples. Of one sample give a batch of one, x[None], shape {(1, *x.shape)}."
        )


def _takes_one_sample(step: Step) -> bool:
    """Whether a convolution has an input without a dimension for samples."""
    layer = layer_in(step)
    return isinstance(layer, Convolution) and len(shape_of(layer.x) or ()) == layer.dims + 1


def refuse_infinite_inputs(leaves: list[Any]) -> None:
    """Raise if an input holds NaN or infinite values: what is explained is not finite, so the model does not fill them.

    Raises:
        InputError: with the input, and where.
    """
    for i, x in enumerate(leaves):
        if isinstance(x, Tensor) and x.dtype.is_floating_point and not _is_mask(x) and not is_finite(x):
            _refuse_infinite(i, x)


def _refuse_infinite(i: int, x: Tensor) -> None:
    bad = ~torch.isfinite(x)
    raise InputError(
        f"input {i} holds {int(bad.sum())} values that are NaN or infinite, the first at index "
        f"{bad.nonzero()[0].tolist()}."
    )


def _is_mask(x: Any) -> bool:
    """An additive attention mask: its only infinite values are -inf."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point or x.layout != torch.strided:
        return False
    if x.ndim < 2 or x.numel() == 0:
        return False
    lowest, highest = torch.aminmax(x)
    return bool(lowest == -torch.inf) and bool(highest < torch.inf)  # NaN is neither


def chosen_inputs(graph: Graph, leaves: list[Any], wrt: Wrt) -> tuple[int, ...]:
    """Positions of the inputs to explain; a mask that holds -inf is none unless nothing else is left."""
    tensors = [i for i, n in enumerate(graph.inputs) if n is not None]
    if wrt is None:
        explained = explainable(graph)
        chosen = [i for i in explained if not _is_mask(leaves[i])] or explained
        for i in chosen:
            if _is_mask(leaves[i]):
                _refuse_infinite(i, leaves[i])
        return tuple(chosen)
    chosen = []
    for name in [wrt] if isinstance(wrt, (str, int)) else list(wrt):
        found = [i for i in tensors if name in (i, str(i), graph.input_names[i])]
        if not found:
            known = ", ".join(repr(graph.input_names[i]) for i in tensors)
            raise InputError(f"wrt={name!r} names no tensor input; there are {known}.")
        if _is_mask(leaves[found[0]]):
            _refuse_infinite(found[0], leaves[found[0]])
        chosen += found
    return tuple(chosen)
