"""Hidden tensors by module path: recording their relevance, keeping only some channels, starting there."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import SelectionError
from ..graph.facts import facts
from ..graph.graph import Graph, calls, is_float, module_stack
from ..graph.ops import PER_CHANNEL
from ..select import stack_of


def module_outputs(graph: Graph, patterns: Sequence[str]) -> dict[str, Node]:
    """Module path -> node of the module's output, for all paths that match; a second call is ``path@1``.

    A module with several outputs, such as an LSTM whose states are used, has ``path[0]``, ``path[1]`` and so on, in the
    order in which they are made; its path alone stands for all of them.

    Raises:
        SelectionError: if a pattern matches no module that was called.
    """
    if not patterns:
        return {}
    outputs = _outputs(graph)
    found: dict[str, Node] = {}
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise SelectionError(f"a module path or a pattern of paths is a string, got {pattern!r}.")
        matched = {name: node for name, node in outputs.items() if any(map(_matches(pattern), _names_of(name)))}
        if not matched:
            for path, why in graph.vanished.items():
                if fnmatchcase(path, pattern):
                    raise SelectionError(
                        f"the module {path!r} has no output of its own: {why}. Name the module before it, or behind it."
                    )
            some = ", ".join(list(outputs)[:12])
            raise SelectionError(
                f"{pattern!r} matches no module of the model; there are {some}{', ...' if len(outputs) > 12 else ''}."
            )
        found.update(matched)
    return found


def _outputs(graph: Graph) -> dict[str, Node]:
    """The outputs of every module by name: what it makes that is used outside of it."""
    within: dict[str, list[Node]] = {}
    paths = {node: _paths(node) for node in graph.nodes if calls(node)}
    for node, around in paths.items():
        if is_float(node) and node not in graph.constants:
            for path in around:
                within.setdefault(path, []).append(node)
    leaving = set(graph.outputs)
    found: dict[str, Node] = {}
    for path, nodes in within.items():
        used = [n for n in nodes if n in leaving or any(path not in paths.get(user, ()) for user in n.users)]
        if len(used) < 2:
            found[path] = used[0] if used else nodes[-1]
        else:
            found |= {f"{path}[{i}]": node for i, node in enumerate(sorted(used, key=_part))}
    return found


def _paths(node: Node) -> set[str]:
    """The modules that an operation was called in; a batch norm that was folded is one of them."""
    stacks = [module_stack(node)]
    if node.meta.get("also_module"):
        stacks.append(stack_of(node.meta["also_module"]))
    return {path for stack in stacks for path, _ in stack if path}


def _part(node: Node) -> int:
    """Which of the results of one operation a node picks; others keep their order."""
    return node.args[1] if node.target is operator.getitem else 0  # type: ignore[return-value]


def _names_of(name: str) -> tuple[str, ...]:
    """What a pattern may name: ``path@1[0]`` is also ``path@1``, and a call of ``path``."""
    whole = name.partition("[")[0]
    return name, whole, whole.partition("@")[0]


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda name: name == pattern or fnmatchcase(name, pattern)


def channel_mask(node: Node, channels: Any) -> Callable[[Tensor], Tensor]:
    """A function from an activation to what its relevance is multiplied by.

    Channels are dimension 1 of images and of plain vectors, and the last dimension of sequences [B, T, D], unless a
    convolution made them.
    """
    if callable(channels):
        return lambda a: _fitting(channels(a), a)

    def mask(a: Tensor) -> Tensor:
        if channels is None:
            return torch.ones((), dtype=a.dtype, device=a.device)
        if isinstance(channels, Tensor) and (channels.dtype.is_floating_point or channels.dtype == torch.bool):
            return _fitting(channels, a)
        dim = a.ndim - 1 if a.ndim == 3 and not _is_convolved(node) else min(1, a.ndim - 1)
        try:
            index = torch.as_tensor(channels, device=a.device).long().reshape(-1)
        except (TypeError, ValueError, RuntimeError):
            raise SelectionError(
                f"channels are an int, a list of ints, a tensor or a function, got {channels!r}."
            ) from None
        size = a.shape[dim]
        if index.numel() == 0 or bool(((index >= size) | (index < -size)).any()):
            raise SelectionError(
                f"channels {index.tolist()} are out of range: dimension {dim} of {tuple(a.shape)} has {size}."
            )
        kept = torch.zeros(size, dtype=a.dtype, device=a.device)
        kept[index] = 1
        return kept.reshape([size if d == dim else 1 for d in range(a.ndim)])

    return mask


def _is_convolved(node: Node) -> bool:
    """Whether a convolution or a norm of channels made the values, but for functions of each of them."""
    while facts(node).pointwise and node.target not in PER_CHANNEL and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node.target in PER_CHANNEL


def _fitting(mask: Any, a: Tensor) -> Tensor:
    """A mask as values for an activation."""
    if not isinstance(mask, Tensor) or not bool(torch.isfinite(mask).all()):
        raise SelectionError(f"a mask is a tensor of finite numbers, got {mask!r}.")
    try:
        return mask.to(a).expand_as(a)
    except RuntimeError:
        raise SelectionError(
            f"a mask of shape {tuple(mask.shape)} does not fit the activation of shape {tuple(a.shape)}."
        ) from None
