"""The captured model: a functional graph of tensor operations with live parameters.

A :class:`Graph` wraps a plain ``torch.fx.Graph`` whose placeholders are either parameters (looked up in the live
model at every run) or inputs. Passes make a new canonical graph out of it and never touch the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import getitem, itemgetter
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

READING = threading.RLock()
"""Held while a model is captured and while parameters are read: torch.export swaps them for stand-ins meanwhile."""


@dataclass
class Graph:
    """A functional graph: nodes in order of execution, and how values enter and leave it."""

    fx: torch.fx.Graph
    inputs: list[Node | None]
    """One placeholder per leaf of the inputs; None for a leaf that is no tensor."""
    input_names: list[str]
    parameters: dict[Node, str]
    """Placeholder of a parameter, buffer or constant -> its name in the model."""
    lookup: Callable[[str], Tensor]
    """Name of a parameter -> its live value."""
    in_spec: Any
    outputs: list[Any]
    """Leaves of the model's output: nodes, or plain values."""
    out_spec: Any
    recorded: bool = False
    """True if the graph was recorded from one real run: values of parameters may have decided its way."""
    looked: bool = False
    """True if values of the inputs may have decided it, too, so that it is valid for those inputs only."""
    written: tuple[str, ...] = ()
    """Parameters that the model writes to in its forward."""
    exact: bool = True
    """False if casts to single precision were left out of a model in double precision: it rounds more than we do."""
    random: dict[Node, Node] = field(default_factory=dict)
    """Nodes whose values are drawn anew at every run -> the operation that draws them."""
    constants: set[Node] = field(default_factory=set)
    """Nodes that depend on parameters alone, not on any input."""
    vanished: dict[str, str] = field(default_factory=dict)
    """Path of a module whose operation is none of its own any more -> where it went, in words."""
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What was found out about the graph once it was canonical."""

    @property
    def nodes(self) -> Iterable[Node]:
        return self.fx.nodes

    def replace(self, old: Node, new: Node) -> None:
        """Let a node take another one's place, also among the outputs."""
        old.replace_all_uses_with(new)
        self.outputs[:] = [new if o is old else o for o in self.outputs]

    def vanish(self, node: Node, why: str) -> None:
        """Remember where an operation went that a pass took out, for whoever asks for its module."""
        for path, _ in module_stack(node):
            self.vanished.setdefault(path, why)

    def run(self, leaves: Iterable[Any]) -> list[Any]:
        """The leaves of the output, without anything that an explanation needs."""
        values: dict[Node, Any] = {n: entering(n, x) for n, x in zip(self.inputs, leaves, strict=True) if n is not None}
        values |= {node: self.lookup(name) for node, name in self.parameters.items()}
        left = {node: len(node.users) for node in self.nodes}
        for node in filter(calls, self.nodes):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            for used in node.all_input_nodes:
                left[used] -= 1
                if not left[used] and used not in self.outputs:
                    del values[used]
        return [values[o] if isinstance(o, Node) else o for o in self.outputs]

    def unflatten_output(self, leaves: list[Any]) -> Any:
        return pytree.tree_unflatten(leaves, self.out_spec)


def entering(node: Node, leaf: Tensor) -> Tensor:
    """An input as the graph takes it: a sparse matrix with its zeros."""
    return leaf if leaf.layout == node.meta["val"].layout else leaf.to_dense()


Values = Mapping[Node, Any]


def caller(node: Node) -> Callable[[Values], Any]:
    """A function that runs an operation on the values of its inputs; what can be looked up before it runs is."""
    target: Any = node.target
    kwargs, given = node.kwargs, [a for a in node.args if isinstance(a, Node)]
    rest = node.args[len(given) :]
    if len(given) != len(node.all_input_nodes) or any(isinstance(a, Node) for a in rest):  # also in lists, or by name
        return lambda values: target(*map_arg(node.args, values.__getitem__), **map_arg(kwargs, values.__getitem__))
    if len(given) == 1:
        (x,) = given
        return lambda values: target(values[x], *rest, **kwargs)
    if not given:
        return lambda values: target(*rest, **kwargs)
    taken = itemgetter(*given)
    return lambda values: target(*taken(values), *rest, **kwargs)


# ---------------------------------------------------------------------------------------------------------------------
# What a node tells about itself
# ---------------------------------------------------------------------------------------------------------------------


def calls(node: Node) -> bool:
    return node.op == "call_function"


def picks(node: Node) -> bool:
    """Whether a node only picks one of several outputs."""
    return node.target is getitem


def made_by(node: Node) -> Node:
    """The operation behind a pick."""
    made: Any = node.args[0] if picks(node) else node
    return made


def module_stack(node: Node) -> list[tuple[str, str]]:
    """(path, type) of every module around this call, outermost first; a second call of a module is ``path@1``."""
    stack = node.meta.get("nn_module_stack") or {}
    found = []
    for key, (path, kind) in stack.items():
        call = str(key).rpartition("@")[2] if "@" in str(key) else ""
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        found.append((f"{path}@{call}" if call and path else path, name))
    return found


def module_path(node: Node) -> str:
    """Path of the innermost module that made this call, empty for the model itself."""
    stack = module_stack(node)
    return stack[-1][0] if stack else ""


def module_type(node: Node) -> str:
    stack = module_stack(node)
    return stack[-1][1] if stack else ""


def operation(node: Node) -> str:
    """Readable name of the operation, such as ``aten.conv2d``."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = str(target)
        return name.removesuffix(".default")
    if isinstance(target, torch._ops.OpOverloadPacket):
        return str(target)
    return getattr(target, "__name__", str(target))


def source_line(node: Node) -> str:
    """``file:line`` of the user's own code that made this call (torch.nn's files are passed over if possible)."""
    frames = []
    for line in (node.meta.get("stack_trace") or "").splitlines():
        line = line.strip()
        if line.startswith('File "'):
            path, _, rest = line[6:].partition('", line ')
            frames.append((path, rest.split(",")[0]))
    for path, number in reversed(frames):
        if "/torch/" not in path.replace("\\", "/"):
            return f"{path}:{number}"
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""


def describe(node: Node) -> str:
    """``layer1.0.conv1 (aten.conv2d)``: the words that errors, warnings and ledgers use for a node."""
    path = module_path(node)
    return f"{path} ({operation(node)})" if path else f"{node.name} ({operation(node)})"


def place(node: Node) -> str:
    """Module, operation and source line of a node, for messages."""
    line = source_line(node)
    return describe(node) + (f" at {line}" if line else "")


def shape_of(node: Node) -> tuple[Any, ...] | None:
    """Symbolic shape seen at capture, or None if the node is no tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else None


def is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype.is_floating_point


def holds_numbers(node: Node) -> bool:
    """Whether a node is a tensor of floating-point or complex numbers, rather than of indices or truths."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)


def looks_at_memory(node: Node) -> bool:
    """Whether an operation may depend on how its inputs lie in memory: operations of others' are not known."""
    target: Any = node.target
    if target in (torch.ops.aten.as_strided.default, torch.ops.aten.view_as_complex.default):
        return True
    return isinstance(target, torch._ops.OpOverload) and target.namespace not in ("aten", "prims", "relprop")


def was_contiguous(node: Node) -> bool:
    """Whether a value lay in memory in the order of its dimensions when the model was captured."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_contiguous()
