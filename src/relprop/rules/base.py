"""What a rule is, what it sees of a run, and the table of operations.

A rule says how one operation hands the relevance of its output back to its inputs. Operations are registered once,
beside the rule that serves them by default::

    register("activation", Ratio(), aten.relu.default, aten.gelu.default)

and :func:`rule_for` does the same for an operation of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.graph import Values, caller
from .message import NOTHING, RELEVANCE, Form, Message

Messages = Sequence[Message]


@dataclass(frozen=True, eq=False)
class Step:
    """One active operation of a plan: the node, its rule, and what is known before anything runs."""

    node: Node
    rule: Rule
    kind: str
    active: tuple[Node, ...] = ()
    """Inputs that relevance is handed to, each once."""
    form: Form = NOTHING
    """The form of the message that arrives."""
    bias: str = "absorb"
    constants: Set[Node] = frozenset()
    """All nodes of the graph that depend on parameters alone."""
    nonnegative: frozenset[Node] = frozenset()
    """Active inputs that cannot be negative (they come out of a ReLU, say)."""
    output_is_relu: bool = False
    """True if relu(z) stands for the output z: only a ReLU follows, and the rule sends a multiple of R = c relu(z)."""
    accounting: bool = False
    """True if a ledger is kept."""
    reason: str = ""
    """Why this rule: the selector that chose it, or "default"."""

    @cached_property
    def saves(self) -> set[Node]:
        """The tensors that the reverse sweep needs."""
        return self.rule.saves(self)

    @cached_property
    def output(self) -> Node:
        """The node whose value serves as the output."""
        return next(iter(self.node.users)) if self.output_is_relu else self.node

    @cached_property
    def known(self) -> Any:
        """What the rule could look up before anything runs."""
        return self.rule.look_up(self)

    @cached_property
    def run(self) -> Callable[[Values], Any]:
        """Runs the operation on the values of its inputs."""
        return caller(self.node)


TWINS: dict[type, Callable[..., Any]] = {}
"""Class of a rule -> the same formula in the memory of what was computed before."""


class Rule:
    """How one operation hands the relevance of its output back. Subclass it, or register a function."""

    # Three optimisations that a rule opts into when it is sure of what it promises. A rule that promises nothing is
    # slower, never wrong. Parameters may decide, in a property.
    multiple_of_output = False
    """All that the rule sends is a multiple of R = c z, element by element: what z is where R is zero does not matter.
    If only a ReLU follows, relu(z) may stand for z, so that nothing holds z and nothing applies the ReLU's mask."""
    modifies_weights = False
    """The rule takes modified weights from ``n.weight``, which are then kept until the parameters change."""
    sends_new = False
    """The coefficients it sends are new tensors, which nothing else holds: sums may be made in their memory."""

    def __str__(self) -> str:
        return repr(self)

    def in_place(self, call: Call) -> Callable[..., Any] | None:
        """The twin of this rule in fused.py, which is as good unless somebody differentiates or traces the call."""
        return None if call.context.differentiable or call.context.is_traced else TWINS.get(type(self))

    def supports(self, step: Step) -> str | None:
        """None if the rule is defined for this operation, else the reason why not."""
        return None

    def carries(self, step: Step, node: Node) -> bool:
        """Whether any relevance goes to this input at all."""
        return True

    def form(self, step: Step) -> Form:
        """The form of the messages that the rule sends, given the form of the one that arrives."""
        return step.form

    def saves(self, step: Step) -> set[Node]:
        """The tensors that the reverse sweep needs: inputs of the step, or its own node for the output."""
        return set()

    def look_up(self, step: Step) -> Any:
        """Whatever can be told of an operation before it runs, once for all runs: it is then in ``call.step.known``."""
        return None

    def forward(self, call: Call) -> Any:
        """Run the operation."""
        return call.run()

    def backward(self, call: Call, message: Message) -> Messages:
        """Messages to ``call.active``, in that order."""
        raise NotImplementedError


class Context(Protocol):
    """What a rule may ask of the run that it is part of."""

    values: dict[Node, Any]
    shapes: dict[Node, torch.Size]
    retain: bool
    """There will be more than one sweep."""
    differentiable: bool
    """Relevance can be differentiated in turn."""

    guarded: bool
    """Some values are NaN or infinite; where they are, a coefficient of zero hands nothing on."""

    @property
    def keeps_books(self) -> bool:
        """Whether a ledger is open."""

    @property
    def is_traced(self) -> bool:
        """Whether the run is being written down as a program, so that no value is known."""

    def book(self, reason: str, place: Node, amount: Tensor, shaped_as: Node) -> None:
        """Tell the ledger what was absorbed at a place: relevance in the shape of a node."""

    def reason_for(self, node: Node) -> str:
        """How the share of a constant is booked."""

    def accumulate(self, value: Tensor) -> Tensor:
        """A value in the precision of relevance."""

    def like(self, node: Node) -> Tensor:
        """An uninitialised tensor in the shape of a node's value, in the precision of relevance."""

    def derived(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """A value computed from parameters alone, kept until they change."""

    def source(self, value: Tensor) -> Tensor:
        """A value as the start of a local gradient."""

    def detach(self, value: Tensor) -> Tensor:
        """A value outside of autograd, unless relevance is differentiated."""

    def may_overwrite(self, node: Node) -> bool:
        """Whether an activation may be computed in the memory of its input."""


class Call:
    """One operation in one run, as its rule sees it."""

    __slots__ = ("active", "context", "messages", "node", "saved", "step", "values")

    def __init__(self, step: Step, context: Context):
        self.step, self.node, self.active = step, step.node, step.active
        self.context, self.values = context, context.values
        self.saved: dict[str, Any] = {}
        """Whatever the rule's forward leaves for its backward."""
        self.messages: dict[int, Message] = {}
        """Messages to the single outputs of an operation that returns several."""

    @property
    def output(self) -> Any:
        return self.values[self.step.output]

    def value(self, argument: Any) -> Any:
        """The value of an argument: that of the node in this run, or the argument itself."""
        return self.values[argument] if isinstance(argument, Node) else argument

    def shape(self, node: Node) -> torch.Size:
        return self.context.shapes[node]

    def run(self, replaced: dict[Node, Any] | None = None) -> Any:
        """Run the operation, with other values for some of its inputs."""
        values = self.values
        if replaced:
            values = {n: replaced[n] if n in replaced else values[n] for n in self.node.all_input_nodes}
        return self.step.run(values)

    def book(
        self, reason: str, amount: Callable[[], Tensor], node: Node | None = None, place: Node | None = None
    ) -> None:
        """Tell the ledger what was absorbed here: relevance in the shape of ``node`` (default: the output)."""
        if self.context.keeps_books:
            self.context.book(reason, place or self.node, amount(), node or self.node)

    def argument(self, name: str | int) -> Any:
        """The value of an argument by its name, however it was passed."""
        return self.value(argument(self.node, name))


# ---------------------------------------------------------------------------------------------------------------------
# Two rules that suit every operation
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stop(Rule):
    """Hand nothing on: all relevance that arrives is booked as stopped (CP-LRP's treatment of gates).

    When to use: gates, masks, and whatever shall not be explained: what it takes stands in the ledger.
    """

    def carries(self, step: Step, node: Node) -> bool:
        return False

    def form(self, step: Step) -> Form:
        return NOTHING

    def saves(self, step: Step) -> set[Node]:
        return {step.node} if step.accounting and step.form.c else set()

    def backward(self, call: Call, message: Message) -> Messages:
        if message:
            call.book("stopped", lambda: message.relevance(call.output))
        picks = {pick.args[1]: pick for pick in call.node.users} if call.messages else {}
        for i, part in (call.messages or {}).items():  # of an operation with several results
            call.book("stopped", partial(self._part, part, call, i), picks[i], call.node)
        return [Message() for _ in call.active]

    def _part(self, part: Message, call: Call, i: int) -> Tensor:
        return part.relevance(call.output[i] if part.c is not None else None)


@dataclass(frozen=True)
class Lost(Stop):
    """Stop in the place of a rule that has nothing to hand on to: none of the active inputs is one that it serves."""

    def __str__(self) -> str:
        return str(Stop())


@dataclass(frozen=True)
class Pass(Rule):
    """R_in = R_out: the identity rule (AttnLRP Eq. 9). For operations whose input has the shape of their output.

    With several active inputs the relevance is shared equally.

    When to use: operations of your own that act on every element (see ``rule_for``).
    """

    def supports(self, step: Step) -> str | None:
        out = step.node.meta.get("val")
        for node in step.active:
            if node.meta["val"].shape != getattr(out, "shape", None):
                return "it passes relevance element by element, and this operation changes the shape"
        return None

    def form(self, step: Step) -> Form:
        return RELEVANCE

    def saves(self, step: Step) -> set[Node]:
        return {step.node} if step.form.c else set()

    def backward(self, call: Call, message: Message) -> Messages:
        relevance = message.relevance(call.output)
        return [Message(r=relevance / len(call.active)) for _ in call.active]


def nodes_in(argument: Any) -> Iterable[Node]:
    """All nodes in an argument, with repetitions (``x * x`` names x twice)."""
    found: list[Node] = []
    torch.fx.node.map_arg(argument, lambda n: found.append(n))
    return found
