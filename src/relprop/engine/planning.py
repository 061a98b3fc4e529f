"""Graph and composite -> plan: a rule for every active operation, or a list of those that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch.fx import Node

from ..composite import Composite
from ..composites import default
from ..errors import CaptureError, RuleError, UnsupportedOperation
from ..graph.facts import TABLE
from ..graph.graph import Graph, made_by, module_path, operation, picks, place, source_line
from ..rules.base import Lost, Rule, Step, Stop
from ..rules.layers import LAYER_KINDS, called
from ..rules.linear import LRP0
from ..rules.neurons import LinearRule
from ..scope import Scope
from .activity import active_nodes, ancestors, dependent_nodes, stopped_nodes
from .lookups import explained, needed
from .plan import Plan
from .schedule import schedule_of, with_forms, without_masks


@dataclass
class Report:
    """Every operation without a rule, from :meth:`LRP.check`. It is true if there is none."""

    plan: Plan

    @property
    def gaps(self) -> list[str]:
        return [place(node) for node in self.plan.gaps]

    def __bool__(self) -> bool:
        return not self.plan.gaps

    def __str__(self) -> str:
        if self:
            return f"every one of the {len(self.plan.steps)} active operations has a rule"
        return f"{len(self.plan.gaps)} operations have no rule:\n" + "\n".join(f"  {gap}" for gap in self.gaps)

    __repr__ = __str__


def make_plan(
    graph: Graph,
    composite: Composite | None,
    bias: str,
    sources: Mapping[Node, Sequence[int]],
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
        sources: nodes whose relevance is wanted -> positions of the inputs that it belongs to.
        roots: nodes where relevance starts.
        accounting: whether a ledger will be kept.
        strict: raise at the first operation without a rule; otherwise list them in ``plan.gaps``.
        keep: nodes whose values must outlive the forward run.

    Raises:
        UnsupportedOperation: if an active operation has no rule.
        RuleError: if a rule was chosen for an operation that it is not defined for.
        SelectionError: if a selector of a strict composite matches nothing.
    """
    dependent = dependent_nodes(graph, explained(graph, sources))
    active = active_nodes(graph, sources)
    behind = ancestors(roots)
    scope = Scope(graph, [n for n in graph.nodes if n in active and n in behind and n not in sources and not picks(n)])
    composite = composite or default(scope)
    chosen = _choose(scope, composite)
    stopped = stopped_nodes(scope, chosen, active)

    def step_of(node: Node, candidates: tuple[Node, ...]) -> Step:
        rule, reason = chosen[node]
        kind = scope.kinds[node]
        if kind == "product" and (free := tuple(n for n in candidates if made_by(n) not in stopped)):
            candidates = free  # a stopped factor is a constant
        step = Step(
            node, rule, kind, candidates, bias=bias, constants=graph.constants, accounting=accounting, reason=reason
        )
        if (complaint := rule.supports(step)) is not None:
            raise RuleError(f"rule {rule} does not suit {place(node)}: {complaint}.")
        carried = tuple(n for n in candidates if rule.carries(step, n))
        # where nothing is handed on (an image sampled at places), it is booked
        return replace(step, rule=rule if carried or isinstance(rule, Stop) else Lost(), active=carried)

    steps, gaps = _reached(graph, roots, active, sources, chosen, step_of)
    if strict:
        refuse_gaps(gaps)
    steps = without_masks(with_forms(graph, roots, steps), set(keep))
    schedule = schedule_of(graph, steps, roots, {*keep, *needed(graph, sources)})
    return Plan(graph, steps, sources, roots, composite, gaps, scope, dependent, bias, schedule)


def _reached(
    graph: Graph,
    roots: Sequence[Node],
    active: Set[Node],
    sources: Mapping[Node, Sequence[int]],
    chosen: Mapping[Node, tuple[Rule, str]],
    step_of: Callable[[Node, tuple[Node, ...]], Step],
) -> tuple[dict[Node, Step], list[Node]]:
    """The steps of all operations that relevance reaches, in the order of execution, and those without a rule."""
    gaps: list[Node] = []
    reached: set[Node] = {r for r in roots if r in active}
    found: list[Step] = []
    for node in reversed(list(graph.nodes)):
        if node not in reached or node in sources:
            continue
        if picks(node):
            reached.add(made_by(node))
            continue
        candidates = tuple(n for n in node.all_input_nodes if n in active)
        if node not in chosen:
            gaps.append(node)
            reached |= set(candidates)
            continue
        found.append(step_of(node, candidates))
        reached |= set(found[-1].active)
    return {step.node: step for step in reversed(found)}, gaps[::-1]


def refuse_gaps(gaps: Sequence[Node], seeded: Iterable[Node] | None = None) -> None:
    """Raise if relevance that starts at the seeded nodes (default: all roots) meets an operation without a rule.

    Raises:
        UnsupportedOperation: naming the first one, and how many more there are.
    """
    if gaps and seeded is not None:
        behind = ancestors(list(seeded))
        gaps = [n for n in gaps if n in behind]
    if gaps:
        raise UnsupportedOperation(_explain_gaps(gaps))


def refuse_random(graph: Graph, seeded: Iterable[Node]) -> None:
    """Raise if relevance starts at something that is another number at every run.

    Raises:
        CaptureError: naming the operation that draws it.
    """
    drawn = next((graph.random[n] for n in seeded if n in graph.random), None)
    if drawn is not None:
        raise CaptureError(
            f"what is to be explained is random: it depends on what {place(drawn)} draws, so that every call of the "
            "model gives another answer. Make what is drawn an input of the model, or explain an output before it."
        )


def _explain_gaps(gaps: Sequence[Node]) -> str:
    first = gaps[0]
    more = f" ({len(gaps) - 1} more such operations: lrp.check(x) lists them all.)" if len(gaps) > 1 else ""
    return (
        f"there is no rule for {operation(first)}, called in module {module_path(first) or '(the model itself)'!r} at "
        f"{source_line(first) or 'unknown source'}.{more} Give it one with "
        f"@relprop.rule_for(torch.ops.{_dotted(first)}) above a rule or "
        "a function (call, message) -> message, or leave it out of the explanation with relprop.rules.Stop()."
    )


def _dotted(node: Node) -> str:
    is_higher = isinstance(node.target, torch._ops.HigherOrderOperator)
    return f"higher_order.{node.target}" if is_higher else str(node.target)


def _choose(scope: Scope, composite: Composite) -> dict[Node, tuple[Rule, str]]:
    """Operation -> its rule and why: the composite's, a user's for this operation, or the default.

    A user's rule for a linear operation (``rule_for``) would never be asked if it were a mere default: every named
    composite has a rule for all of them. So it is stronger than that rule, except in a composite of the user's own
    selectors. What is stopped (a gate) or compared (the gradient) stays so.
    """
    chosen = composite.choose(scope)
    for node in scope.nodes:
        entry = TABLE.get(called(node))
        rule = chosen[node][0] if node in chosen else None
        if entry and entry.own and (rule is None or (isinstance(rule, LinearRule) and not composite.strict)):
            chosen[node] = (entry.rule, "rule_for")
        elif rule is None and scope.kinds[node] in LAYER_KINDS:
            chosen[node] = (LRP0(), "default")
        elif rule is None and entry and entry.rule:
            chosen[node] = (entry.rule, "default")
    return chosen
