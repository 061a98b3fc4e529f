"""A model in training mode gives another answer at every call: refuse it. So is, in part, one that draws numbers."""

from __future__ import annotations

import torch
from torch.fx import Node

from ..errors import CaptureError
from ..graph.arguments import argument, arguments
from ..graph.constants import from_parameters
from ..graph.facts import describe, facts
from ..graph.graph import Graph, calls, place

aten = torch.ops.aten

describe("random", aten.bernoulli.default, aten.bernoulli.p, random=())
describe("random", aten.native_dropout.default, random=("p", "train"))


def refuse_training_mode(graph: Graph) -> None:
    """Raise if the graph drops out at random or normalises by the statistics of the batch."""
    constant = from_parameters(graph)  # a norm of weights alone (weight standardisation) gives the same at every call
    for node in filter(calls, graph.nodes):
        if _is_training(node) and not (node in constant and facts(node).kind == "batch norm"):
            raise CaptureError(_refusal(node))


def _refusal(node: Node) -> str:
    if facts(node).kind == "batch norm" and not {"running_mean", "running_var"} & set(_given(node)):
        return (
            f"{place(node)} normalises by the statistics of the batch, even after model.eval(), as it has no others: "
            "what it gives for a sample depends on all other samples. Give it the statistics of the training data, "
            "norm.running_mean = ... and norm.running_var = ..., or use a norm of single samples (GroupNorm)."
        )
    return (
        f"the model is in training mode: {place(node)} is random, or uses the statistics of the batch. Call "
        "model.eval() before explaining it (and model.train() again afterwards). If that does not help, forward asks "
        "for it: F.dropout and others train unless they are called with training=self.training."
    )


def _given(node: Node) -> list[str]:
    return [name for name, value in arguments(node).items() if value is not None]


def _is_training(node: Node) -> bool:
    switches = facts(node).random
    return switches is not None and all(argument(node, name) for name in switches)


def find_random(graph: Graph) -> None:
    """Remember what depends on random numbers that no option of an operation turns off."""
    for node in filter(calls, graph.nodes):
        before = next((graph.random[n] for n in node.all_input_nodes if n in graph.random), None)
        if before is not None or _draws(node):
            graph.random[node] = before or node


def _draws(node: Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    return not OPTIONS & {argument.name for argument in target._schema.arguments}


OPTIONS = {"train", "training", "dropout_p", "dropout"}
"""Arguments that say whether an operation is random: none is, once training mode is refused."""
