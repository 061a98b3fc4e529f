"""model + example inputs -> Graph.

``torch.export`` gives a functional graph in which every call of every operation is one node. The batch dimension is
left open, so that one capture serves every batch size; when another dimension turns out to vary, the model is captured
once more with that dimension open too. What cannot be exported (control flow that depends on data) is recorded from
one real run.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial, update_wrapper
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import ShapesCollection
from torch.export.graph_signature import InputKind, OutputKind

from .archive import load
from .derived import checksum
from .errors import CaptureError, InputError, reason_of
from .functional import functional, replace_in_place
from .graph import READING, Graph
from .modes import only_what_is_needed
from .passes import canonize
from .passes.recurrent import WholeLayers


@dataclass
class Capture:
    """One captured graph and the input shapes it is valid for."""

    graph: Graph
    shapes: list[tuple[Any, ...] | None]
    example: list[Any]
    weights: list[Tensor] | None = None
    """Checksums of the parameters that a record was made with: they may have decided a branch."""

    serves_one: dict[frozenset[str], bool] = field(default_factory=dict)
    """Open sizes -> whether the graph also serves inputs for which just these are one."""

    def accepts(self, leaves: Sequence[Any], runs_alike: Callable[[Graph], bool] = lambda graph: True) -> bool:
        """Whether these inputs may run through this graph.

        Args:
            leaves: the inputs.
            runs_alike: whether the graph gives what the model gives. It is asked when an open size is one for the
                first time: what a model does for exactly one leaves no guard, since torch takes open sizes for larger.
        """
        if self.graph.recorded:
            return all(_same(x, y) for x, y in zip(self.example, leaves, strict=True))
        sizes: dict[str, int] = {}
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if shape is not None and not _fits(leaf.shape, shape, sizes):
                return False
        if not _guards_hold(self.shapes, sizes):
            return False
        ones = frozenset(name for name, size in sizes.items() if size == 1)
        if ones and ones not in self.serves_one:
            self.serves_one[ones] = runs_alike(self.graph)
        return not ones or self.serves_one[ones]


class Capturer:
    """Captures a model on demand and remembers the graphs, by input signature."""

    limit = 16

    def __init__(self, model: nn.Module | ExportedProgram | str | Path):
        self.program: ExportedProgram | None = None
        self.model: nn.Module | None = None
        if isinstance(model, (str, Path)):
            self.program = load(Path(model))
        elif isinstance(model, ExportedProgram):
            self.program = model
        elif isinstance(model, nn.Module):
            self.model = _unwrap(model)
        else:
            raise CaptureError(
                f"LRP explains an nn.Module, an ExportedProgram or the path of a .pt2 file, not {type(model).__name__}."
                " A plain function can be wrapped in an nn.Module whose forward calls it."
            )
        self._exported = self.model
        """What is exported: the model, or a wrapper around it."""
        self._captures: dict[Any, list[Capture]] = {}
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the model, without what was captured of it."""
        state = {**self.__dict__, "_captures": {}, "_exported": self.model}
        if self.program is not None:  # it does not come out of a pickle
            torch.export.save(self.program, saved := BytesIO())
            state["program"] = saved.getvalue()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if isinstance(saved := state["program"], bytes):
            self.program = torch.export.load(BytesIO(saved))

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        """The graph of the model for these inputs."""
        with READING:
            return self._graph(args, kwargs)

    def _graph(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        key = (str(spec), tuple(_signature(leaf) for leaf in leaves), self._state())
        known = self._captures.setdefault(key, [])
        alike = partial(self._runs_alike, args, kwargs, leaves)
        for capture in known:
            if capture.accepts(leaves, alike) and (capture.weights is None or self._has(capture.weights)):
                return capture.graph
        capture = self._made(args, kwargs, leaves, [capture.example for capture in known])
        if not capture.accepts(leaves, alike) and self.model is not None:  # one sample takes another branch than two
            capture = self._made(args, kwargs, leaves, None)
        if not capture.accepts(leaves):
            raise CaptureError(
                f"the program was exported for inputs of shape {[s for s in capture.shapes if s is not None]}, "
                f"got {[tuple(x.shape) for x in leaves if isinstance(x, Tensor)]}. Export it with dynamic shapes, "
                "or give it inputs of the shape it was made for."
            )
        known[:] = [capture] if capture.graph.recorded else [*known, capture][-self.limit :]
        return capture.graph

    def _runs_alike(self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], graph: Graph) -> bool:
        """Whether a graph gives what the model itself gives for these inputs, up to rounding."""
        if self.model is None:
            return True
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}  # the model may write to them
        with torch.no_grad(), torch.random.fork_rng():
            try:
                output, ours = torch.func.functional_call(self.model, buffers, args, kwargs), graph.run(leaves)
            except Exception:  # the inputs do not fit: the explanation will say so
                return True
        theirs = pytree.tree_leaves(pytree.tree_map(_known, output))
        pairs = [[x for x in leaves if isinstance(x, Tensor)] for leaves in (theirs, ours)]
        return len(pairs[0]) == len(pairs[1]) and all(map(_close, *pairs))

    def _made(self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], before: Any) -> Capture:
        graph = self._capture(args, kwargs, leaves, before)
        graph.input_names = _names(args, kwargs, self._arguments())
        # a recorded graph is only valid for its own inputs; of the others the shapes suffice
        example = [x.clone() if isinstance(x, Tensor) else x for x in leaves] if graph.recorded else _shapes(leaves)
        weights = self._checksums() if graph.recorded else None
        return Capture(graph, [_captured_shape(node) for node in graph.inputs], example, weights)

    def _arguments(self) -> list[str]:
        """What the model calls its positional arguments."""
        if self.model is None:
            return []
        parameters = inspect.signature(self.model.forward).parameters.values()
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def _checksums(self) -> list[Tensor]:
        assert self.model is not None
        return checksum([t.detach() for t in (*self.model.parameters(), *self.model.buffers())])

    def _has(self, weights: list[Tensor]) -> bool:
        now = self._checksums()
        return len(now) == len(weights) and all(map(torch.equal, now, weights))

    def _state(self) -> Any:
        """What changes the graph besides the inputs: modes, and where and how the parameters are stored."""
        if self.model is None:
            return None
        first = next((p for p in self.model.parameters()), None)
        # an exchanged module or a changed option (a slope, a padding mode) makes another graph
        modules = tuple((id(m), m.training, m.extra_repr()) for m in self.model.modules())
        return (hash(modules), None if first is None else (first.dtype, first.device))

    @only_what_is_needed()
    def _capture(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], before: list[list[Any]] | None
    ) -> Graph:
        if self.model is None:
            assert self.program is not None
            return to_graph(functional(self.program), _program_lookup(self.program))
        failures: list[Exception] = []
        # with every dimension open that has varied, with the batch alone open, with none
        openings = [before, *([[]] if before else []), None] if before is not None else [None]
        attempts = [(self._exported or self.model, opening) for opening in openings]
        while attempts:
            model, examples = attempts.pop(0)
            try:
                program = _export(model, args, kwargs, leaves, examples)
                return to_graph(program, _module_lookup(model, program.constants))
            except CaptureError:
                raise
            except Exception as error:  # torch.export has no common base class for its many reasons to refuse
                failures.append(error)
                if model is self.model and "in output, which is not a known type" in str(error):
                    self._exported = TensorsOnly(model)  # from now on: every attempt takes a whole trace
                    attempts = [(self._exported, opening) for opening in openings]
        try:
            graph = record(self.model, args, kwargs)
        except CaptureError:
            raise
        except Exception as error:
            self._refuse_inputs(args, kwargs, leaves)
            raise CaptureError(
                f"{type(self.model).__name__} could not be exported, nor recorded from one run.\n"
                f"torch.export says: {reason_of(failures[-1])}\nThe run says: {reason_of(error)}"
            ) from error
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self.model).__name__} cannot be exported ({reason_of(failures[-1])}); its operations are "
                "recorded from one real run instead, and anew whenever the inputs change.",
                stacklevel=4,
            )
        return graph

    def devices(self) -> set[torch.device]:
        """Where the parameters and buffers are."""
        if self.model is None:
            assert self.program is not None
            return {v.device for v in _program_state(self.program).values() if isinstance(v, Tensor)}
        return {v.device for v in (*self.model.parameters(), *self.model.buffers())}

    def lives_on(self, device: torch.device) -> bool:
        """Whether any parameter is there, or there are none."""
        first = next(self.model.parameters(), None) if self.model is not None else None
        if first is not None and first.device == device:
            return True
        devices = self.devices()
        return not devices or device in devices

    def _refuse_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]) -> None:
        """If the model itself cannot run on these inputs, it is not the capture that is to blame.

        Raises:
            InputError: with the inputs as they came and what the model says about them.
        """
        assert self.model is not None
        try:
            with torch.no_grad():
                self.model(*args, **kwargs)
        except Exception as error:
            came = "; ".join(
                f"input {i}: shape {tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else f"input {i}: {x!r}"
                for i, x in enumerate(leaves)
            )
            dtypes = dict.fromkeys(str(p.dtype) for p in self.model.parameters())
            own = f" (its parameters are {', '.join(dtypes)})" if dtypes else ""
            raise InputError(
                f"{type(self.model).__name__}{own} cannot run on these inputs ({came}). It says: {reason_of(error)}"
            ) from error


class Fields(dict[str, Any]):
    """The fields of a dataclass in the model's output, by name and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the output has the fields {', '.join(self)}, but no {name!r}") from None


pytree.register_pytree_node(
    Fields,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: Fields(zip(names, values, strict=True)),
    flatten_with_keys_fn=lambda output: ([(pytree.MappingKey(n), x) for n, x in output.items()], list(output)),
)


class TensorsOnly(nn.Module):
    """A model without those parts of its output that torch.export does not know (a cache of keys and values)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.inner = model
        self.train(model.training)
        # torch.export can leave dimensions of named arguments open: so forward has the signature of the model's own
        self.forward = update_wrapper(partial(_tensors_of, model), model.forward)


def _tensors_of(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    output = model(*args, **kwargs)
    known = pytree.tree_map(_known, output)
    if not any(isinstance(x, Tensor) for x in pytree.tree_leaves(known)):
        raise CaptureError(
            f"{type(model).__name__} returns {type(output).__name__}, in which no tensor is to be seen. Wrap it in a "
            "module that returns a tensor, or a tuple, dict or dataclass of tensors."
        )
    return known


def _known(x: Any) -> Any:
    """A leaf of the output as torch.export knows it; None for what it does not."""
    if is_dataclass(x) and not isinstance(x, type):
        return Fields((f.name, pytree.tree_map(_known, getattr(x, f.name))) for f in fields(x))
    return x if isinstance(x, (Tensor, int, float, str, type(None))) else None


# ---------------------------------------------------------------------------------------------------------------------
# Export
# ---------------------------------------------------------------------------------------------------------------------


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], before: list[list[Any]] | None
) -> ExportedProgram:
    """Export with the batch dimension open, and every dimension in which earlier inputs differed from these."""
    dynamic_shapes = None
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
        _, spec = pytree.tree_flatten((args, kwargs))
        args, kwargs = pytree.tree_unflatten(doubled, spec)
        dynamic_shapes = collection.dynamic_shapes(model, args, kwargs)
    with warnings.catch_warnings(), torch.no_grad(), WholeLayers(), _silent():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        replace_in_place(program)
        return functional(program)


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    """Record the operations of one real run, then export the record to make it functional."""
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
        flat, out_spec = pytree.tree_flatten(pytree.tree_map(_known, output))
        return flat

    values = [v.detach().clone() for v in state.values()]
    inputs = [leaves[i].detach().clone() for i in tensors]
    with torch.no_grad(), WholeLayers():
        recorded = make_fx(
            run, tracing_mode="real", pre_dispatch=True, record_module_stack=False, _error_on_data_dependent_ops=False
        )(values, inputs)
        recorded.graph.eliminate_dead_code(_must_stay)  # values that the model looked at to choose its way
        recorded.recompile()
        program = functional(torch.export.export(recorded, (values, inputs), strict=False))
    graph = to_graph(program, _module_lookup(model, _program_state(program)), canonical=False)
    placeholders = graph.inputs
    graph.parameters.update(dict(zip(placeholders[: len(names)], names, strict=True)))  # type: ignore[arg-type]
    graph.inputs = [None] * len(leaves)
    for i, node in zip(tensors, placeholders[len(names) :], strict=True):
        graph.inputs[i] = node
    graph.in_spec, graph.out_spec, graph.recorded = spec, out_spec, True
    return canonize(graph)


def _must_stay(node: torch.fx.Node) -> bool:
    """Whether a node must stay though nobody uses it: an input, the output, or a change in place."""
    schema = getattr(node.target, "_schema", None)
    return node.op in ("placeholder", "output") or (schema is not None and schema.is_mutable)


@contextmanager
def _silent() -> Iterator[None]:
    """torch prints the traceback of a refusal that is told in an error's own words."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


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
    return canonize(graph) if canonical else graph


def _is_wrapped(fx: torch.fx.Graph) -> bool:
    name = TensorsOnly.__qualname__
    stacks = (node.meta.get("nn_module_stack") for node in fx.nodes)
    return any(str(kind).endswith(name) for stack in stacks if stack for _, kind in stack.values())


def _unwrap_paths(fx: torch.fx.Graph) -> None:
    """Module paths as the user knows them, without the wrapper around the model."""
    for node in fx.nodes:
        if stack := node.meta.get("nn_module_stack"):
            entries = [(key, path.removeprefix("inner").removeprefix("."), kind) for key, (path, kind) in stack.items()]
            node.meta["nn_module_stack"] = {key: (path, kind) for key, path, kind in entries[1:]}


# ---------------------------------------------------------------------------------------------------------------------
# Small helpers
# ---------------------------------------------------------------------------------------------------------------------


def batch_size(leaves: Sequence[Any]) -> int | None:
    """Length of the first dimension of the first tensor input."""
    return next((x.shape[0] for x in leaves if isinstance(x, Tensor) and x.ndim > 0), None)


def _has_batch(leaf: Any, batch: int | None) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == batch


def _fresh(leaf: Any) -> Any:
    """A tensor object of its own: the same tensor given twice would be one entry of the shapes collection."""
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _unwrap(model: nn.Module) -> nn.Module:
    """The module behind ``torch.compile`` or ``DataParallel``."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def _module_lookup(model: nn.Module, constants: dict[str, Any]) -> Callable[[str], Tensor]:
    """Live parameters and buffers by name; tensors made inside ``forward`` are constants of the program."""

    owners = dict(model.named_modules(remove_duplicate=False))  # an exchanged module makes another capture

    def lookup(name: str) -> Tensor:
        path, _, attribute = name.rpartition(".")
        value: Any = getattr(owners.get(path), attribute, None)
        return constants[name] if value is None else value

    return lookup


def _program_state(program: ExportedProgram) -> dict[str, Tensor]:
    return {**program.state_dict, **program.constants}


def _program_lookup(program: ExportedProgram) -> Callable[[str], Tensor]:
    def lookup(name: str) -> Tensor:
        value = program.state_dict.get(name)
        return program.constants[name] if value is None else value

    return lookup


def _signature(leaf: Any) -> Any:
    return (leaf.dtype, leaf.device, leaf.ndim) if isinstance(leaf, Tensor) else (type(leaf), leaf)


def _shapes(leaves: Sequence[Any]) -> list[Any]:
    return [tuple(x.shape) if isinstance(x, Tensor) else x for x in leaves]


def _captured_shape(node: Any) -> tuple[Any, ...] | None:
    return None if node is None else tuple(node.meta["val"].shape)


def _fits(actual: Sequence[int], captured: Sequence[Any], sizes: dict[str, int]) -> bool:
    """Whether a shape agrees with the captured one; symbols are bound at their first occurrence."""
    if len(actual) != len(captured):
        return False
    for n, dim in zip(actual, captured, strict=True):
        if isinstance(dim, int):
            if n != dim:
                return False
        elif dim.node.expr.is_Symbol:
            if sizes.setdefault(str(dim), n) != n:
                return False
            bounds = dim.node.shape_env.var_to_range[dim.node.expr]
            if (n < bounds.lower and n != 1) or n > bounds.upper:
                return False
        elif int(dim.node.expr.subs({s: sizes.get(str(s), 0) for s in dim.node.expr.free_symbols})) != n:
            return False
    return True


def _guards_hold(shapes: Sequence[Any], sizes: dict[str, int]) -> bool:
    """Whether the model, which may branch on sizes, would take the branches that it took at capture."""
    symbolic = [dim for shape in shapes if shape is not None for dim in shape if not isinstance(dim, int)]
    if not symbolic:
        return True
    guards = [guard.expr for guard in symbolic[0].node.shape_env.guards]
    return not any(guard.subs({s: sizes.get(str(s), s) for s in guard.free_symbols}) == False for guard in guards)  # noqa: E712


def _close(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape or not x.dtype.is_floating_point:
        return x.shape == y.shape and bool(torch.equal(x, y))
    tolerance = max(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    finite = torch.isfinite(x)
    scale = float(x[finite].abs().max()) if bool(finite.any()) else 0.0
    return bool(torch.allclose(x, y.to(x.dtype), rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor):
        return x.shape == y.shape and bool(torch.equal(x, y))
    return bool(x == y)


def _names(args: tuple[Any, ...], kwargs: dict[str, Any], arguments: list[str]) -> list[str]:
    """A readable name for every leaf of the inputs: that of its argument, or the position."""
    prefixes = [arguments[i] if i < len(arguments) else str(i) for i in range(len(args))] + list(kwargs)
    return [
        prefix + pytree.keystr(path)
        for prefix, tree in zip(prefixes, (*args, *kwargs.values()), strict=True)
        for path, _ in pytree.tree_flatten_with_path(tree)[0]
    ]
