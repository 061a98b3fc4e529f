"""Where the samples are in every tensor, so that the ledger can keep one account for each.

A dimension may hold more than the samples: ``[T * B, D]`` after a view. The axis is given as (dimension, inner): the
dimension's size is outer * B * inner, with the samples in the middle. Where rows have been shuffled (tokens sorted by
the expert that they are sent to) or packed, ``inner`` is the sample of every row instead.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.graph import Graph, calls, is_float
from ..graph.ops import PACK, PAD, bagged
from .pieces import CUTS, Axis, cut, joined

aten = torch.ops.aten

VIEWS = {
    *(aten.view.default, aten._unsafe_view.default, aten.reshape.default),
    *(aten.flatten.using_ints, aten.unflatten.int),
}
RECURRENT = {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
POOLS = {aten.index_add.default, aten.scatter_add.default, aten.scatter_reduce.two, aten.index_reduce.default}
PACKED = {aten.lstm.data, aten.gru.data, aten.rnn_tanh.data, aten.rnn_relu.data}


class Samples:
    """Which sample every part of every tensor belongs to, in one run.

    Args:
        graph: what is run.
        shapes: of all values in the run.
        values: those that tell the samples of shuffled rows (see :func:`followed`), and sizes.
        batch: number of samples.
        sources: what is explained.
    """

    def __init__(
        self, graph: Graph, shapes: dict[Node, Any], values: dict[Node, Any], batch: int, sources: Sequence[Node]
    ):
        self.graph, self.shapes, self.values, self.batch, self.sources = graph, shapes, values, batch, sources
        self.axes: dict[Node, Any] = {}
        """Node -> (dimension, inner) for every tensor that holds samples."""
        self._start()
        starts = (n for n in graph.inputs if n is not None and n in self.axes)
        symbols = (_size_at_capture(n, *self.axes[n]) for n in starts)
        self._symbol = next((s for s in symbols if s is not None), None)
        for node in graph.nodes:
            if calls(node) and node not in self.axes and (found := self._behind(node)) is not None:
                self.axes[node] = found

    def sums(self, amount: Tensor, node: Node) -> Tensor:
        """An amount in the shape of a node, summed for every sample, [B].

        What belongs to no sample (a parameter, or where samples could not be followed) is booked in equal parts.
        """
        amount = amount.detach().double() if amount.device.type != "mps" else amount.detach()
        b = self.batch
        if not amount.numel():
            return amount.new_zeros(b)
        if amount.ndim == 0 or node in self.shared:
            return amount.sum().reshape(1).expand(b) / b
        dim, inner = self.axes.get(node, (0, 1))
        if isinstance(inner, Tensor):
            if dim is None:
                return amount.new_zeros(b).index_add(0, inner.reshape(1), amount.sum().reshape(1))
            if amount.shape[dim : dim + 1] == inner.shape:
                rows = amount.movedim(dim, 0).flatten(1).sum(1) if amount.ndim > 1 else amount
                return rows.new_zeros(b).index_add(0, inner, rows)
        elif dim < amount.ndim and amount.shape[dim] and amount.shape[dim] % (b * inner) == 0:
            split = amount.movedim(dim, 0).reshape(-1, b, inner, *amount.shape[:dim], *amount.shape[dim + 1 :])
            return split.sum(dim=[d for d in range(split.ndim) if d != 1])
        return amount.sum().reshape(1).expand(b) / b

    @property
    def shared(self) -> set[Node]:
        """What is explained and has no dimension for the samples."""
        return {n for n in self.sources if n not in self.axes}

    def _start(self) -> None:
        """Where the samples are in the inputs."""
        graph, shapes, batch, axes = self.graph, self.shapes, self.batch, self.axes
        inputs = [n for n in graph.inputs if n is not None]
        axes |= {n: (0, 1) for n in inputs if shapes[n][:1] == (batch,)}
        if not axes:  # sequences with the steps first
            axes |= {n: (1, 1) for n in inputs if shapes[n][1:2] == (batch,)}
        axes |= {n: (1, 1) for n in _second(graph) if n in shapes and shapes[n][1:2] == (batch,)}
        if not any(n in axes and is_float(n) for n in inputs) and (
            pools := _in_pools(graph, shapes, self.values, batch)
        ):
            axes.clear()
            axes |= pools
        axes |= _in_bags(graph, shapes, self.values, batch)

    def _rows(self, node: Node) -> Tensor:
        """The sample of every row along the axis of a node."""
        dim, inner = self.axes[node]
        if isinstance(inner, Tensor):
            return inner
        device = next((v.device for v in self.values.values() if isinstance(v, Tensor)), None)
        return torch.arange(self.shapes[node][dim], device=device) // inner % self.batch

    def _tidied(self, axis: Axis) -> Axis:
        dim, rows = axis
        return axis if dim is None else _regular(dim, rows, self.batch)

    def _behind(self, node: Node) -> Any:
        """The axis of what an operation makes; None if it holds no samples, or they cannot be followed."""
        axes, shapes, values, batch = self.axes, self.shapes, self.values, self.batch
        sources = [n for n in node.all_input_nodes if n in axes]
        if node not in shapes:  # several outputs: each looks for its own axis
            if sources:
                shapes[node] = shapes[sources[0]]
                return axes[sources[0]]
            return None
        shape = tuple(shapes[node])
        if not sources:
            named = _dimension_named(self._symbol, node)  # a parameter, repeated for every sample
            return None if named is None else (named, 1)
        if (found := joined(node, axes, shapes, self._rows)) is not None:
            return self._tidied(found)
        source = next((n for n in sources if axes[n][0] is not None), sources[0])
        dim, inner = axes[source]
        if dim is None:
            return (dim, inner)
        found = cut(node, source, dim, self._rows(source), len(shapes[source]), values) if _cuts(node) else None
        if found is not None:
            return self._tidied(found)
        if node.target is operator.getitem and source.target in {PACK, PAD, *PACKED}:
            return _of_packed(node, source, dim, inner, shape, values, batch)
        if (index := shuffle(node, dim)) not in (None, source) and isinstance(rows := values.get(index), Tensor):
            return _shuffled(rows, dim, inner, batch)
        if node.target in VIEWS and not isinstance(inner, Tensor):
            return _through_view(tuple(shapes[source]), dim, inner, shape, batch)
        if (d := _moved_to(node, dim, len(shapes[source]))) is not None:
            return (d, inner)
        if isinstance(inner, Tensor):
            return (dim, inner) if shape[dim : dim + 1] == inner.shape else None
        if node.target is aten.repeat_interleave.self_int and argument(node, "dim") == dim:
            return (dim, inner * shape[dim] // shapes[source][dim])  # every row several times, in its place
        return _through(node, shape, tuple(shapes[source]), inner, batch, self._symbol, dim)


def _cuts(node: Node) -> bool:
    made = argument(node, 0) if node.target is operator.getitem else node
    return bool(made.target in CUTS)


def followed(graph: Graph) -> set[Node]:
    """Nodes whose values tell the samples of rows that are shuffled, packed or pooled."""
    found = {argument(node, "lengths") for node in graph.nodes if node.target is PACK}
    found |= {argument(node, "index") for node in graph.nodes if node.target in POOLS}
    for node in graph.nodes:
        if calls(node):
            found.add(shuffle(node, argument(node, "dim") if node.target is aten.index_select.default else 0))
    return {n for n in found if isinstance(n, Node)}


def _second(graph: Graph) -> set[Node]:
    """What recurrent layers take and return with the samples in dimension 1: states always, sequences by default."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.target in RECURRENT:
            x, states, *_, first = arguments(node).values()  # the last is batch_first
            found |= set(states) if isinstance(states, (list, tuple)) else {states}
            found |= set() if first else {x}
            found |= {n for n in node.users if n.target is operator.getitem and not (first and argument(n, 1) == 0)}
        elif node.target is PACK:
            found |= set() if argument(node, "batch_first") else {_unsorted(argument(node, "input"))}
        elif node.target in PACKED:
            states = argument(node, "hx")
            unsorted = map(_unsorted, states if isinstance(states, (list, tuple)) else [states])
            found |= {n for n in unsorted if n.op == "placeholder"}  # others know their order from where they come
    return found


def _unsorted(node: Node) -> Node:
    """What was given, before it was sorted by length."""
    unsorted: Node = argument(node, "self") if node.target is aten.index_select.default else node
    return unsorted


def _in_bags(graph: Graph, shapes: dict[Node, Any], values: dict[Node, Any], batch: int) -> dict[Node, Any]:
    """Rows that are put into bags, one for each sample, and what is made of the bags."""
    axes: dict[Node, Any] = {}
    for node in graph.nodes:
        bag = values.get(argument(node, "bag")) if node.target is bagged else None
        if isinstance(bag, Tensor) and shapes[node][:1] == (batch,):
            axes[node] = (0, 1)
            rows: Any = [argument(node, "x")]
            while rows:
                n = rows.pop()
                if shapes.get(n, ())[:1] == bag.shape and n not in graph.parameters:
                    axes[n] = (0, bag.clamp(max=batch - 1))  # padding is in no bag, and has no relevance
                    rows += n.all_input_nodes
    return axes


def _in_pools(graph: Graph, shapes: dict[Node, Any], values: dict[Node, Any], batch: int) -> dict[Node, Any]:
    """Rows that are pooled, so many for each sample: the nodes of several graphs."""
    axes: dict[Node, Any] = {}
    for node in graph.nodes:
        index = values.get(argument(node, "index")) if node.target in POOLS else None
        if isinstance(index, Tensor) and index.ndim and argument(node, "dim") == 0 and shapes[node][:1] == (batch,):
            rows = index.reshape(len(index), -1)[:, 0]
            axes[node] = (0, 1)
            alike = (n for n in graph.nodes if n not in graph.parameters and shapes.get(n, ())[:1] == rows.shape)
            axes |= {n: (0, rows) for n in alike if n not in axes}
    return axes


def _size_at_capture(node: Node, dim: int, inner: Any) -> Any:
    """The open size that stands for the number of samples; None if it is fixed."""
    size = node.meta["val"].shape[dim]
    if isinstance(size, int) or not isinstance(inner, int) or not size.node.expr.free_symbols:
        return None
    return size.node.expr


def _dimension_named(symbol: Any, node: Node) -> int | None:
    """The dimension whose captured size is the number of samples."""
    value = node.meta.get("val")
    if symbol is None or not isinstance(value, Tensor):
        return None
    return next((d for d, n in enumerate(value.shape) if not isinstance(n, int) and n.node.expr == symbol), None)


def shuffle(node: Node, dim: int = 0) -> Any:
    """The index by which an operation picks rows along a dimension, or the bags that it puts them into."""
    if node.target is bagged:
        return argument(node, "bag")
    if node.target is aten.index_select.default and argument(node, "dim") == dim:
        return argument(node, "index")
    index = argument(node, "indices") if node.target is aten.index.Tensor else []
    alone = len(index) == dim + 1 and all(i is None for i in index[:dim])
    return index[dim] if alone and index[dim].meta["val"].ndim == 1 else None


def _shuffled(rows: Tensor, dim: int, inner: Any, batch: int) -> tuple[int, Any]:
    """The sample of every picked row."""
    return _regular(dim, inner[rows] if isinstance(inner, Tensor) else rows // inner % batch, batch)


def _of_packed(
    node: Node, made: Node, dim: int, inner: Any, shape: tuple[int, ...], values: dict[Node, Any], batch: int
) -> Any:
    """One result of packing, of padding, or of a layer between: samples are in the order of their first steps."""
    if made.target is PACK:
        x, lengths, first = arguments(made).values()
        lengths, device = values[lengths], x.meta["val"].device  # lengths are in main memory
        order = inner if isinstance(inner, Tensor) else torch.arange(len(lengths), device=device)
        steps = [order[lengths.to(order.device) > t] for t in range(int(lengths.max()))]
        return (0, torch.cat(steps)) if argument(node, 1) == 0 and dim == (not first) else None
    if made.target in PACKED:
        dim = int(argument(node, 1) != 0)
        return (dim, inner) if dim == 0 else _regular(dim, inner[: shape[dim]], batch)
    dim = int(not argument(made, "batch_first"))
    return _regular(dim, inner[: shape[dim]], batch) if argument(node, 1) == 0 else None


def _regular(dim: int, sample: Tensor, batch: int) -> tuple[int, Any]:
    """The sample of every row, in regular form if the rows are in order."""
    run = int((sample == sample[:1]).cumprod(0).sum())  # as many rows belong to the first sample
    regular = torch.arange(len(sample), device=sample.device) // max(run, 1) % batch
    return (dim, run) if run * batch <= len(sample) and torch.equal(sample, regular) else (dim, sample)


def _through_view(before: tuple[int, ...], dim: int, inner: int, after: tuple[int, ...], batch: int) -> Any:
    """Views keep the order of elements, and with it how many of them belong to one step of the sample index."""
    elements = inner * _product(before[dim + 1 :])
    if not elements:
        return None  # there is nothing in it
    behind = 1
    for d in reversed(range(len(after))):
        if elements % behind == 0 and (behind * after[d]) % (elements * batch) == 0:
            return (d, elements // behind)
        behind *= after[d]
    return None


def _moved_to(node: Node, dim: int, ndim: int) -> int | None:
    """Where a permutation puts a dimension."""
    if node.target is aten.permute.default:
        return [d % ndim for d in argument(node, "dims")].index(dim)
    if node.target is aten.transpose.int:
        x, y = (argument(node, name) % ndim for name in ("dim0", "dim1"))
        return {x: y, y: x}.get(dim, dim)
    return None


def _through(
    node: Node, shape: tuple[int, ...], before: tuple[int, ...], inner: int, batch: int, symbol: Any, dim: int
) -> Any:
    """Other operations: the dimension whose captured size names the batch, or that still fits."""
    value = node.meta.get("val")
    if symbol is not None and isinstance(value, Tensor):
        for d, size in enumerate(value.shape):
            if not isinstance(size, int) and symbol in size.node.expr.free_symbols:
                if d >= len(shape):  # the only sample, squeezed away
                    return None
                return (d, inner if shape[d] % (batch * inner) == 0 else 1)
        return None
    if len(shape) == len(before) and shape[dim] == before[dim]:
        return (dim, inner)
    fitting = [d for d, size in enumerate(shape) if size == batch]
    if dim in fitting or not fitting:
        return (dim, inner) if dim < len(shape) and shape[dim] % (batch * inner) == 0 else None
    return (fitting[0], 1)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
