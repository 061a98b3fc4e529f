"""Look-ups: where integers become rows of a table, and whose integers they are.

Relevance of a row goes to the value that chose it: a token id for its embedding, a category for its row, a number for
the vector of the interval that it falls into, whatever the model has done to it on the way (owners.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import nn
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import facts
from ..graph.graph import READING, Graph, calls, is_float, shape_of
from .activity import active_nodes, ancestors
from .owners import CONDITIONALS, INDEX, PLACES, Pointwise, Way, branches_of
from .ways import product_with, way_of

aten = torch.ops.aten


class Vectors(IntEnum):
    """Whether a tensor says by place what its numbers say by size."""

    NONE = 0
    SOME = 1
    """One-hot vectors, or what was made of them."""
    OF_ONE = 2
    """Each, along the last dimension, stands for a single number."""


@dataclass(frozen=True)
class Origin:
    """What the numbers of a tensor were made of."""

    inputs: frozenset[int] = frozenset()
    """Positions of the inputs."""
    lost: Node | None = None
    """The first operation in which their owners get lost."""
    vectors: Vectors = Vectors.NONE
    way: Way | None = None
    """How owners pass the operation that made the tensor."""


@dataclass(frozen=True)
class Lookup:
    """An operation whose values are rows."""

    inputs: frozenset[int]
    """Positions of the inputs that chose them."""
    path: tuple[tuple[Node, Way], ...]
    """What owners pass on their way from these inputs to the rows, in order of execution."""

    @property
    def needs(self) -> set[Node]:
        """Nodes whose values tell who chose the rows."""
        return {n for node, way in self.path for n in way.needs(node)}


@dataclass(frozen=True)
class Lookups:
    """All look-ups of a graph."""

    rows: dict[Node, Lookup] = field(default_factory=dict)
    missed: dict[Node, Origin] = field(default_factory=dict)
    """Look-ups of which it cannot be told who chose the rows."""


def lookups(graph: Graph) -> Lookups:
    """The look-ups of a graph, found once."""
    if "lookups" not in graph.known:
        graph.known["lookups"] = _find(graph)
    found: Lookups = graph.known["lookups"]
    return found


def explainable(graph: Graph) -> list[int]:
    """Positions of the inputs that can be explained: numbers, and integers that choose rows of a table."""
    choosing = {i for lookup in lookups(graph).rows.values() for i in lookup.inputs}
    return [i for i, n in enumerate(graph.inputs) if n is not None and (is_float(n) or i in choosing)]


def explained(graph: Graph, sources: Mapping[Node, Sequence[int]]) -> list[Node]:
    """The nodes where relevance is read, and the inputs that it belongs to."""
    inputs = [graph.inputs[i] for own in sources.values() for i in own]
    return list(dict.fromkeys(n for n in [*sources, *inputs] if n is not None))


def needed(graph: Graph, sources: Iterable[Node]) -> set[Node]:
    """Nodes whose values tell who chose the rows of these look-ups."""
    rows = lookups(graph).rows
    return set().union(*(rows[source].needs for source in sources if source in rows))


def _find(graph: Graph) -> Lookups:
    origins = _origins(graph)
    candidates = [n for n in origins if calls(n) and _is_lookup(n, graph, origins)]
    certain = {n for n in candidates if _is_certain(n, graph)}
    floats = [n for n in graph.inputs if n is not None and is_float(n)]
    live = active_nodes(graph, [*floats, *certain])
    found = Lookups()
    for node in reversed(candidates):  # a product with one-hot vectors before the vectors
        if origins[node].lost is not None:
            if node in certain:
                found.missed[node] = origins[node]
        elif node in certain or (_is_row(node, origins) and _is_feature(node, graph, live, found.rows)):
            found.rows[node] = Lookup(origins[node].inputs, _path(node, origins))
    return found


def _path(lookup: Node, origins: dict[Node, Origin]) -> tuple[tuple[Node, Way], ...]:
    ways, stack = {}, [lookup]
    while stack:
        node = stack.pop()
        way = origins[node].way
        if way is not None and node not in ways:
            ways[node] = way
            stack += [n for n in way.follows(node) if n in origins and origins[n].inputs]
    return tuple((node, ways[node]) for node in origins if node in ways)


# ---------------------------------------------------------------------------------------------------------------------
# What numbers are made of
# ---------------------------------------------------------------------------------------------------------------------


def _origins(graph: Graph) -> dict[Node, Origin]:
    """The origin of everything that depends on inputs, in order of execution."""
    origins: dict[Node, Origin] = {}
    for i, node in enumerate(graph.inputs):
        if node is not None:  # masks choose nothing
            is_mask = node.meta["val"].dtype == torch.bool
            origins[node] = Origin(frozenset([i]), lost=node if is_mask else None)
    for node in graph.nodes:
        if calls(node) and node not in graph.constants:
            origins[node] = _origin(node, graph, origins)
    return origins


def _origin(node: Node, graph: Graph, origins: dict[Node, Origin]) -> Origin:
    """What a node is made of, from what its arguments are made of."""
    counted = any(origins[n].vectors for n in node.all_input_nodes if n in origins)
    way = way_of(node, graph.constants, _condition_counts(node, origins), counted)
    product = product_with(node, graph.constants)
    if product is not None and origins.get(argument(node, 0), Origin()).vectors is Vectors.OF_ONE:
        way = product
    followed = [n for n in (way.follows(node) if way else node.all_input_nodes) if n in origins]
    before = [origins[n] for n in followed]
    lost = next((o.lost for o in before if o.lost is not None), None if way else node)
    inputs = frozenset().union(*(o.inputs for o in before))
    return Origin(inputs, lost, _vectors(node, graph, way, before), way)


def _condition_counts(node: Node, origins: dict[Node, Origin]) -> bool:
    """Whether a condition is an owner of what it chooses.

    What it chooses between two numbers of the model is its own. So is a number that replaces an id because of what that
    id is; but what is put in the place of ids for another reason, such as a mask, is the model's.
    """
    if node.target not in CONDITIONALS:
        return False
    condition, *branches = branches_of(node)
    own, *others = (origins.get(n, Origin()) for n in (condition, *branches))
    inputs = frozenset().union(*(o.inputs for o in others))
    return own.lost is None and bool(own.inputs) and (not inputs or own.inputs <= inputs)


def _vectors(node: Node, graph: Graph, way: Way | None, before: list[Origin]) -> Vectors:
    """Whether an operation makes one-hot vectors, or something of them."""
    if node.target is aten.one_hot.default:
        return Vectors.OF_ONE
    if node.target in INDEX and (table := argument(node, 0)) in graph.constants:
        return Vectors.OF_ONE if table.target is aten.eye.default else Vectors.SOME
    if node.target in PLACES and argument(node, 0) in graph.constants:
        index, last = argument(node, PLACES[node.target]), arguments(node).get("dim")
        one = isinstance(index, Node) and last in (-1, index.meta["val"].ndim - 1) and _is_one(index)[-1]
        return Vectors.OF_ONE if one else Vectors.SOME
    if node.target is aten.eq.Tensor and len(before) == 1:  # compared with a list of numbers
        x = next(n for n in node.all_input_nodes if n not in graph.constants)
        spread = [b and not a for b, a in zip(reversed(_is_one(x)), reversed(_is_one(node)), strict=False)]
        return Vectors.OF_ONE if spread[:1] == [True] else Vectors.SOME if any(spread) else Vectors.NONE
    if isinstance(way, Pointwise) and len(before) == 1:
        return before[0].vectors
    return Vectors.SOME if any(o.vectors for o in before) else Vectors.NONE


def _is_one(node: Node) -> list[bool]:
    """Which dimensions have length one, whatever the inputs."""
    return [isinstance(n, int) and n == 1 for n in shape_of(node) or ()]


# ---------------------------------------------------------------------------------------------------------------------
# What is a look-up
# ---------------------------------------------------------------------------------------------------------------------


def _is_lookup(node: Node, graph: Graph, origins: dict[Node, Origin]) -> bool:
    """Whether a floating-point value is made of integers and constants, or of one-hot vectors and a table."""
    way = origins[node].way
    if way is None or not is_float(node) or not origins[node].inputs:
        return False
    followed = [n for n in way.follows(node) if n in origins]
    others = [n for n in node.all_input_nodes if n not in followed and is_float(n)]
    if not followed or any(n not in graph.constants for n in others):
        return False
    if product_with(node, graph.constants) is not None:
        return _is_lookup(followed[0], graph, origins)
    return not any(map(is_float, followed))


def _is_row(node: Node, origins: dict[Node, Origin]) -> bool:
    """Whether fixed numbers are one's own, and not only the integers as numbers, or a mask made of them."""
    return bool(origins[node].vectors) or node.target in INDEX


def _is_certain(node: Node, graph: Graph) -> bool:
    """Whether rows are embeddings, or parameters: those count even where they only scale what is explained."""
    if node.target is aten.embedding.default:
        return True
    if not (node.target in INDEX or node.target in CONDITIONALS or product_with(node, graph.constants)):
        return False
    tables = [n for n in node.all_input_nodes if n in graph.constants]
    names = [graph.parameters[n] for n in ancestors(tables) if n in graph.parameters]
    with READING:
        return any(isinstance(graph.lookup(name), nn.Parameter) for name in names)


def _is_feature(lookup: Node, graph: Graph, live: Collection[Node], rows: Collection[Node]) -> bool:
    """Whether rows of fixed numbers are values to reckon with, and not only factors of others, as masks are."""
    queue, seen = [lookup], {lookup}
    while queue:
        node = queue.pop()
        if node in graph.outputs:
            return True
        for user in node.users:
            if not is_float(user) or user in seen or user in rows:
                continue
            others = [n for n in user.all_input_nodes if n in live]
            if others and facts(user).kind in FACTORS:
                continue
            if others or way_of(user, graph.constants) is None:
                return True
            seen.add(user)
            queue.append(user)
    return False


FACTORS = {"product", "quotient", "attention"}
"""Kinds of operations whose arguments may be factors of each other."""
