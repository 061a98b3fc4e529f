"""What is known of a plan before it runs: the form of every message, and how long values live."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from ..graph.graph import Graph, Values, caller, calls, looks_at_memory, picks, was_contiguous
from ..rules.base import Rule, Step
from ..rules.elementwise import Identity, Unmasked
from ..rules.layers import layer_in
from ..rules.message import COEFFICIENT, NOTHING, Form
from .derived import Derived
from .nonnegative import nonnegative
from .samples import followed

aten = torch.ops.aten

Steps = Mapping[Node, Step]


# ---------------------------------------------------------------------------------------------------------------------
# Forms of messages
# ---------------------------------------------------------------------------------------------------------------------


def with_forms(graph: Graph, roots: Sequence[Node], steps: Steps) -> dict[Node, Step]:
    """Steps that know the form of the message that arrives, followed back from the output, and what is not negative."""
    forms: dict[Node, Form] = dict.fromkeys(roots, COEFFICIENT)
    known, found = nonnegative(graph), dict(steps)
    for node, step in reversed(list(steps.items())):
        form = forms.get(node, NOTHING)
        for user in filter(picks, node.users):
            form = form | forms.get(user, NOTHING)
        step = replace(step, form=form, nonnegative=frozenset(n for n in step.active if n in known))
        if step.rule.multiple_of_output and _relu_follows(step, found, roots):
            step = replace(step, output_is_relu=True)
        found[node], sent = step, step.rule.form(step)
        for n in step.active:
            forms[n] = forms.get(n, NOTHING) | sent
    return found


def _relu_follows(step: Step, steps: Steps, roots: Sequence[Node]) -> bool:
    """Whether R = c relu(z): a ReLU that hands on a coefficient is the only user of the output z."""
    users = list(step.node.users)
    if len(users) != 1 or step.node in roots or step.form != COEFFICIENT or step.bias == "zero":
        return False
    behind = steps.get(users[0])
    return behind is not None and behind.node.target is aten.relu.default and type(behind.rule) is Identity


def without_masks(steps: Steps, keep: set[Node]) -> dict[Node, Step]:
    """Steps in which a ReLU applies no mask if the rule before it does, by multiplying by the ReLU's output."""
    found = dict(steps)
    for step in steps.values():
        # unless somebody looks in between
        if step.output_is_relu and step.node in step.saves and step.node not in keep:
            found[step.output] = replace(found[step.output], rule=Unmasked())
    return found


# ---------------------------------------------------------------------------------------------------------------------
# How long values live
# ---------------------------------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """One operation of the forward run."""

    node: Node
    run: Callable[[Values], Any]
    step: Step | None = None
    """The step whose rule runs the operation itself."""
    frees: tuple[Node, ...] = ()
    """Values that nothing takes after it."""
    in_order: bool = False
    """Whether its value is needed in memory as the model has it: convolutions here put channels last."""


@dataclass(frozen=True)
class Schedule:
    """What runs, in which order, and how long values live."""

    operations: tuple[Operation, ...]
    """The forward run, without what is computed from parameters alone."""
    everything: tuple[Operation, ...]
    """The forward run with it, for runs that are differentiated."""
    back: tuple[Step, ...]
    """The reverse sweep."""
    saved: frozenset[Node]
    """Values that the reverse sweep needs."""
    keep: frozenset[Node]
    """Values that are asked for afterwards."""
    release: Mapping[Node, tuple[Node, ...]]
    """Step -> saved values that nothing needs after it in the reverse sweep."""
    in_order: frozenset[Node]
    """Values that an operation needs in memory as the model has them."""
    derived: Derived
    """Weights computed from parameters alone."""

    @property
    def order(self) -> list[Node]:
        return [operation.node for operation in self.operations]


def schedule_of(graph: Graph, steps: Steps, roots: Sequence[Node], keep: set[Node]) -> Schedule:
    """Decide which values the reverse sweep keeps, and when every value can be freed."""
    order = [n for n in graph.nodes if calls(n)]
    in_order = {n for node in order if looks_at_memory(node) for n in node.all_input_nodes if was_contiguous(n)}
    saved: set[Node] = set()
    first_need: dict[Node, Node] = {}
    for step in steps.values():
        for node in step.saves | _parameters_of(step, graph):
            node = step.output if node is step.node else node
            saved.add(node)
            first_need.setdefault(node, step.node)
    if any(step.accounting for step in steps.values()):  # the ledger follows rows
        keep = keep | followed(graph)
    release: dict[Node, tuple[Node, ...]] = {}
    for node, need in first_need.items():
        if node not in keep:
            release[need] = (*release.get(need, ()), node)
    saved |= keep
    layers = (layer_in(step) for step in steps.values() if step.rule.modifies_weights)
    derived = Derived(graph, [layer.weight for layer in layers if layer is not None])
    staying = saved.union(roots, (o for o in graph.outputs if isinstance(o, Node)))
    return Schedule(
        operations=tuple(operations_of(order, steps, in_order, staying.union(derived.nodes), derived.nodes)),
        everything=tuple(operations_of(order, steps, in_order, staying)),
        back=tuple(steps.values())[::-1],
        saved=frozenset(saved),
        keep=frozenset(keep),
        release=release,
        in_order=frozenset(in_order),
        derived=derived,
    )


def operations_of(
    order: Sequence[Node], steps: Steps, in_order: Set[Node], staying: Set[Node], known: Collection[Node] = ()
) -> Iterator[Operation]:
    """The forward run.

    Args:
        order: all operations.
        steps: those that relevance passes.
        in_order: values that are needed in memory as the model has them.
        staying: values that are not freed after their last use.
        known: operations that need not be run.
    """
    frees: dict[Node, list[Node]] = {}
    last = {used: node for node in order for used in (node, *node.all_input_nodes)}
    for used, node in last.items():
        if used not in staying:
            frees.setdefault(node, []).append(used)
    for node in order:
        if node not in known:
            step = steps.get(node)
            runs_itself = step is not None and type(step.rule).forward is not Rule.forward
            run = caller(node) if step is None else step.run
            yield Operation(node, run, step if runs_itself else None, tuple(frees.get(node, ())), node in in_order)


def _parameters_of(step: Step, graph: Graph) -> set[Node]:
    """Weights and other constants that a rule may ask for; they cost nothing, since the model holds them anyway."""
    layer = layer_in(step)
    wanted = [layer.weight, layer.bias] if layer is not None else step.node.all_input_nodes
    needs = layer.needs if layer is not None else ()
    return {n for n in wanted if isinstance(n, Node) and n in graph.constants}.union(needs)
