"""model + example inputs -> Graph.

``torch.export`` gives a functional graph in which every call of every operation is one node. The batch dimension is
left open, so that one capture serves every batch size; when another dimension turns out to vary, the model is captured
once more with that dimension open too. What cannot be exported (control flow that depends on data) is recorded from
one real run.
"""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..errors import CaptureError, InputError, reason_of
from ..graph.checksum import checksum
from ..graph.graph import READING, Graph
from ..graph.modes import only_what_is_needed
from .archive import load
from .export import export_program, module_lookup, program_lookup, program_state, to_graph
from .functional import functional
from .outputs import Fields, TensorsOnly, known_leaf
from .record import record
from .validity import Capture, captured_shape, shapes_of_leaves, signature


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
        key = (str(spec), tuple(signature(leaf) for leaf in leaves), self._state())
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
        theirs = pytree.tree_leaves(pytree.tree_map(known_leaf, output))
        pairs = [[x for x in leaves if isinstance(x, Tensor)] for leaves in (theirs, ours)]
        return len(pairs[0]) == len(pairs[1]) and all(map(_close, *pairs))

    def _made(self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], before: Any) -> Capture:
        graph = self._capture(args, kwargs, leaves, before)
        graph.input_names = _names(args, kwargs, self._arguments())
        # a recorded graph is only valid for its own inputs; of the others the shapes suffice
        example = (
            [x.clone() if isinstance(x, Tensor) else x for x in leaves] if graph.recorded else shapes_of_leaves(leaves)
        )
        weights = self._checksums() if graph.recorded else None
        return Capture(graph, [captured_shape(node) for node in graph.inputs], example, weights)

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
            return to_graph(functional(self.program), program_lookup(self.program))
        failures: list[Exception] = []
        # with every dimension open that has varied, with the batch alone open, with none
        openings = [before, *([[]] if before else []), None] if before is not None else [None]
        attempts = [(self._exported or self.model, opening) for opening in openings]
        while attempts:
            model, examples = attempts.pop(0)
            try:
                program = export_program(model, args, kwargs, leaves, examples)
                return to_graph(program, module_lookup(model, program.constants))
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
            return {v.device for v in program_state(self.program).values() if isinstance(v, Tensor)}
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


pytree.register_pytree_node(
    Fields,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: Fields(zip(names, values, strict=True)),
    flatten_with_keys_fn=lambda output: ([(pytree.MappingKey(n), x) for n, x in output.items()], list(output)),
)


def _unwrap(model: nn.Module) -> nn.Module:
    """The module behind ``torch.compile`` or ``DataParallel``."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def _close(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape or not x.dtype.is_floating_point:
        return x.shape == y.shape and bool(torch.equal(x, y))
    tolerance = max(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    finite = torch.isfinite(x)
    scale = float(x[finite].abs().max()) if bool(finite.any()) else 0.0
    return bool(torch.allclose(x, y.to(x.dtype), rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _names(args: tuple[Any, ...], kwargs: dict[str, Any], arguments: list[str]) -> list[str]:
    """A readable name for every leaf of the inputs: that of its argument, or the position."""
    prefixes = [arguments[i] if i < len(arguments) else str(i) for i in range(len(args))] + list(kwargs)
    return [
        prefix + pytree.keystr(path)
        for prefix, tree in zip(prefixes, (*args, *kwargs.values()), strict=True)
        for path, _ in pytree.tree_flatten_with_path(tree)[0]
    ]
