"""A model, or an exported program of one, and how one graph is made of it."""

from __future__ import annotations

import inspect
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..errors import CaptureError, InputError, reason_of, warn
from ..graph.checksum import checksum
from ..graph.graph import Graph
from ..graph.modes import only_what_is_needed
from . import onnx_file
from .agreement import forked, outputs_of
from .archive import load
from .blocks import without_blocks
from .control_flow import calls_functions
from .copies import copied
from .differentiation import refuse_derivatives
from .export import export_program, longer, module_lookup, program_lookup, program_state, to_graph
from .functional import functional
from .outputs import TensorsOnly, is_known
from .quantised import refuse_quantised
from .reach import Reach
from .record import record
from .remedies import Arguments, described, remedy
from .scripted import converted, is_scripted
from .untouched import untouched

BRANCHES = "has branches or loops that depend on values"


class Source:
    """What graphs are made of.

    Args:
        model: an ``nn.Module``, an ``ExportedProgram``, or the path of a ``.pt2`` or ``.onnx`` file.

    Raises:
        CaptureError: if it is none of these.
        ImportError: if packages are missing that read ONNX.
    """

    def __init__(self, model: nn.Module | ExportedProgram | str | Path):
        self.program: ExportedProgram | None = None
        self.model: nn.Module | None = None
        self._names: list[str] | None = None
        """What an ONNX file calls its inputs."""
        if isinstance(model, (str, Path)) and Path(model).suffix.lower() == ".onnx":
            self.model = onnx_file.read(Path(model))
            self._names = onnx_file.arguments_of(self.model)
        elif isinstance(model, (str, Path)):
            self.program = load(Path(model))
        elif isinstance(model, ExportedProgram):
            self.program = model
        elif isinstance(model, nn.Module):
            self.model = _unwrap(model)
        else:
            raise CaptureError(
                "LRP explains an nn.Module, an ExportedProgram or the path of a .pt2 or .onnx file, not "
                f"{type(model).__name__}. A plain function can be wrapped in an nn.Module whose forward calls it."
            )
        self._exported = self.model
        """What is exported: the model, or a wrapper around it."""
        self._runnable: nn.Module | None = self.model
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the model, without what was made of it."""
        state = {**self.__dict__, "_exported": self.model, "_runnable": self.model}
        if self.program is not None:  # it does not come out of a pickle
            torch.export.save(self.program, saved := BytesIO())
            state["program"] = saved.getvalue()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if isinstance(saved := state["program"], bytes):
            self.program = torch.export.load(BytesIO(saved))

    @property
    def runnable(self) -> nn.Module:
        """The model, or a module that runs the program."""
        if self._runnable is None:
            assert self.program is not None
            self._runnable = self.program.module(check_guards=False)
        return self._runnable

    @property
    def name(self) -> str:
        if self._names is not None:
            return "the model of the ONNX file"
        return "the exported program" if self.model is None else type(self.model).__name__

    def arguments(self) -> list[str]:
        """What the model calls its positional arguments."""
        if self.model is None or self._names is not None:
            return self._names or []
        if is_scripted(self.model):
            schema = self.model.forward.schema  # type: ignore[attr-defined]
            return [argument.name for argument in schema.arguments[1:]]
        parameters = inspect.signature(self.model.forward).parameters.values()
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def checksums(self) -> list[Tensor]:
        """What tells whether a parameter or buffer changed."""
        return checksum([t.detach() for t in (*self.runnable.parameters(), *self.runnable.buffers())])

    @only_what_is_needed()
    def graph(self, args: tuple[Any, ...], kwargs: dict[str, Any], before: list[list[Any]] | None) -> Graph:
        """One graph of the model.

        Args:
            args, kwargs: example inputs, which are left as they are.
            before: shapes of the inputs that were captured before, so that every dimension that has varied is left
                open; None to leave none open.

        Raises:
            CaptureError: if no graph can be made.
            InputError: if the model itself cannot run on these inputs.
        """
        if self.model is None:
            assert self.program is not None
            if not calls_functions(self.program):
                return _graph_of(self.program)
            return self._recorded(args, kwargs, BRANCHES)
        if is_scripted(self.model):
            program = converted(self.model, *copied(args, kwargs))
            if not calls_functions(program):
                graph = _graph_of(program)
                graph.out_spec = pytree.tree_structure(outputs_of(self.model, Reach(self.model), args, kwargs))
                return graph  # of which torch's converter has taken tuples for lists
            return self._recorded(args, kwargs, BRANCHES, program.module(check_guards=False))
        reach, failures = Reach(self.model), list[Exception]()
        if self._exported is self.model and _may_return_a_cache(self.model):
            self._exported = self._known_outputs(reach, args, kwargs)
        # with every dimension open that has varied or holds tokens, with the batch alone open, with none
        varied = [*(before or []), *longer(pytree.tree_leaves((args, kwargs)))]
        openings = [varied, *([[]] if varied else []), None] if before is not None else [None]
        attempts = [(self._exported or self.model, opening) for opening in openings]
        while attempts:
            model, examples = attempts.pop(0)
            try:
                with untouched(reach), forked(self.model):
                    program = export_program(model, *copied(args, kwargs), examples)
                return to_graph(program, module_lookup(model, program_state(program)))
            except CaptureError:
                raise
            except Exception as error:  # torch.export has no common base class for its many reasons to refuse
                failures.append(error)
                if model is self.model and (known := self._known_outputs(reach, args, kwargs)) is not model:
                    self._exported = known  # from now on: every attempt takes a whole trace
                    attempts = [(known, opening) for opening in openings]
        return self._recorded(args, kwargs, f"cannot be exported ({reason_of(failures[-1])})")

    def _known_outputs(self, reach: Reach, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
        """The model, if torch.export knows all that it returns; else what returns its tensors alone.

        So it is, too, if the model itself does not run: in a graph it may (Mixtral's products in double precision).
        """
        assert self.model is not None
        written = [name for name, _ in self.model.named_parameters()]  # any of them: nothing has been captured yet
        with suppress(Exception), forked(self.model):
            if is_known(outputs_of(self.model, reach, args, kwargs, written, known=False)):
                return self.model
        return TensorsOnly(self.model)

    def _recorded(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], why: str, runnable: nn.Module | None = None
    ) -> Graph:
        """A graph of one real run, for what cannot be exported."""
        model = runnable or self.runnable
        try:
            with untouched(Reach(model)), forked(model):
                graph, outside = record(model, *copied(args, kwargs))
        except CaptureError:
            raise
        except Exception as error:
            self.explain_failure(args, kwargs)
            raise CaptureError(
                f"{self.name} {why}, and it could not be recorded from one run, either ({reason_of(error)})."
            ) from error
        if not self._warned and (graph.looked or self._names is None):  # of an ONNX file nothing else is expected
            self._warned = True
            told = (
                f"{self.name} {why}; its operations are recorded from one real run instead, and anew whenever the "
                f"{'inputs change' if graph.looked else 'shapes of the inputs, or parameters, change'}."
            )
            numpy = (
                f" What it computes of its inputs with NumPy or lists ({', '.join(outside)}) counts as a constant: "
                "relevance stops there. Written in torch it would be explained."
            )
            warn(told + numpy * bool(outside), UserWarning)
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

    def explain_failure(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look for the reason why a model cannot be captured, or its graph cannot run, in the model and its inputs.

        Raises:
            CaptureError: if the model is of a kind that cannot be explained.
            InputError: if the model itself cannot run on these inputs, with the inputs as they came, what the model
                says about them, and what it would run on.
        """
        model = self.runnable
        self.refuse_kind(args, kwargs)

        def error_of(given: Arguments) -> Exception | None:
            try:
                outputs_of(model, Reach(model), *given)
            except Exception as error:
                return error
            return None

        error = error_of((args, kwargs))
        if error is None or isinstance(error, torch.OutOfMemoryError):
            return
        leaves = pytree.tree_leaves((args, kwargs))
        came = "; ".join(f"input {i}: {described(x)}" for i, x in enumerate(leaves))
        dtypes = dict.fromkeys(str(p.dtype) for p in model.parameters())
        own = f" (its parameters are {', '.join(dtypes)})" if dtypes else ""
        said = f"{self.name}{own} cannot run on these inputs ({came}). It says: {reason_of(error)}"
        advice = remedy(model, args, kwargs, lambda given: error_of(given) is None)
        raise InputError(". ".join([said, advice]) if advice else said) from error

    def refuse_kind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """
        Raises:
            CaptureError: if the model computes with integers, or differentiates itself.
        """
        refuse_quantised(self.runnable, self.name)
        with forked(self.runnable):
            refuse_derivatives(self.runnable, self.name, args, kwargs)


def _graph_of(program: ExportedProgram) -> Graph:
    return to_graph(functional(without_blocks(program)), program_lookup(program))


def _may_return_a_cache(model: nn.Module) -> bool:
    """Whether a model of Hugging Face says so: a run that tells is cheaper than an export that fails at its end."""
    return bool(getattr(getattr(model, "config", None), "use_cache", False))


def _unwrap(model: nn.Module) -> nn.Module:
    """The module behind ``torch.compile`` or ``DataParallel``."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model
