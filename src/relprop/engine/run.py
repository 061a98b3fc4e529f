"""Forward once, then the reverse sweep. Everything a call needs lives in one :class:`Run`, which dies with the call."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import RelpropError, RuleError, reason_of
from ..graph.graph import READING, Graph, entering, place
from ..rules.base import Call, Step
from ..rules.gradient import Source
from ..rules.layers import LAYER_KINDS
from ..rules.message import NO_MESSAGE, Message
from .inbox import Inbox, Parts
from .ledger import Ledger
from .plan import Plan, rule_name
from .samples import Samples
from .schedule import Operation
from .watch import Watcher


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

    guarded = False
    """Whether there is a guard against values that are NaN or infinite."""

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
        self._weakly = weakref.proxy(self)  # calls are the run's: a cycle would hold values until a garbage collection
        self._anchor = torch.zeros((), requires_grad=True)
        self._load(leaves)
        self._derived = (
            {} if differentiable else stand_ins.derived if stand_ins else plan.schedule.derived.current(self.values)
        )
        self._constants = {} if differentiable else self._derived_constants()
        # the gradients of fused attention kernels have no gradient themselves
        kernels = sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()
        with torch.set_grad_enabled(differentiable), kernels:
            self._forward()

    def again(self) -> Run:
        """The same once more, with all that it computes, for who looks into it."""
        return Run(self.plan, self.leaves, retain=True, hold=True, batch=self.batch)

    # -- forward ------------------------------------------------------------------------------------------------------

    def _load(self, leaves: list[Any]) -> None:
        graph, values, shapes = self.plan.graph, self.values, self.shapes
        for node, leaf in zip(graph.inputs, leaves, strict=True):
            if node is not None:
                own = self._own(entering(node, leaf))
                values[node] = own.contiguous() if node in self.plan.schedule.in_order else own
                shapes[node] = leaf.shape
        for node, value in (self.stand_ins.parameters if self.stand_ins else parameters_of(graph)).items():
            values[node] = self._own(value)
            shapes[node] = value.shape

    def _own(self, value: Tensor) -> Tensor:
        if value.is_inference():  # autograd, which some rules use, saves nothing that was made under inference_mode
            return value.clone()
        return value if self.differentiable or not value.requires_grad else value.detach()

    def _forward(self) -> None:
        schedule = self.plan.schedule
        self.values.update(self._constants)
        self._execute(schedule.everything if self.differentiable else schedule.operations)

    def _execute(self, operations: Iterable[Operation]) -> None:
        """Run operations in order, and free every value after its last use."""
        values, shapes, calls, hold = self.values, self.shapes, self.calls, self.hold
        for node, run, step, frees, in_order in operations:
            try:
                if step is None:
                    value = run(values)
                else:
                    call = calls[node] = Call(step, self._weakly)
                    value = step.rule.forward(call)
            except Exception as error:
                error.add_note(f"Raised by {place(node)}.")
                raise
            if in_order:
                value = value.contiguous()
            values[node] = value
            if isinstance(value, Tensor):
                shapes[node] = value.shape
            if not hold:
                for used in frees:
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
            and step.kind in (*LAYER_KINDS, "add")
            and len(node.users) == 1
            and node not in self.plan.schedule.saved
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
            for node, run in self.plan.schedule.derived.nodes.items():
                found[node] = values[node] = self.derived(node, lambda run=run: run(values))  # type: ignore[misc]
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
        return Samples(self.plan.graph, self.shapes, self.values, self.batch or 1, self.plan.explained)

    # -- the reverse sweep --------------------------------------------------------------------------------------------

    def sweep(self, seeds: Mapping[Node, Message], watchers: Sequence[Watcher] = ()) -> dict[Node, Message]:
        """Hand relevance back from the seeds. Returns the messages that reached the sources."""
        inbox, in_memory = Inbox(seeds), not self.differentiable
        with torch.set_grad_enabled(self.differentiable):
            for step in self.plan.schedule.back:
                self._reach(step.node)
                message, parts = inbox.take(step.node)
                if message is not None or parts:
                    if parts and watchers:
                        parts = self._watched(step, parts, watchers)
                    message, call = message or NO_MESSAGE, self._call(step, parts)
                    for watcher in watchers:
                        message = watcher.arrives(step, message, self)
                    try:
                        sent = step.rule.backward(call, message)
                    except Exception as error:
                        raise_noted(error, step)
                    for watcher in watchers:
                        watcher.is_sent(step, sent, self)
                    for node, part in zip(step.active, sent, strict=True):
                        if part.c is not None or part.r is not None:
                            inbox.add(node, part, in_memory and step.rule.sends_new)
                if not self.retain:
                    self._free(step)
        return inbox.left(self.plan.sources)

    def _reach(self, node: Node) -> None:
        """The reverse sweep comes to an operation."""

    def _watched(self, step: Step, parts: Parts, watchers: Sequence[Watcher]) -> Parts:
        """The messages to single outputs, shown to those who look on."""
        seen = dict(parts)
        for node in step.node.users:
            if node.target is operator.getitem and (index := node.args[1]) in seen:
                for watcher in watchers:
                    seen[index] = watcher.is_picked(node, seen[index], self)  # type: ignore[index]
        return seen

    def _call(self, step: Step, parts: Parts | None) -> Call:
        call = self.calls.get(step.node)
        if call is None:
            call = self.calls[step.node] = Call(step, self._weakly)
        call.messages = parts or {}
        return call

    def _free(self, step: Step) -> None:
        """Let go of what no other operation needs on the way back."""
        self.calls.pop(step.node, None)
        for node in self.plan.schedule.release.get(step.node, ()):
            self.values.pop(node, None)


def raise_noted(error: Exception, step: Step) -> NoReturn:
    """An error inside of a rule, with the operation that the rule was for.

    Raises:
        RuleError: naming both. What is the user's own to handle stays as it is, with a note: errors of relprop,
            warnings that were made errors, and a lack of memory.
    """
    where = f"the rule {rule_name(step.rule)} of {place(step.node)}"
    if isinstance(error, (RelpropError, Warning, MemoryError, torch.OutOfMemoryError)):
        error.add_note(f"Raised by {where}.")
        raise error
    raise RuleError(f"{where} raised {reason_of(error)}") from error


def parameters_of(graph: Graph) -> dict[Node, Tensor]:
    """The live parameters of a graph."""
    with READING:
        return {node: graph.lookup(name) for node, name in graph.parameters.items()}


def run_node(node: Node, values: dict[Node, Any]) -> Any:
    """Run one operation that has no rule to run it."""
    args = torch.fx.node.map_arg(node.args, values.__getitem__)
    kwargs = torch.fx.node.map_arg(node.kwargs, values.__getitem__)
    return node.target(*args, **kwargs)  # type: ignore[operator]
