"""model -> exported program -> Graph, with the batch dimension open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import ShapesCollection
from torch.export.graph_signature import InputKind, OutputKind

from ..errors import CaptureError
from ..graph.graph import Graph
from ..passes import canonize
from .assignments import Assignments
from .blocks import one_mode
from .control_flow import unrolled
from .functional import functional, replace_in_place
from .layers import layers_registered
from .outputs import TensorsOnly
from .quiet import quiet
from .recurrent import WholeLayers, restore_layers

# ---------------------------------------------------------------------------------------------------------------------
# Export
# ---------------------------------------------------------------------------------------------------------------------


def export_program(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], before: list[list[Any]] | None
) -> ExportedProgram:
    """Export with the batch dimension open, and every dimension in which earlier inputs differed from these."""
    dynamic_shapes, (leaves, spec) = None, pytree.tree_flatten((args, kwargs))
    if before is not None:
        batch = batch_size(leaves)
        # torch.export takes a dimension of one for a constant, so a single sample is shown to it twice
        doubled = [x.expand(2, *x.shape[1:]) if _has_batch(x, batch) and batch == 1 else _fresh(x) for x in leaves]
        collection = ShapesCollection()
        for position, (leaf, shown) in enumerate(zip(leaves, doubled, strict=True)):
            if not isinstance(shown, Tensor):
                continue
            open_dims = {0} if _has_batch(leaf, batch) else set()
            for example in before:
                open_dims |= {d for d, n in enumerate(example[position]) if n != leaf.shape[d]}
            collection[shown] = tuple(Dim.AUTO if d in open_dims else Dim.STATIC for d in range(shown.ndim))
        args, kwargs = pytree.tree_unflatten(doubled, spec)
        dynamic_shapes = collection.dynamic_shapes(model, args, kwargs)
    with torch.no_grad(), unrolled(), one_mode(), Assignments(), WholeLayers(), quiet(), layers_registered(model):
        program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        replace_in_place(program)
        return functional(program)


def to_graph(program: ExportedProgram, lookup: Callable[[str], Tensor], canonical: bool = True) -> Graph:
    """An exported program as a canonical graph."""
    if any(spec.kind == InputKind.CUSTOM_OBJ for spec in program.graph_signature.input_specs):
        raise CaptureError("the program holds a custom object (a ScriptObject); only tensors can be explained.")
    fx = deepcopy(program.graph)  # which the passes rewrite
    placeholders = [node for node in fx.nodes if node.op == "placeholder"]
    inputs: list[Any] = []
    parameters = {}
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(node if isinstance(node.meta.get("val"), Tensor) else None)
        elif spec.kind != InputKind.TOKEN:
            parameters[node] = str(spec.target)
    if (
        isinstance(program, ExportedProgram)
        and all(n.startswith("inner.") for n in program.state_dict)
        and _is_wrapped(fx)
    ):
        _unwrap_paths(fx)
    output = next(node for node in fx.nodes if node.op == "output")
    specs = program.graph_signature.output_specs
    outputs = [v for v, s in zip(output.args[0], specs, strict=True) if s.kind == OutputKind.USER_OUTPUT]
    in_spec = program.call_spec.in_spec
    graph = Graph(fx, inputs, [], parameters, lookup, in_spec, outputs, program.call_spec.out_spec)
    graph.written = tuple(str(s.target) for s in specs if s.kind == OutputKind.PARAMETER_MUTATION)
    restore_layers(graph)
    return canonize(graph) if canonical else graph


def _is_wrapped(fx: torch.fx.Graph) -> bool:
    wrapper = f"{TensorsOnly.__module__}.{TensorsOnly.__qualname__}"
    stacks = (node.meta.get("nn_module_stack") for node in fx.nodes)
    return any(kind in (wrapper, TensorsOnly) for stack in stacks if stack for _, kind in stack.values())


def _unwrap_paths(fx: torch.fx.Graph) -> None:
    """Module paths as the user knows them, without the wrapper around the model."""
    for node in fx.nodes:
        if stack := node.meta.get("nn_module_stack"):
            entries = [(key, path.removeprefix("inner").removeprefix("."), kind) for key, (path, kind) in stack.items()]
            node.meta["nn_module_stack"] = {key: (path, kind) for key, path, kind in entries[1:]}


# ---------------------------------------------------------------------------------------------------------------------
# Small helpers
# ---------------------------------------------------------------------------------------------------------------------


def longer(leaves: Sequence[Any]) -> list[list[Any]]:
    """Shapes of the same inputs with one token more: one capture serves texts of all lengths. None if there is no text.

    Token ids, and the masks and numbers that come with them, are integers [B, T].
    """
    texts = [isinstance(x, Tensor) and x.ndim == 2 and not x.dtype.is_floating_point for x in leaves]
    shapes = [list(x.shape) if isinstance(x, Tensor) else [] for x in leaves]
    return [[[n + d for d, n in enumerate(s)] if t else s for t, s in zip(texts, shapes, strict=True)]] * any(texts)


def batch_size(leaves: Sequence[Any]) -> int | None:
    """Length of the first dimension of the first tensor input."""
    return next((x.shape[0] for x in leaves if isinstance(x, Tensor) and x.ndim > 0), None)


def _has_batch(leaf: Any, batch: int | None) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == batch


def _fresh(leaf: Any) -> Any:
    """A tensor object of its own: the same tensor given twice would be one entry of the shapes collection."""
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def module_lookup(model: nn.Module, constants: dict[str, Any]) -> Callable[[str], Tensor]:
    """Live parameters and buffers by name; tensors made inside ``forward`` are constants of the program."""

    owners = dict(model.named_modules(remove_duplicate=False))  # an exchanged module makes another capture

    @cache
    def place(name: str) -> tuple[nn.Module | None, str]:
        path, _, attribute = name.rpartition(".")
        return owners.get(path), attribute

    def lookup(name: str) -> Tensor:
        owner, attribute = place(name)
        value: Any = getattr(owner, attribute, None)
        return constants[name] if value is None else value

    return lookup


def program_state(program: ExportedProgram) -> dict[str, Tensor]:
    return {**program.state_dict, **program.constants}


def program_lookup(program: ExportedProgram) -> Callable[[str], Tensor]:
    def lookup(name: str) -> Tensor:
        value = program.state_dict.get(name)
        return program.constants[name] if value is None else value

    return lookup
