"""One straight-line program out of a plan: forward run and reverse sweep, traced together.

What a propagation does is known before it runs, so it can be written down. The trace is a graph of plain tensor
operations from inputs and a target to output and relevance: it needs neither the model's code nor relprop, and any
compiler for PyTorch takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen

from ..engine.given import Given
from ..engine.inputs import repeated
from ..engine.plan import Plan
from ..engine.question import Question
from ..engine.run import Run, StandIns, parameters_of
from ..engine.seeds import Seed, index_for, seed_at, seed_of, seeds_for
from ..engine.session import Places, Session
from ..engine.sources import relevances_of
from ..errors import CaptureError, TargetError, reason_of
from ..graph.graph import Graph
from ..graph.kernels import LINEAR
from ..graph.modes import own_modes
from ..graph.ops import PACK
from .portable import PORTABLE, plain_kernels

aten = torch.ops.aten

Propagation = Callable[[Run, Tensor | None], tuple[list[Any], list[Tensor | None]]]
"""From a forward run and the target to the leaves of the output, and relevance for every leaf of the inputs."""


@own_modes()
def program_of(
    session: Session,
    given: Given,
    question: Question,
    *,
    dynamic: bool = False,
    portable: bool = False,
    compiled: bool = False,
) -> Program:
    """The answer to a question as a program.

    Args:
        session: the model.
        given: example inputs.
        question: with one target; a function becomes part of the program, an index is an example.
        dynamic: leave the number of samples open.
        portable: use operations that programs other than PyTorch know.
        compiled: the program stays in this process.

    Raises:
        TargetError: if there are several targets.
        CaptureError: if what is done depends on the values of the inputs.
        InputError, UnsupportedOperation: as :meth:`Session.answers`.
    """
    if question.several:
        raise TargetError("a program explains one target at a time: call it once for each.")
    _answered(session, given, question)  # errors come before the long work
    number = _of_its_own(session.graph(given), given.samples) if dynamic else given.samples
    if number is not None and given.samples is not None and number != given.samples:
        again = partial(repeated, before=given.samples, number=number)
        given = given.holding([again(x) if isinstance(x, Tensor) else x for x in given.leaves])
        question = replace(question, targets=pytree.tree_map_only(Tensor, again, question.targets))
        _answered(session, given, question)
    graph, (target,) = session.graph(given), question.targets
    places = Places.of(graph, question)
    plan, leaves = session.plan(graph, given, question.wrt, places), list(given.leaves)

    def propagate(run: Run, index: Tensor | None) -> tuple[list[Any], list[Tensor | None]]:
        def find(leaves: list[Any]) -> Seed:
            if index is None:
                return seed_of(target, leaves, graph.unflatten_output, question.seed)
            return seed_at(index, leaves, graph.unflatten_output, question.seed)

        outputs = run.outputs
        _, seeds = seeds_for(run, outputs, None if callable(target) else places.score, find)
        return outputs, relevances_of(plan, run, run.sweep(seeds))

    index = index_for(target, Run(plan, leaves).outputs, graph.unflatten_output)
    return trace(plan, leaves, index, propagate, dynamic=dynamic, portable=portable, compiled=compiled)


def _of_its_own(graph: Graph, samples: int | None) -> int | None:
    """A number of samples that is no other size: torch takes equal sizes for one, and a size of one for a constant."""
    values = [v for n in graph.nodes for v in pytree.tree_leaves(n.meta.get("val")) if isinstance(v, Tensor)]
    sizes = {n for v in values for n in v.shape if isinstance(n, int)} | {0, 1}
    if samples is None or samples not in sizes:
        return samples
    return next(n for n in count(2) if n not in sizes)


def _answered(session: Session, given: Given, question: Question) -> None:
    for _ in session.answers(given, question):
        pass


@dataclass
class Program:
    """A traced propagation: ``graph(*weights, *inputs, target)`` with the tensors among the inputs.

    It returns the leaves of the output and then relevance for every leaf of the inputs.
    """

    graph: GraphModule
    plan: Plan
    constants: list[Tensor]
    """What rules made of their own parameters."""
    derived: list[Any]
    """Keys of the values computed from parameters alone, in the order in which they follow the parameters."""
    inputs: list[Any]
    """Example inputs."""
    target: Tensor | None
    """Example target, or None if it is part of the program."""
    dynamic: bool
    portable: bool

    def weights(self) -> list[Tensor] | None:
        """The parameters as they are now, and what was computed from them; None if that has to be computed anew."""
        parameters = parameters_of(self.plan.graph)
        store = self.plan.schedule.derived.current(dict(parameters))
        if any(key not in store for key in self.derived):
            return None
        weights = [*self.constants, *(p.detach() for p in parameters.values()), *(store[key] for key in self.derived)]
        return _contiguous(weights) if self.portable else weights


def trace(
    plan: Plan,
    leaves: list[Any],
    target: Tensor | None,
    propagate: Propagation,
    *,
    dynamic: bool = False,
    portable: bool = False,
    compiled: bool = False,
) -> Program:
    """Write down one propagation.

    Args:
        plan: what to do; it was carried out before, so that what depends on parameters alone is there.
        leaves: example inputs.
        target: example target, or None if it is part of the program.
        propagate: seeds, sweeps and collects relevance.
        dynamic: leave the batch size open.
        portable: use operations that programs other than PyTorch know.
        compiled: the program stays in this process.

    Raises:
        CaptureError: if what is done depends on the values of the inputs.
    """
    if any(node.target is PACK for node in plan.graph.nodes):
        raise CaptureError(PACKED)
    parameters = parameters_of(plan.graph)
    store = dict(plan.schedule.derived.current(dict(parameters)))
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]

    def run(weights: list[Tensor], inputs: list[Tensor], target: Tensor | None) -> Any:
        filled = list(leaves)
        for i, x in zip(tensors, inputs, strict=True):
            filled[i] = x
        own, rest = weights[: len(parameters)], weights[len(parameters) :]
        stand_ins = StandIns(dict(zip(parameters, own, strict=True)), dict(zip(store, rest, strict=True)))
        return propagate(Run(plan, filled, stand_ins=stand_ins), target)

    weights = [*(p.detach() for p in parameters.values()), *store.values()]
    weights = _contiguous(weights) if portable else weights
    table: dict[Any, Any] = {**core_aten_decompositions(), **PORTABLE} if portable else {}
    if LINEAR is not None:
        table[LINEAR] = _linear_here if compiled else _linear
    try:
        with plain_kernels() if portable else nullcontext():
            mode: Any = "symbolic" if dynamic else "real"
            graph = make_fx(run, decomposition_table=table, tracing_mode=mode, _allow_non_fake_inputs=True)(
                weights, [leaves[i].detach() for i in tensors], target
            )
    except Exception as error:  # whatever an operation raises that cannot be traced
        raise CaptureError(
            f"the propagation cannot be written down as one program ({reason_of(error)}). Operations whose shapes "
            "depend on values, such as the routing of experts, run eagerly only."
        ) from error
    for node in graph.graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default  # the compiler's memory format of a single image need not be the kernel's
    constants = _lift_constants(graph)
    return Program(graph, plan, constants, list(store), leaves, target, dynamic, portable)


PACKED = (
    "packed sequences run eagerly only, by attribute and explain: how many rows they have depends on their lengths. "
    "For a program, give the layer the padded batch and pick the last step of every sample, "
    "output[torch.arange(len(x)), lengths - 1]: in one direction this computes the same."
)


def _contiguous(weights: list[Any]) -> list[Any]:
    """Weights in the order of their dimensions: ONNX has no word for the strides of others."""
    return [w.contiguous() if isinstance(w, Tensor) else w for w in weights]


def _lift_constants(graph: GraphModule) -> list[Tensor]:
    """Make plain arguments of all that the graph takes, constants of rules (the bounds of z^B) first."""
    graph.graph.set_codegen(CodeGen())
    first = next(iter(graph.graph.nodes))
    constants: list[Tensor] = []
    lifted: dict[str, Node] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if name not in lifted:
            constants.append(getattr(graph, name))
            with graph.graph.inserting_before(first):
                lifted[name] = graph.graph.placeholder(f"constant{len(constants)}")
        node.replace_all_uses_with(lifted[name])
        graph.graph.erase_node(node)
    for name in lifted:
        delattr(graph, name)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return constants


# ---------------------------------------------------------------------------------------------------------------------
# Operations that compilers do not take
# ---------------------------------------------------------------------------------------------------------------------


def _linear(a: Tensor, w: Tensor, b: Tensor | None, *_: Any) -> Tensor:
    return torch.nn.functional.linear(a, w, b)


def _linear_here(a: Tensor, w: Tensor, b: Tensor | None, *_: Any) -> Tensor:
    product: Tensor = torch.ops.relprop.linear(a, w, b)
    return product
