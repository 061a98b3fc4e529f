"""model + example inputs -> Graph.

``torch.export`` gives a functional graph in which every call of every operation is one node. The batch dimension is
left open, so that one capture serves every batch size; when another dimension turns out to vary, the model is captured
once more with that dimension open too. What cannot be exported (control flow that depends on data) is recorded from
one real run. Whatever was captured is compared with the model itself before anything is explained with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..errors import CaptureError, RelpropError, UnsupportedOperation
from ..graph.graph import READING, Graph
from .agreement import disagreement
from .copies import copied
from .reach import Reach
from .source import Source
from .state import State
from .validity import Capture, captured_shape, kind_of, same_graph


class Outdated(Exception):
    """The graph is not one of the model as it is now, or not for these inputs: ask for another one."""


class Capturer:
    """Captures a model on demand and remembers the graphs, by input signature."""

    limit = 16
    """So many captures are kept, those that were used last: each new number among the inputs makes one."""

    def __init__(self, model: nn.Module | ExportedProgram | str | Path):
        self.source = Source(model)
        self._captures: dict[Any, list[Capture]] = {}
        self._clock = count()

    @property
    def model(self) -> nn.Module | None:
        """The model, if it is one and no exported program."""
        return self.source.model

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the model, without what was captured of it."""
        return {**self.__dict__, "_captures": {}}

    # -- one graph for each kind of input -----------------------------------------------------------------------------

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        """The graph of the model, as it is now, for these inputs."""
        with READING:
            return self._capture_for(args, kwargs).graph

    def _capture_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Capture:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        known = self._captures.setdefault((str(spec), tuple(map(kind_of, leaves))), [])
        changed: list[tuple[Capture, set[str]]] = []
        for capture in reversed(known):
            if capture.accepts(leaves) and (capture.weights is None or self._has(capture.weights)):
                changes = capture.changes()
                if changes <= capture.idle:
                    if changes:
                        capture.doubt(self._state())
                    capture.used = next(self._clock)
                    return capture
                changed.append((capture, changes))
        refused = any(capture.refused(leaves) and not capture.changes() for capture in known)
        new = self._made(args, kwargs, leaves, None if refused else [capture.example for capture in known])
        if not new.fits(leaves) and self.model is not None:  # one sample takes another branch than two
            new = self._made(args, kwargs, leaves, None)
        if not new.fits(leaves):
            raise CaptureError(
                f"the program was exported for inputs of shape {[s for s in new.shapes if s is not None]}, "
                f"got {[tuple(x.shape) for x in leaves if isinstance(x, Tensor)]}. Export it with dynamic shapes, "
                "or give it inputs of the shape it was made for."
            )
        for capture, changes in changed:
            if same_graph(capture.graph, new.graph):  # what has changed does not matter: its plans go on being used
                capture.idle |= changes
                capture.doubt(new.state)
                capture.used = next(self._clock)
                return capture
        known[:] = [new] if new.graph.looked else [*known, new]
        self._forget()
        return new

    @property
    def graphs(self) -> list[Graph]:
        """All that are remembered."""
        return [capture.graph for known in self._captures.values() for capture in known]

    def _forget(self) -> None:
        """Drop the captures that have not been used for longest."""
        every = sorted((c for known in self._captures.values() for c in known), key=lambda c: c.used)
        dropped = set(map(id, every[: -self.limit]))
        for key, known in list(self._captures.items()):
            known[:] = [c for c in known if id(c) not in dropped]
            if not known:
                del self._captures[key]

    # -- the model and its graph give the same ------------------------------------------------------------------------

    def confirm(self, graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Sequence[Any]) -> None:
        """Compare what a graph gave with what the model gives, where that is not known to be the same.

        It is not known for a new graph, for one of which the model has changed in a way that did not matter before,
        for the first input with one sample or step, and where not all that the model looks at can be watched.

        Args:
            graph: that was made for these inputs.
            args, kwargs: the inputs.
            outputs: leaves of the output of the graph.

        Raises:
            CaptureError: if they differ.
            Outdated: if another graph may be better.
        """
        with READING:
            capture = self._capture_of(graph)
            if capture is None:  # it was forgotten meanwhile
                raise Outdated
            leaves = pytree.tree_leaves((args, kwargs))
            if capture.is_confirmed(leaves):
                return
            reach = Reach(self.source.runnable) if capture.state is None else capture.state.reach
            difference = disagreement(self.source.runnable, reach, graph, args, kwargs, outputs)
            if difference is None:
                capture.confirm(leaves)
            elif capture.is_open and not capture.is_doubted:  # sizes that were left open may matter to the model
                capture.refuse(leaves)
                raise Outdated
            else:
                self._captures = {key: [c for c in known if c is not capture] for key, known in self._captures.items()}
                if capture.is_doubted:
                    raise Outdated
                self.source.refuse_kind(args, kwargs)
                raise CaptureError(
                    f"the graph that was captured of {self.source.name} does not compute what the model computes: "
                    f"{difference}. It is not explained, since that would be another model. This is a bug of relprop "
                    "or of torch.export: please report it with the model."
                )

    @contextmanager
    def running(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """Within it a graph of the model runs, and is confirmed: inputs that the model cannot run on fail here.

        Raises:
            InputError: if the model itself cannot run on them.
            CaptureError: if it is of a kind that cannot be explained, such as one that differentiates itself.
        """
        try:
            yield
        except UnsupportedOperation:
            self.source.refuse_kind(args, kwargs)
            raise
        except (RelpropError, Outdated, torch.OutOfMemoryError):
            raise
        except Exception:
            self.source.explain_failure(args, kwargs)
            raise

    def settle(self, graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Confirm, for who does not run the graph, where one that serves other inputs may not serve these."""
        capture = self._capture_of(graph)
        if capture is not None and capture.serves and not capture.is_confirmed(pytree.tree_leaves((args, kwargs))):
            with self.running(args, kwargs):
                self.confirm(graph, args, kwargs, graph.run(pytree.tree_leaves((args, kwargs))))

    def _capture_of(self, graph: Graph) -> Capture | None:
        return next((c for known in self._captures.values() for c in known if c.graph is graph), None)

    # -- one capture --------------------------------------------------------------------------------------------------

    def _made(self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], before: Any) -> Capture:
        graph = self.source.graph(args, kwargs, before)
        graph.input_names = _names(args, kwargs, self.source.arguments())
        own, _ = copied(tuple(leaves), {})
        # a graph that looked at values is only valid for its own inputs; of the others the shapes of tensors suffice
        example = [tuple(x.shape) if isinstance(x, Tensor) and not graph.looked else x for x in own]
        weights = self.source.checksums() if graph.recorded else None
        shapes = [captured_shape(node) for node in graph.inputs]
        return Capture(graph, shapes, example, self._state(), weights, used=next(self._clock))

    def _has(self, weights: list[Tensor]) -> bool:
        now = self.source.checksums()
        return len(now) == len(weights) and all(map(torch.equal, now, weights))

    def _state(self) -> State | None:
        return None if self.model is None else State(Reach(self.model))


def _names(args: tuple[Any, ...], kwargs: dict[str, Any], arguments: list[str]) -> list[str]:
    """A readable name for every leaf of the inputs: that of its argument, or the position."""
    prefixes = [arguments[i] if i < len(arguments) else str(i) for i in range(len(args))] + list(kwargs)
    return [
        prefix + pytree.keystr(path)
        for prefix, tree in zip(prefixes, (*args, *kwargs.values()), strict=True)
        for path, _ in pytree.tree_flatten_with_path(tree)[0]
    ]
