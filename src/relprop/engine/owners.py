"""Whose a number is: how the owners of ids travel through the operations that edit ids before a look-up.

The owners of a number are the elements of the inputs that it was made of. What moves values moves their owners, what
computes with one value and constants keeps its owner, what combines several values has the owners of all. What the
model puts in itself (a token in front, the value of padding) has none.

Owners are numbers of elements, counted from one; zero stands for the model. They lie in *layers*, tensors that
broadcast to the shape of the value: a number that was made of two ids has two layers. In every place, zeros and
repetitions say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments, signature
from ..rules.base import nodes_in

aten = torch.ops.aten

Layers = list[Tensor]


class Known(Protocol):
    """What is known of a run when owners are asked for."""

    values: dict[Node, Any]
    shapes: dict[Node, Any]


class Way:
    """How owners pass one operation."""

    def follows(self, node: Node) -> Iterable[Node]:
        """The arguments whose owners become those of the result."""
        return node.all_input_nodes

    def needs(self, node: Node) -> Iterable[Node]:
        """The values that have to be known."""
        return ()

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Any:
        """The layers of the result; of several results, the layers of each."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pointwise(Way):
    """Computed place by place: ``ids + 2``, ``ids % n``, ``ids < 0``, ``n * ids[:, :-1] + ids[:, 1:]``."""

    only: str | None = None
    """The argument that is meant, if others are lists in which its values are looked for."""

    def follows(self, node: Node) -> Iterable[Node]:
        return node.all_input_nodes if self.only is None else nodes_in(argument(node, self.only))

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        return _joined(owners[n] for n in self.follows(node) if n in owners)


class Moves(Way):
    """Put elsewhere. What is put beside the values is the model's."""

    def follows(self, node: Node) -> Iterable[Node]:
        return [n for name, value in _named(node) if name in DATA for n in nodes_in(value)]

    def needs(self, node: Node) -> Iterable[Node]:
        return [n for name, value in _named(node) if name not in DATA for n in nodes_in(value)]

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Any:
        moved = [owners[n] for n in self.follows(node) if n in owners]
        results = []
        for i in range(max(map(len, moved))):
            layer = {n: _filled(owners.get(n, []), i + 1, like=moved[0][0])[i] for n in self.follows(node)}
            full = {n: o.expand(run.shapes[n]).contiguous() for n, o in layer.items()}
            results.append(_moved(node, full, run))
        return results if isinstance(results[0], Tensor) else [list(parts) for parts in zip(*results, strict=True)]


@dataclass(frozen=True)
class Conditional(Way):
    """One of two values in every place. A number that the model puts in because of an id is that id's."""

    condition_counts: bool

    def follows(self, node: Node) -> Iterable[Node]:
        condition, *branches = branches_of(node)
        return nodes_in([*branches, condition] if self.condition_counts else branches)

    def needs(self, node: Node) -> Iterable[Node]:
        return [branches_of(node)[0]]

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        condition, *branches = branches_of(node)
        sides = [owners.get(n, []) if isinstance(n, Node) else [] for n in branches]
        own = owners[condition] if self.condition_counts else []
        count, like = max(map(len, [*sides, own])), next(layers[0] for layers in [*sides, own] if layers)
        first, second, own = (_filled(layers, count, like) for layers in [*sides, own])
        picked = [torch.where(run.values[condition], a, b) for a, b in zip(first, second, strict=True)]
        models = torch.stack(torch.broadcast_tensors(*picked)).amax(0) == 0
        return [torch.where(models, o, p) for o, p in zip(own, picked, strict=True)]


class Rows(Way):
    """Rows of a constant table: a row is the one's that chose it."""

    def follows(self, node: Node) -> Iterable[Node]:
        return nodes_in(argument(node, INDEX[node.target]))

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        chosen = _joined(owners[n] for n in self.follows(node) if n in owners)
        return [_before(o, _behind(node)) for o in chosen]


class Written(Way):
    """Constants put where ids say, as in ``zeros.scatter(1, ids, 1)``: each is the id's that chose its place."""

    def follows(self, node: Node) -> Iterable[Node]:
        return nodes_in(argument(node, PLACES[node.target]))

    def needs(self, node: Node) -> Iterable[Node]:
        return self.follows(node)

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        named = arguments(node)
        results: Layers = []
        places = torch.fx.node.map_arg(named[PLACES[node.target]], run.values.__getitem__)
        for o in _joined(owners[n] for n in self.follows(node) if n in owners):
            empty = o.new_zeros(run.shapes[named["self"]])
            if isinstance(places, Tensor):
                results.append(empty.scatter(named["dim"], places, o.expand(places.shape)))
            else:
                results.append(aten.index_put.default(empty, places, _before(o, _behind(node))))
        return results


class OneHot(Way):
    """A vector in the place of every id."""

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        return [o.unsqueeze(-1) for o in owners[node.all_input_nodes[0]]]


class Found(Way):
    """Values that were looked for, and their places (the largest, all in order): each is the value's that was found."""

    def needs(self, node: Node) -> Iterable[Node]:
        return [node]

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Any:
        found, x, dim = run.values[node], node.all_input_nodes[0], arguments(node).get("dim", -1)
        index = found if isinstance(found, Tensor) else found[1]
        layers = [o.expand(run.shapes[x]) for o in owners[x]]
        if dim is None:
            results = [o.flatten()[index] for o in layers]
        elif index.ndim < layers[0].ndim:
            results = [o.gather(dim, index.unsqueeze(dim)).squeeze(dim) for o in layers]
        else:
            results = [o.gather(dim, index) for o in layers]
        return results if isinstance(found, Tensor) else [results] * len(found)


@dataclass(frozen=True)
class Reduced(Way):
    """One number of many: of all of them, or only of those that do not count zero."""

    nonzero: bool = False

    def needs(self, node: Node) -> Iterable[Node]:
        return node.all_input_nodes if self.nonzero else ()

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        named, x = arguments(node), node.all_input_nodes[0]
        dim, keepdim = named.get("dim"), named.get("keepdim", False)
        terms: Layers = []
        for o in owners[x]:
            o = o.expand(run.shapes[x])
            o = torch.where(run.values[x] == 0, 0, o) if self.nonzero else o
            dims = sorted(d % o.ndim for d in ([dim] if isinstance(dim, int) else dim or range(o.ndim)))
            rows = o.movedim(dims, list(range(len(dims)))).flatten(0, len(dims) - 1)
            for d in dims if keepdim else ():
                rows = rows.unsqueeze(d + 1)
            terms += rows.unbind(0)
        return terms


class Product(Way):
    """One-hot vectors times a constant table: the row that each of them picks."""

    def follows(self, node: Node) -> Iterable[Node]:
        return nodes_in(argument(node, 0))

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        return [o.amax(-1, keepdim=True) for n in self.follows(node) for o in owners[n]]


class Picked(Way):
    """One of several results."""

    def carry(self, node: Node, owners: Mapping[Node, Any], run: Known) -> Layers:
        several, index = node.args
        layers: Layers = owners[several][index]  # type: ignore[index]
        return layers


# ---------------------------------------------------------------------------------------------------------------------
# What the arguments of operations mean
# ---------------------------------------------------------------------------------------------------------------------

DATA = {"self", "tensors", "input", "x", "weight", "src", "source", "values", "other", "value"}
"""Names of the arguments that an operation moves; the others say where to."""

INDEX: dict[Any, str] = {
    aten.embedding.default: "indices",
    aten.index.Tensor: "indices",
    aten.index_select.default: "index",
    aten.gather.default: "index",
    aten.take.default: "index",
    aten.take_along_dim.default: "indices",
}
"""Operation that picks from a table, its first argument -> the argument that says what."""

PLACES: dict[Any, str] = {aten.scatter.value: "index", aten.scatter.src: "index", aten.index_put.default: "indices"}
"""Operation that writes into its first argument -> the argument that says where."""

CONDITIONALS: dict[Any, tuple[str, str, str]] = {
    aten.where.self: ("condition", "self", "other"),
    aten.where.ScalarOther: ("condition", "self", "other"),
    aten.where.ScalarSelf: ("condition", "self", "other"),
    aten.where.Scalar: ("condition", "self", "other"),
    aten.masked_fill.Scalar: ("mask", "value", "self"),
    aten.masked_fill.Tensor: ("mask", "value", "self"),
}
"""Operation -> its condition, and what is taken where it holds and where it does not."""


def branches_of(node: Node) -> tuple[Any, Any, Any]:
    """The condition of a choice, what is taken where it holds, and where it does not."""
    condition, first, second = (argument(node, name) for name in CONDITIONALS[node.target])
    return condition, first, second


# ---------------------------------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------------------------------


def _joined(several: Iterable[Layers]) -> Layers:
    """The layers of all, each once."""
    return list({id(layer): layer for layers in several for layer in layers}.values())


def _filled(layers: Layers, count: int, like: Tensor) -> Layers:
    """So many layers; those that are missing are the model's."""
    return [*layers, *[like.new_zeros(())] * (count - len(layers))]


def _before(layer: Tensor, dims: int) -> Tensor:
    """A layer with dimensions of one behind it."""
    return layer.reshape(*layer.shape, *[1] * dims)


def _behind(node: Node) -> int:
    """How many dimensions a result has behind those of the index that picked it, or that it was written at."""
    table: Any = argument(node, 0)
    dims, named = table.meta["val"].ndim, arguments(node)
    if node.target is aten.embedding.default:
        return 1
    if node.target is aten.index_select.default:
        return int(dims - 1 - named["dim"] % dims)
    if "indices" not in named or "dim" in named:
        return 0  # an index for every value
    used = [d for d, n in enumerate(named["indices"]) if n is not None]
    side_by_side = used == list(range(used[0], used[-1] + 1))
    return int(dims - 1 - used[-1] if side_by_side else dims - len(used))


def _named(node: Node) -> list[tuple[str, Any]]:
    """Arguments as they were passed, by name."""
    return [*zip(signature(node.target), node.args, strict=False), *node.kwargs.items()]


def _moved(node: Node, layer: Mapping[Node, Tensor], run: Known) -> Any:
    """The operation on owners in the place of values; a number that it fills in is the model's."""

    def loaded(name: str, value: Any) -> Any:
        if name not in DATA:
            return torch.fx.node.map_arg(value, run.values.__getitem__)
        return 0 if isinstance(value, (bool, int, float)) else torch.fx.node.map_arg(value, layer.__getitem__)

    named = [(name, loaded(name, value)) for name, value in _named(node)]
    count = len(node.args)
    operation: Callable[..., Any] = node.target  # type: ignore[assignment]
    return operation(*(value for _, value in named[:count]), **dict(named[count:]))
