"""Selectors: which operations of the graph a rule is for. They combine with ``&``, ``|`` and ``~``.

"First", "last" and depth are decided in the graph, not by the order in which modules were defined.
"""

from __future__ import annotations

import operator
from fnmatch import fnmatchcase
from functools import partial
from heapq import heappop, heappush
from typing import Any

import torch
from torch.fx import Node

from .errors import SelectionError
from .graph.facts import facts
from .graph.graph import is_float, module_stack
from .scope import LINEAR_KINDS, Scope, Selector

__all__ = [
    "Scope",
    "Selector",
    "activation",
    "add",
    "affine",
    "attention",
    "average_pool",
    "convolution",
    "dense",
    "depth",
    "everything",
    "first",
    "gate",
    "last",
    "linear",
    "module",
    "module_type",
    "norm",
    "op",
    "pool",
    "product",
    "recurrent",
    "softmax",
    "state_space",
]

_ATEN = torch.ops.aten
_EMBEDDING = _ATEN.embedding.default
_ZEROS = (_ATEN.zeros.default, _ATEN.new_zeros.default, _ATEN.zeros_like.default)


def _of_kind(name: str, *kinds: str) -> Selector:
    return Selector(name, partial(_has_kind, kinds))


def _has_kind(kinds: tuple[str, ...], node: Node, scope: Scope) -> bool:
    return scope.kinds[node] in kinds


def convolution() -> Selector:
    """Convolutions and transposed convolutions of any dimension, with constant weights."""
    return _of_kind("convolution()", "convolution")


def dense() -> Selector:
    """Dense layers: ``linear`` and products with a constant matrix."""
    return _of_kind("dense()", "dense")


def linear() -> Selector:
    """Either of :func:`convolution` and :func:`dense`."""
    return _of_kind("linear()", *LINEAR_KINDS)


def affine() -> Selector:
    """Batch norms that could not be folded into a linear operation."""
    return _of_kind("affine()", "affine")


def activation() -> Selector:
    """Elementwise functions."""
    return _of_kind("activation()", "activation")


def add() -> Selector:
    """Sums and differences."""
    return _of_kind("add()", "add")


def product() -> Selector:
    """Products of tensors of which none is a constant weight."""
    return _of_kind("product()", "product")


def pool() -> Selector:
    """Maximum and average pooling."""
    return _of_kind("pool()", "maximum pool", "average pool")


def average_pool() -> Selector:
    """Average pooling only."""
    return _of_kind("average_pool()", "average pool")


def norm() -> Selector:
    """Layer, group, instance and RMS norms."""
    return _of_kind("norm()", "norm")


def gate() -> Selector:
    """What only scales another active tensor: the activated side of a gated product, weights of attention or experts.

    Those are activations and softmax functions that end up, moved, normalised or scaled at most, as a factor of
    products and nowhere else. Of two activated factors the sigmoid is the gate (``tanh(x) * sigmoid(y)``).
    """
    return Selector("gate()", _gates)


def _gates(node: Node, scope: Scope) -> bool:
    strength, found = _squashes(node, scope), False
    moved, queue = {node}, sorted(node.users)
    while strength and queue:
        user = heappop(queue)  # in the order of execution, so that w / w.sum() meets the sum first
        if any(n.target in _ZEROS for n in user.all_input_nodes):
            continue  # an initial state: the product is zero, and carries nothing
        kind = "structural" if user.target is operator.getitem else scope.kinds.get(user)
        others = [n for n in user.all_input_nodes if n not in moved and (_may_be_active(n, scope) or _is_initial(n))]
        if kind == "product" and others:
            if any(_squashes(_origin(n, scope), scope) >= strength for n in others):
                return False
            found = True
        elif kind in ("structural", "quotient", "product", "add") and not others:
            if user not in moved:
                for n in user.users:
                    heappush(queue, n)
            moved.add(user)
        elif kind is not None:
            return False
    return found


def _squashes(node: Node, scope: Scope) -> int:
    """How much a node looks like a gate: sigmoids and softmax functions before other activations."""
    kind = scope.kinds.get(node)
    return 2 if kind == "softmax" else facts(node).gate if kind == "activation" else 0


def _origin(node: Node, scope: Scope) -> Node:
    while scope.kinds.get(node) == "structural" or node.target is operator.getitem:
        node = node.all_input_nodes[0]
    return node


def _may_be_active(node: Node, scope: Scope) -> bool:
    """Operations of the scope, and the sources in front of it."""
    source = node in scope.graph.inputs or node.target in (operator.getitem, _EMBEDDING)
    return node in scope.kinds or (source and is_float(node))


def _is_initial(node: Node) -> bool:
    """What a layer makes of a state of zeros: a constant in the first step, and active in all later ones."""
    while node.all_input_nodes and (facts(node).kind in ("structural", "add") or node.target is operator.getitem):
        node = node.all_input_nodes[0]
    return facts(node).kind in ("dense", "product") and any(n.target in _ZEROS for n in node.all_input_nodes)


SELECTIVE = ("*Mamba*", "*SSM*", "*S6*")
"""What classes of selective state spaces are called. How a state is computed (a loop, a scan, products of chunks)
differs between implementations, so that nothing but their name tells what a projection is for."""
GATED = ("*GatedDelta*", "*GatedLinear*", "*Rwkv*", "*RWKV*")
"""The same for gated linear attention."""


def state_space() -> Selector:
    """The parameters of a selective state space, which depend on the input: Δ, A, B and C.

    Those are ``softplus`` and ``exp`` in front of products, and what the projection ``x_proj`` (Mamba) or the middle of
    the mixer (Mamba-2: the second and third part of one split) hands to the recurrence. The decays of gated linear
    attention, which is such a recurrence with matrices for states, are parameters of the same kind.
    """

    return Selector("state_space()", _steers_state)


def _steers_state(node: Node, scope: Scope) -> bool:
    if node.target in (_ATEN.softplus.default, _ATEN.exp.default):
        return _in_mixer(node, (*SELECTIVE, *GATED))
    if scope.kinds[node] == "dense":
        return in_module(node, "*x_proj")
    part = node.all_input_nodes[0] if node.all_input_nodes else node
    if part.target is not operator.getitem or not _in_mixer(node, SELECTIVE):
        return False
    split, position = part.args
    origin = _origin(split.args[0], scope)  # type: ignore[union-attr, arg-type]
    return position in (1, 2) and scope.kinds.get(origin) == "activation"


def _in_mixer(node: Node, classes: tuple[str, ...]) -> bool:
    """Whether a module around a node is of such a class."""
    names = [kind.rpartition(".")[2] for _, kind in module_stack(node)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in classes)


def softmax() -> Selector:
    """Softmax functions that stand alone, such as those of hand-written attention."""
    return _of_kind("softmax()", "softmax")


def attention() -> Selector:
    """Fused attention (``scaled_dot_product_attention``)."""
    return _of_kind("attention()", "attention")


def recurrent() -> Selector:
    """LSTM, GRU and RNN layers."""
    return _of_kind("recurrent()", "recurrent")


def module(pattern: str) -> Selector:
    """Operations called within modules whose path matches a pattern: ``"layer3.*"``, ``"*.mlp"``, ``"fc"``."""
    return Selector(f"module({pattern!r})", partial(_in_module, pattern))


def _in_module(pattern: str, node: Node, scope: Scope) -> bool:
    return in_module(node, pattern)


def module_type(kind: type | str) -> Selector:
    """Operations called within modules of a type, given as a class or by its name."""
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return Selector(f"module_type({name.rpartition('.')[2]})", partial(_in_type, name))


def _in_type(name: str, node: Node, scope: Scope) -> bool:
    return any(t == name or t.rpartition(".")[2] == name for _, t in module_stack(node))


def op(*operations: Any) -> Selector:
    """Operations by what is called, such as ``torch.ops.aten.conv2d.default``."""
    targets: set[Any] = set()  # torch's own by name, since they cannot be pickled
    for operation in operations:
        if isinstance(operation, torch._ops.OpOverloadPacket):
            targets |= {str(getattr(operation, name)) for name in operation.overloads()}
        else:
            targets.add(str(operation) if isinstance(operation, torch._ops.OpOverload) else operation)
    return Selector(f"op({', '.join(str(o) for o in operations)})", partial(_calls, targets))


def _calls(targets: set[Any], node: Node, scope: Scope) -> bool:
    return node.target in targets or str(node.target) in targets


def first(selector: Selector) -> Selector:
    """Those with no other match on any path from the inputs."""
    return Selector(f"first({selector})", partial(_outermost, selector, False))


def last(selector: Selector) -> Selector:
    """Those with no other match on any path to the output."""
    return Selector(f"last({selector})", partial(_outermost, selector, True))


def _outermost(selector: Selector, backwards: bool, node: Node, scope: Scope) -> bool:
    return node in scope.without_before(scope.matches(selector), backwards)


def depth(low: float, high: float) -> Selector:
    """Operations whose depth is in [low, high), counted in linear operations: 0 is the input, 1 the output.

    Raises:
        SelectionError: if the range is empty or reaches outside [0, 1].
    """
    if not 0 <= low < high <= 1:
        raise SelectionError(f"depth takes 0 <= low < high <= 1, got {low} and {high}")
    return Selector(f"depth({low:g}, {high:g})", partial(_within, low, high))


def _within(low: float, high: float, node: Node, scope: Scope) -> bool:
    return low <= scope.depth(node) < high or (high == scope.depth(node) == 1)


def everything() -> Selector:
    """Every operation."""
    return Selector("everything()", _any)


def _any(node: Node, scope: Scope) -> bool:
    return True


def in_module(node: Node, pattern: str) -> bool:
    """Whether a node was called by, or within, a module whose path matches."""
    stacks = [module_stack(node)]
    if node.meta.get("also_module"):
        stacks.append(stack_of(node.meta["also_module"]))
    paths = {path for stack in stacks for path, _ in stack}
    paths |= {path.partition("@")[0] for path in paths}
    return any(fnmatchcase(path, pattern) for path in paths)


def stack_of(meta: Any) -> list[tuple[str, str]]:
    return [(path, str(kind)) for path, kind in meta.values()]
