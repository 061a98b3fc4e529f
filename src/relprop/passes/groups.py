"""Sums over groups of values, such as the edges that enter a node of a graph, and what hands them back to each."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..graph.arguments import argument, arguments

aten = torch.ops.aten

SUMS: dict[Any, tuple[str, str]] = {
    aten.scatter_add.default: ("src", "index"),
    aten.scatter_reduce.two: ("src", "index"),
    aten.index_add.default: ("source", "index"),
    aten.index_put.default: ("values", "indices"),
    aten.segment_reduce.default: ("data", "lengths"),
}
"""Operations that add values up by groups -> the argument with the values, and the one that says the groups."""
LOOKUPS: dict[Any, str] = {
    aten.index_select.default: "index",
    aten.gather.default: "index",
    aten.index.Tensor: "indices",
    aten.repeat_interleave.self_Tensor: "repeats",
}
"""Operations that give each value what its group has -> the argument that says the groups."""
RESHAPES = {
    *(aten.reshape.default, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.expand.default),
    *(aten.repeat.default, aten.flatten.using_ints, aten._to_copy.default),
}
ZEROS = {aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default}


def summed(node: Node) -> tuple[Node, Node] | None:
    """The values that are added up by groups, and what tells their groups; None if nothing is."""
    if node.target not in SUMS:
        return None
    given = arguments(node)
    values, groups = (given[name] for name in SUMS[node.target])
    if node.target is aten.segment_reduce.default:
        groups = groups if groups is not None else given["offsets"]
        from_zero = given["initial"] in (None, 0) and not given["unsafe"]
    else:
        from_zero = given["self"].target in ZEROS
    adds = given.get("reduce", "sum") == "sum" and given.get("accumulate", True) and given.get("alpha", 1) == 1
    index = _index(groups)
    return (values, index) if from_zero and adds and index is not None else None


def handed_back(node: Node) -> tuple[Node, Node] | None:
    """The values of all groups, and what tells which one each value gets; None if it is another operation."""
    if node.target not in LOOKUPS:
        return None
    index = _index(argument(node, LOOKUPS[node.target]))
    return None if index is None else (argument(node, "self"), index)


def same(a: Any, b: Any) -> bool:
    """Whether two nodes compute the same, one operation after the other."""
    if not isinstance(a, Node) or not isinstance(b, Node):
        return type(a) is type(b) and (all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b)
    if a is b or a.op != "call_function" or a.target is not b.target:
        return a is b
    return same([*arguments(a).values()], [*arguments(b).values()])


def _index(groups: Any) -> Node | None:
    """What tells the groups, whatever shape it is brought to; lengths that are differences of offsets are offsets."""
    if isinstance(groups, (list, tuple)):
        found = [g for g in groups if g is not None]
        return _index(found[0]) if len(found) == 1 else None
    while isinstance(groups, Node) and groups.target in RESHAPES:
        groups = argument(groups, 0)
    if not isinstance(groups, Node):
        return None
    if groups.target is aten.diff.default:
        return _index(argument(groups, 0))
    if groups.target is aten.sub.Tensor:  # ends - starts
        ends, starts = argument(groups, 0), argument(groups, 1)
        if all(isinstance(n, Node) and n.target is aten.slice.Tensor for n in (ends, starts)):
            offsets = argument(ends, 0)
            if argument(starts, 0) is offsets and argument(ends, "start") == 1 and argument(starts, "end") == -1:
                return _index(offsets)
    return groups
