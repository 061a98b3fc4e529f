"""What is known of a plan before it runs: the form of every message, and how long values live."""

from __future__ import annotations

import torch
from torch.fx import Node

from ..graph.graph import calls, looks_at_memory, was_contiguous
from ..rules.base import Step
from ..rules.elementwise import Identity, Unmasked
from ..rules.layers import layer_of
from ..rules.message import COEFFICIENT, NOTHING, Form
from .activity import picks
from .derived import Derived
from .nonnegative import nonnegative
from .plan import Plan
from .samples import followed

aten = torch.ops.aten


# ---------------------------------------------------------------------------------------------------------------------
# Forms of messages, and how long values live
# ---------------------------------------------------------------------------------------------------------------------


def assign_forms(plan: Plan) -> None:
    """Follow the forms of messages back from the output, and mark where zero relevance is certain."""
    forms: dict[Node, Form] = dict.fromkeys(plan.roots, COEFFICIENT)
    known = nonnegative(plan.graph)
    for step in reversed(list(plan.steps.values())):
        step.form = forms.get(step.node, NOTHING)
        for user in step.node.users:
            if picks(user):
                step.form = step.form | forms.get(user, NOTHING)
        step.nonnegative = frozenset(n for n in step.active if n in known)
        step.output_is_relu = step.rule.multiple_of_output and _relu_follows(plan, step)
        form = step.rule.form(step)
        for node in step.active:
            forms[node] = forms.get(node, NOTHING) | form
    for source in plan.sources:
        plan_form = forms.get(source, NOTHING)
        source.meta["form"] = plan_form


def _relu_follows(plan: Plan, step: Step) -> bool:
    """Whether R = c relu(z): a ReLU that hands on a coefficient is the only user of the output z."""
    users = list(step.node.users)
    if len(users) != 1 or step.node in plan.roots or step.form != COEFFICIENT or step.bias == "zero":
        return False
    behind = plan.steps.get(users[0])
    return behind is not None and behind.node.target is aten.relu.default and type(behind.rule) is Identity


def schedule_values(plan: Plan, keep: set[Node]) -> None:
    """Decide which values the reverse sweep keeps, and when every value can be freed."""
    position = {node: i for i, node in enumerate(plan.graph.nodes)}
    plan.order = [n for n in plan.graph.nodes if calls(n)]
    looking = filter(looks_at_memory, plan.order)
    plan.contiguous = {n for node in looking for n in node.all_input_nodes if was_contiguous(n)}
    for step in plan.steps.values():
        # a rule that multiplies by the ReLU's output does what its mask would do, unless somebody looks in between
        if step.output_is_relu and step.node in step.saves and step.node not in keep:
            plan.steps[plan.kept_as(step)].rule = Unmasked()
    first_need: dict[Node, Node] = {}
    for step in plan.steps.values():
        for node in step.saves | _parameters_of(step, plan):
            node = plan.kept_as(step) if node is step.node else node
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
