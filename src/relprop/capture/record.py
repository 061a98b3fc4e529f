"""What cannot be exported (control flow that depends on data) is recorded from one real run."""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.fx import Node

from ..graph.graph import Graph, calls
from ..graph.ops import PACK, PAD
from ..passes import canonize
from .assignments import Assignments
from .blocks import one_mode
from .control_flow import unrolled
from .export import module_lookup, program_state, to_graph
from .functional import functional
from .numpy_parts import NumpyParts
from .outputs import known_output
from .quiet import quiet
from .recurrent import WholeLayers

aten = torch.ops.aten

DECIDING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Graph, list[str]]:
    """Record the operations of one real run, then export the record to make it functional.

    Returns:
        The graph, and the places where the model computed with NumPy.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = list(state)
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
    out_spec: Any = None

    def run(parameters: list[Tensor], inputs: list[Tensor]) -> Any:
        nonlocal out_spec
        filled = list(leaves)
        for i, x in zip(tensors, inputs, strict=True):
            filled[i] = x
        run_args, run_kwargs = pytree.tree_unflatten(filled, spec)
        output = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), run_args, run_kwargs)
        flat, out_spec = pytree.tree_flatten(known_output(model, output))
        return flat

    values = [v.detach().clone() for v in state.values()]
    inputs = [leaves[i].detach().clone() for i in tensors]
    with torch.no_grad(), unrolled(), one_mode(), Assignments(), WholeLayers(), quiet():
        trace = make_fx(
            run, tracing_mode="real", pre_dispatch=True, record_module_stack=False, _error_on_data_dependent_ops=False
        )
        with NumpyParts(values) as parts:
            recorded = trace(values, inputs)
        looked = parts.looked or _looks(recorded.graph, len(values))
        recorded.graph.eliminate_dead_code(_must_stay)  # values that the model looked at to choose its way
        recorded.recompile()
        program = functional(torch.export.export(recorded, (values, inputs), strict=False))
    graph = to_graph(program, module_lookup(model, program_state(program)), canonical=False)
    placeholders = graph.inputs
    graph.parameters.update(dict(zip(placeholders[: len(names)], names, strict=True)))  # type: ignore[arg-type]
    graph.inputs = [None] * len(leaves)
    for i, node in zip(tensors, placeholders[len(names) :], strict=True):
        graph.inputs[i] = node
    graph.written = tuple(dict(model.named_parameters()))  # for all that is known
    graph.in_spec, graph.out_spec, graph.recorded, graph.looked = spec, out_spec, True, looked
    return canonize(graph), list(parts.places)


def _looks(record: torch.fx.Graph, parameters: int) -> bool:
    """Whether values of the inputs, rather than of parameters alone, may have decided what was recorded."""
    depends = set([node for node in record.nodes if node.op == "placeholder"][parameters:])
    for node in record.nodes:
        if any(n in depends for n in node.all_input_nodes):
            depends.add(node)
            if calls(node) and _decides(node):
                return True
    return False


def _decides(node: Node) -> bool:
    """Whether an operation gives numbers to Python, or a result whose size depends on values."""
    target: Any = node.target
    if target is aten.index.Tensor:  # its size does so where truths choose
        indices: Any = node.args[1]
        return any(isinstance(i, Node) and i.meta["val"].dtype in (torch.bool, torch.uint8) for i in indices)
    if not isinstance(target, torch._ops.OpOverload):
        return target is not getitem
    if target in (PACK, PAD):  # torch does not tag them, though their sizes depend on the lengths
        return True
    return target.namespace not in ("aten", "relprop") or not DECIDING.isdisjoint(target.tags)


def _must_stay(node: torch.fx.Node) -> bool:
    """Whether a node must stay though nobody uses it: an input, the output, or a change in place."""
    schema = getattr(node.target, "_schema", None)
    return node.op in ("placeholder", "output") or (schema is not None and schema.is_mutable)
