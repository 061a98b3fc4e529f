"""A plan: one rule for every operation on the way from the output back to the inputs, known before anything runs."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from .composites import Composite, default
from .derived import Derived
from .errors import RuleError, UnsupportedOperation
from .graph import (
    Graph,
    calls,
    describe,
    is_float,
    looks_at_memory,
    module_path,
    operation,
    source_line,
    was_contiguous,
    where,
)
from .message import COEFFICIENT, NOTHING, RELEVANCE, Form
from .passes.batch_axis import followed
from .passes.batch_norm import shift_map
from .passes.signs import nonnegative
from .rules.base import STOPPED, TABLE, Rule, Step, Stop
from .rules.elementwise import Identity
from .rules.layers import layer_of
from .rules.linear import LRP0
from .select import Scope

aten = torch.ops.aten


@dataclass
class Plan:
    """The steps of one propagation, in order of execution. ``print(plan)`` shows them as a table."""

    graph: Graph
    steps: dict[Node, Step]
    sources: list[Node]
    """Where relevance is read: the explained inputs, and embeddings of explained integer inputs."""
    roots: list[Node]
    """The leaves of the output where relevance may start."""
    composite: Composite
    gaps: list[Node]
    scope: Scope
    tainted: set[Node] = field(default_factory=set)
    """Nodes whose value depends on an explained input."""
    bias: str = "absorb"
    order: list[Node] = field(default_factory=list)
    last_use: dict[Node, list[Node]] = field(default_factory=dict)
    """Node -> values that are not needed by the forward run after it."""
    saved: set[Node] = field(default_factory=set)
    """Values that the reverse sweep needs."""
    keep: set[Node] = field(default_factory=set)
    """Values that are asked for afterwards."""
    release: dict[Node, list[Node]] = field(default_factory=dict)
    """Step -> saved values that nothing needs after it in the reverse sweep."""
    derived: Derived = field(init=False)
    """Weights computed from parameters alone."""
    contiguous: set[Node] = field(default_factory=set)
    """Values that an operation needs in memory as the model has them: convolutions here put channels last."""
    diagnosed: bool = False
    """Whether a warning has named the operation at which relevance gets out of hand."""
    aliases: dict[Node, Node] = field(default_factory=dict)
    """Linear operation -> the ReLU behind it, whose output serves as its own where relevance is not zero."""

    @property
    def input_names(self) -> list[str]:
        return self.graph.input_names

    @property
    def convolved(self) -> set[str]:
        """Names of the inputs that a 1-D convolution reads: their channels come before their steps."""
        named = zip(self.graph.inputs, self.graph.input_names, strict=True)
        return {name for n, name in named if n is not None and any("conv1d" in str(user.target) for user in n.users)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __reduce__(self) -> Any:
        return PrintedPlan, (str(self), self.input_names, self.convolved)

    def kept_as(self, step: Step) -> Node:
        return self.aliases.get(step.node, step.node)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("node", "operation", "module", "rule", "chosen by", "source")]
        rows += [
            (n.name, operation(n), module_path(n), str(step.rule), step.reason, source_line(n))
            for n, step in self.steps.items()
        ]
        rows += [(n.name, operation(n), module_path(n), "NO RULE", "", source_line(n)) for n in self.gaps]
        title = f"composite {self.composite.name}" + (f" ({self.composite.note})" if self.composite.note else "")
        return f"{title}, bias: {self.bias}\n{table(rows)}"

    __repr__ = __str__


@dataclass
class PrintedPlan:
    """What a pickled explanation keeps of its plan: the table, which is to be printed, and what a picture needs."""

    text: str
    input_names: list[str]
    convolved: set[str]

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def table(rows: list[tuple[str, ...]], right: Iterable[int] = ()) -> str:
    """Rows as aligned text, the first one underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def make_plan(
    graph: Graph,
    composite: Composite | None,
    bias: str,
    sources: list[Node],
    roots: list[Node],
    *,
    accounting: bool = False,
    strict: bool = True,
    keep: Iterable[Node] = (),
) -> Plan:
    """Assign a rule to every active operation.

    Args:
        graph: the canonical graph.
        composite: None lets the graph decide ("auto").
        bias: the bias policy.
        sources: nodes whose relevance is wanted.
        roots: nodes where relevance starts.
        accounting: whether a ledger will be kept.
        strict: raise at the first operation without a rule; otherwise list them in ``plan.gaps``.
        keep: nodes whose values must outlive the forward run.

    Raises:
        UnsupportedOperation: if an active operation has no rule.
        RuleError: if a rule was chosen for an operation that it is not defined for.
        SelectionError: if a selector of a strict composite matches nothing.
    """
    tainted = _tainted(graph, sources)
    active = _active(graph, sources)
    behind = _ancestors(roots)
    scope = Scope(graph, [n for n in graph.nodes if n in active and n in behind and n not in sources and not _picks(n)])
    composite = composite or default(scope)
    chosen = composite.choose(scope)
    for node in scope.nodes:
        if node not in chosen and (rule := _default_rule(node, scope)) is not None:
            chosen[node] = (rule, "default")
    stopped = _stopped(scope, chosen, active)

    plan = Plan(graph, {}, sources, roots, composite, [], scope, tainted, bias)
    reached: set[Node] = {r for r in roots if r in active}
    steps: list[Step] = []
    for node in reversed(list(graph.nodes)):
        if node not in reached or node in sources:
            continue
        if _picks(node):
            reached.add(node.args[0])  # type: ignore[arg-type]
            continue
        candidates = tuple(n for n in node.all_input_nodes if n in active)
        if node not in chosen:
            plan.gaps.append(node)
            reached |= set(candidates)
            continue
        rule, reason = chosen[node]
        if scope.kinds[node] == "product" and len(free := tuple(n for n in candidates if n not in stopped)) > 0:
            candidates = free  # a stopped factor is a constant
        step = Step(node, rule, scope.kinds[node], candidates, bias=bias, accounting=accounting, reason=reason)
        if (complaint := rule.supports(step)) is not None:
            raise RuleError(f"rule {rule} does not suit {where(node)}: {complaint}.")
        step.active = tuple(n for n in candidates if rule.carries(step, n))
        reached |= set(step.active)
        steps.append(step)
    plan.gaps.reverse()
    if strict:
        refuse_gaps(plan)
    plan.steps = {step.node: step for step in reversed(steps)}
    _assign_forms(plan)
    _schedule(plan, set(keep))
    return plan


def refuse_gaps(plan: Plan, seeded: Iterable[Node] | None = None) -> None:
    """Raise if relevance that starts at the seeded nodes (default: all roots) meets an operation without a rule.

    Raises:
        UnsupportedOperation: naming the first one, and how many more there are.
    """
    gaps = plan.gaps
    if gaps and seeded is not None:
        behind = _ancestors(list(seeded))
        gaps = [n for n in gaps if n in behind]
    if gaps:
        raise UnsupportedOperation(_explain_gaps(gaps))


def _explain_gaps(gaps: list[Node]) -> str:
    first = gaps[0]
    more = f" ({len(gaps) - 1} more such operations: lrp.check(x) lists them all.)" if len(gaps) > 1 else ""
    return (
        f"there is no rule for {operation(first)}, called in module {module_path(first) or '(the model itself)'!r} at "
        f"{source_line(first) or 'unknown source'}.{more} Give it one with "
        f"@relprop.rule_for(torch.ops.{_dotted(first)}) above a rule or "
        "a function (call, message) -> message, or leave it out of the explanation with relprop.rules.Stop()."
    )


def _dotted(node: Node) -> str:
    return str(node.target)


# ---------------------------------------------------------------------------------------------------------------------
# Activity
# ---------------------------------------------------------------------------------------------------------------------


def _tainted(graph: Graph, sources: list[Node]) -> set[Node]:
    found = set(sources)
    for node in graph.nodes:
        if calls(node) and any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def _active(graph: Graph, sources: list[Node]) -> set[Node]:
    """Nodes that relevance can reach, as automatic differentiation has it: statistics and integers are constants."""
    active = set(sources)
    for node in graph.nodes:
        if node in active or not calls(node) or node.target in STOPPED or node.target is shift_map:
            continue
        if any(n in active for n in node.all_input_nodes) and _carries_values(node):
            active.add(node)
    return active


def _carries_values(node: Node) -> bool:
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return any(isinstance(v, torch.Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex) for v in value)
    return is_float(node) or (isinstance(value, torch.Tensor) and value.dtype.is_complex)


def _ancestors(roots: list[Node]) -> set[Node]:
    found, stack = set(roots), list(roots)
    while stack:
        for n in stack.pop().all_input_nodes:
            if n not in found:
                found.add(n)
                stack.append(n)
    return found


def _picks(node: Node) -> bool:
    """Whether a node only picks one of several outputs."""
    return node.target is operator.getitem


def _made_by(node: Node) -> Node:
    """The operation behind a pick."""
    return node.args[0] if _picks(node) else node  # type: ignore[return-value]


def _default_rule(node: Node, scope: Scope) -> Rule | None:
    if scope.kinds[node] in ("dense", "convolution", "affine"):
        return LRP0()
    entry = TABLE.get(node.target)
    return entry.rule if entry else None


def _stopped(scope: Scope, chosen: dict[Any, tuple[Rule, str]], active: set[Node]) -> set[Node]:
    """Nodes whose value comes from stopped ones alone, whatever is done with them (routing weights are normalised)."""
    stopped: set[Node] = set()
    for node in scope.nodes:
        if node not in chosen:
            continue
        before = [n for n in map(_made_by, node.all_input_nodes) if n in active]
        if isinstance(chosen[node][0], Stop) or (before and all(n in stopped for n in before)):
            stopped.add(node)
    return stopped


# ---------------------------------------------------------------------------------------------------------------------
# Forms of messages, and how long values live
# ---------------------------------------------------------------------------------------------------------------------


def _assign_forms(plan: Plan) -> None:
    """Follow the forms of messages back from the output, and mark where zero relevance is certain."""
    forms: dict[Node, Form] = dict.fromkeys(plan.roots, COEFFICIENT)
    known = nonnegative(plan.graph)
    for step in reversed(list(plan.steps.values())):
        step.form = forms.get(step.node, NOTHING)
        for user in step.node.users:
            if _picks(user):
                step.form = step.form | forms.get(user, NOTHING)
        step.nonnegative = frozenset(n for n in step.active if n in known)
        step.rectified = _is_rectified(plan, step)
        form = step.rule.form(step)
        for node in step.active:
            forms[node] = forms.get(node, NOTHING) | form
    for source in plan.sources:
        plan_form = forms.get(source, NOTHING)
        source.meta["form"] = plan_form


def _is_rectified(plan: Plan, step: Step) -> bool:
    """Whether the message is zero wherever the output is negative: a ReLU in coefficient form is its only user."""
    users = list(step.node.users)
    if len(users) != 1 or step.node in plan.roots or step.form != COEFFICIENT or step.bias == "zero":
        return False
    behind = plan.steps.get(users[0])
    return behind is not None and behind.node.target is aten.relu.default and isinstance(behind.rule, Identity)


def _schedule(plan: Plan, keep: set[Node]) -> None:
    """Decide which values the reverse sweep keeps, and when every value can be freed."""
    position = {node: i for i, node in enumerate(plan.graph.nodes)}
    plan.order = [n for n in plan.graph.nodes if calls(n)]
    looking = filter(looks_at_memory, plan.order)
    plan.contiguous = {n for node in looking for n in node.all_input_nodes if was_contiguous(n)}
    for step in plan.steps.values():
        summing = step.kind in ("dense", "convolution", "affine", "add")
        if step.rectified and summing and not step.rule.exact_output and step.node not in keep:
            relu = plan.aliases[step.node] = next(iter(step.node.users))
            # a rule that multiplies by the ReLU's output does what the ReLU's own mask would do
            plan.steps[relu].implied = step.node in step.saves and relu not in keep
    first_need: dict[Node, Node] = {}
    for step in plan.steps.values():
        for node in step.saves | _parameters_of(step, plan):
            node = plan.aliases.get(node, node) if node is step.node else node
            plan.saved.add(node)
            first_need.setdefault(node, step.node)
    for node, step_node in first_need.items():
        plan.release.setdefault(step_node, []).append(node)
    if any(step.accounting for step in plan.steps.values()):  # the ledger follows rows
        keep = keep | followed(plan.graph)
    plan.keep = keep
    plan.saved |= keep
    for node in keep:
        for released in plan.release.values():
            if node in released:
                released.remove(node)
    modifying = [step for step in plan.steps.values() if step.rule.modifies_weights]
    layers = (layer_of(step.node, lambda n, s=step: n not in s.active) for step in modifying)  # type: ignore[misc]
    plan.derived = Derived(plan.graph, [layer.weight for layer in layers if layer is not None])
    outputs = {o for o in plan.graph.outputs if isinstance(o, Node)} | set(plan.roots)
    last: dict[Node, Node] = {}
    for node in plan.order:
        for used in node.all_input_nodes:
            last[used] = node
        last.setdefault(node, node)
    for used, node in last.items():
        if used not in plan.saved and used not in outputs:
            plan.last_use.setdefault(node, []).append(used)
    assert all(position[n] >= 0 for n in plan.saved)


def _parameters_of(step: Step, plan: Plan) -> set[Node]:
    """Weights and other constants that a rule may ask for; they cost nothing, since the model holds them anyway."""
    layer = layer_of(step.node, lambda n: n not in step.active)
    wanted = [layer.weight, layer.bias] if layer is not None else step.node.all_input_nodes
    needs = layer.needs if layer is not None else ()
    return {n for n in wanted if isinstance(n, Node) and n in plan.graph.constants}.union(needs)


__all__ = ["RELEVANCE", "Plan", "describe", "make_plan", "refuse_gaps", "table"]
