"""Forward once, then the reverse sweep. Everything a call needs lives in one :class:`Run`, which dies with the call."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..graph.graph import READING, Graph
from ..rules.base import Call, Step
from ..rules.gradient import Source
from ..rules.message import Message, add
from .ledger import Ledger
from .plan import Plan
from .samples import Samples


class StandIns(NamedTuple):
    """Values that stand in for a model's own while a run is traced."""

    parameters: dict[Node, Tensor]
    derived: dict[Any, Tensor]
    """What was computed from parameters alone."""


class Run:
    """One forward run and its reverse sweeps. Holds every value, and nothing outlives it.

    Args:
        plan: what to do.
        leaves: the inputs.
        retain: whether there will be more than one sweep.
        hold: whether to hold also the values that no rule needs.
        differentiable: whether relevance can be differentiated in turn.
        batch: number of samples, for the ledger.
        stand_ins: what to run with instead of the model's own parameters; the run is being traced.
    """

    def __init__(
        self,
        plan: Plan,
        leaves: list[Any],
        *,
        retain: bool = False,
        hold: bool = False,
        differentiable: bool = False,
        batch: int | None = None,
        stand_ins: StandIns | None = None,
    ):
        self.plan, self.retain, self.hold, self.differentiable = plan, retain, hold, differentiable
        self.values: dict[Node, Any] = {}
        self.shapes: dict[Node, Any] = {}
        self.calls: dict[Node, Call] = {}
        self.ledger: Ledger | None = None
        self.leaves, self.batch, self.stand_ins = leaves, batch, stand_ins
        self.flow: list[tuple[Node, Tensor]] | None = None
        self._anchor = torch.zeros((), requires_grad=True)
        self._load(leaves)
        self._derived = {} if differentiable else stand_ins.derived if stand_ins else plan.derived.current(self.values)
        self._constants = {} if differentiable else self._derived_constants()
        # the gradients of fused attention kernels have no gradient themselves
        kernels = sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()
        with torch.set_grad_enabled(differentiable), kernels:
            self._forward()

    # -- forward ------------------------------------------------------------------------------------------------------

    def _load(self, leaves: list[Any]) -> None:
        graph = self.plan.graph
        for node, leaf in zip(graph.inputs, leaves, strict=True):
            if node is not None:
                own = self._own(leaf)
                self.values[node] = own.contiguous() if node in self.plan.contiguous else own
                self.shapes[node] = leaf.shape
        for node, value in (self.stand_ins.parameters if self.stand_ins else parameters_of(graph)).items():
            self.values[node] = self._own(value)
            self.shapes[node] = value.shape

    def _own(self, value: Tensor) -> Tensor:
        if value.is_inference():  # autograd, which some rules use, saves nothing that was made under inference_mode
            return value.clone()
        return value if self.differentiable else value.detach()

    def _forward(self) -> None:
        self.values.update(self._constants)
        self._execute(self.plan.order, self.plan.last_use)

    def _execute(self, nodes: Iterable[Node], last_use: dict[Node, list[Node]]) -> None:
        """Run operations in order, and free every value after its last use."""
        steps, values = self.plan.steps, self.values
        this = weakref.proxy(self)  # calls belong to the run: a cycle would keep all values until a garbage collection
        for node in nodes:
            if node in self._constants:
                continue
            step = steps.get(node)
            if step is None:
                value = run_node(node, values)
            else:
                call = self.calls.setdefault(node, Call(step, this))
                value = step.rule.forward(call)
            if node in self.plan.contiguous:
                value = value.contiguous()
            values[node] = value
            if isinstance(value, Tensor):
                self.shapes[node] = value.shape
            for used in last_use.get(node, ()):
                if used not in self._constants and not self.hold:
                    values.pop(used, None)

    @property
    def outputs(self) -> list[Any]:
        """The leaves of the model's output, in memory in the order of their dimensions, whatever is done with them."""
        found = [self.values[o] if isinstance(o, Node) else o for o in self.plan.graph.outputs]
        return [o.contiguous() if isinstance(o, Tensor) else o for o in found]

    def may_overwrite(self, node: Node) -> bool:
        """Whether an activation may be computed in place: a fresh value that only this operation sees."""
        step = self.plan.steps.get(node)
        return (
            step is not None
            and step.kind in ("dense", "convolution", "affine", "add")
            and len(node.users) == 1
            and node not in self.plan.saved
            and node not in self.plan.roots
            and not self.differentiable
            and not self.hold
        )

    # -- what rules ask for -------------------------------------------------------------------------------------------

    def source(self, value: Tensor) -> Tensor:
        """A value as the start of a local gradient."""
        if self.differentiable:
            return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        return Source.apply(value, self._anchor)

    def detach(self, value: Tensor) -> Tensor:
        return value if self.differentiable else value.detach()

    def accumulate(self, value: Tensor) -> Tensor:
        """A value in the precision in which relevance is computed: at least single precision."""
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def like(self, node: Node) -> Tensor:
        """An uninitialised tensor in the shape of a node's value, in the precision of relevance."""
        value = node.meta["val"]
        device = next((v.device for v in self.values.values() if isinstance(v, Tensor)), None)
        dtype = torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else value.dtype
        return torch.empty(self.shapes[node], dtype=dtype, device=device)

    def derived(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """A value computed from parameters alone, kept until they change."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def _derived_constants(self) -> dict[Node, Any]:
        """Operations on parameters alone, such as the weights that batch norm was folded into."""
        values = dict(self.values)
        found: dict[Node, Any] = {}
        with torch.no_grad():
            for node in self.plan.derived.nodes:
                found[node] = values[node] = self.derived(node, lambda n=node: run_node(n, values))  # type: ignore[misc]
        for node, value in found.items():
            if isinstance(value, Tensor):
                self.shapes[node] = value.shape
        return found

    @property
    def keeps_books(self) -> bool:
        return self.ledger is not None

    @property
    def is_traced(self) -> bool:
        return self.stand_ins is not None

    def kept_as(self, step: Step) -> Node:
        return self.plan.kept_as(step)

    def reason_for(self, node: Node) -> str:
        """How the share of a constant is booked."""
        if node in self.plan.graph.constants:
            return "parameter"
        return "stopped" if node in self.plan.dependent else "input"

    def book(self, reason: str, place: Node, amount: Tensor, shaped_as: Node) -> None:
        assert self.ledger is not None
        self.ledger.book(reason, place, self.per_sample(amount, shaped_as))

    def per_sample(self, amount: Tensor, node: Node) -> Tensor:
        """Sum over everything but the samples, [B]."""
        return self.samples.sums(amount, node)

    def is_shared(self, node: Node) -> bool:
        """Whether what is explained has no dimension for the samples."""
        return self.samples.batch > 1 and node in self.samples.shared

    @cached_property
    def samples(self) -> Samples:
        """Which sample every part of every tensor belongs to."""
        return Samples(self.plan.graph, self.shapes, self.values, self.batch or 1, self.plan.sources)

    # -- the reverse sweep --------------------------------------------------------------------------------------------

    def sweep(
        self,
        seeds: dict[Node, Message],
        masks: dict[Node, Callable[[Tensor], Tensor]] | None = None,
        record: dict[Node, Tensor | None] | None = None,
    ) -> dict[Node, Message]:
        """Hand relevance back from the seeds. Returns the messages that reached the sources."""
        with torch.set_grad_enabled(self.differentiable):
            return self._sweep(dict(seeds), masks or {}, record if record is not None else {})

    def _sweep(
        self,
        messages: dict[Node, Message],
        masks: dict[Node, Callable[[Tensor], Tensor]],
        record: dict[Node, Tensor | None],
    ) -> dict[Node, Message]:
        plan = self.plan
        sources = set(plan.sources)
        for node in [n for n in messages if n.target is operator.getitem]:
            self._file(node, messages.pop(node), messages)
        for node, step in reversed(plan.steps.items()):
            self._reach(node)
            message = messages.pop(node, Message())
            call = self.calls[node]
            if message or call.messages:
                if node in masks:
                    message = self._mask(node, message, masks[node])
                if node in record:
                    record[node] = add(record[node], message.relevance(self.values[node]))
                if self.flow is not None and message and (message.c is None or node in self.values):
                    self.flow.append((node, message.relevance(self.values.get(node)).abs().sum()))
                for source, sent in zip(step.active, step.rule.backward(call, message), strict=True):
                    if sent:
                        self._file(source, sent, messages, step.rule.sends_new and not self.differentiable)
            call.messages.clear()
            if not self.retain:
                call.saved.clear()
                for saved in plan.release.get(node, ()):
                    self.values.pop(saved, None)
        return {n: m for n, m in messages.items() if n in sources}

    def _reach(self, node: Node) -> None:
        """The reverse sweep comes to an operation."""

    def _file(self, node: Node, message: Message, messages: dict[Node, Message], new: bool = False) -> None:
        """Add a message to a node; one to a single output of several goes to the operation that made them."""
        if node.target is operator.getitem:
            parent, index = node.args
            slots = self.calls[parent].messages if parent in self.calls else {}  # type: ignore[index]
            slots[index] = slots[index].plus(message) if index in slots else message  # type: ignore[index]
        else:
            messages[node] = messages[node].plus(message, into=new) if node in messages else message

    def _mask(self, node: Node, message: Message, mask: Callable[[Tensor], Tensor]) -> Message:
        value = self.values[node]
        kept = mask(value)
        masked = message.scaled(kept)
        if self.ledger is not None:
            lost = message.relevance(value) - masked.relevance(value)
            self.book("masked", node, lost, node)
        return masked


def parameters_of(graph: Graph) -> dict[Node, Tensor]:
    """The live parameters of a graph."""
    with READING:
        return {node: graph.lookup(name) for node, name in graph.parameters.items()}


def run_node(node: Node, values: dict[Node, Any]) -> Any:
    """Run one operation that has no rule to run it."""
    args = torch.fx.node.map_arg(node.args, values.__getitem__)
    kwargs = torch.fx.node.map_arg(node.kwargs, values.__getitem__)
    return node.target(*args, **kwargs)  # type: ignore[operator]
