"""A propagation under PyTorch's compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from ..capture.export import batch_size
from ..engine.given import Given
from ..engine.inputs import refuse_infinite_inputs
from ..engine.question import Question, together
from ..engine.seeds import index_for
from ..engine.session import Session
from ..errors import InputError, TargetError
from ..graph.modes import own_modes
from ..targets import PREDICTED, Target
from .program import Program

LONG = 4_000
"""Operations of a program with a recurrent layer, step by step, beyond which it runs as it is written down: Inductor's
time grows with their square, two minutes for so many."""


class Compiled:
    """Relevance for inputs of the shapes that it was compiled for, by :meth:`relprop.LRP.compile`.

    Parameters are live. When some have changed, the first call is an eager one.
    """

    def __init__(self, program: Program, session: Session, question: Question, names: list[str]):
        self._program, self._session, self._question = program, session, question
        self._names = names  # of the examples, if they were named
        self._run: Callable[..., Any] = program.graph
        self._captures = False
        if not _is_long_recurrence(program):
            self._captures = not program.dynamic and _is_on_gpu(program)
            mode = "reduce-overhead" if self._captures else None  # CUDA graphs: launches are captured, and repeated
            self._run = torch.compile(program.graph, fullgraph=True, dynamic=program.dynamic, mode=mode)

    @own_modes()
    def attribute(self, inputs: Any, target: Any = None) -> Any:
        """Relevance of the inputs, as :meth:`relprop.LRP.attribute` has it.

        Args:
            inputs: in the shapes and types of the examples; with ``dynamic=True`` any number of samples.
            target: as in ``attribute``, but no function: one that was given to ``compile`` is part of the program.

        Raises:
            InputError: if the inputs differ in shape or type from the examples.
            TargetError: if the target does not fit the output.
        """
        if isinstance(inputs, Mapping) and set(inputs) == set(self._names):
            inputs = {name: inputs[name] for name in self._names}
        given = Given.of(inputs)
        graph = self._session.graph(given)
        self._check(given.leaves)
        refuse_infinite_inputs(list(given.leaves))  # a program has no guard against values that have no say
        if graph is not self._program.plan.graph:
            raise InputError(
                "the model has changed since it was compiled, or does something else for inputs of these sizes: "
                "compile it again, for them."
            )
        index = self._index(target, given.leaves)
        weights = self._program.weights()
        if weights is None:
            question = replace(self._question, targets=(target,))
            return given.like(together(list(self._session.answers(given, question)), several=False))
        with torch.no_grad():
            results = self._run(*weights, *(x.contiguous() for x in given.leaves if isinstance(x, Tensor)), index)
        results = results[-len(given.leaves) :]
        if self._captures:  # the next call writes to the same memory
            results = pytree.tree_map_only(Tensor, torch.clone, results)
        return given.like(results)

    __call__ = attribute

    def __reduce__(self) -> Any:
        raise TypeError(
            "a compiled program is neither copied nor pickled: copy the LRP and compile that, or save it as a program "
            "with lrp.export."
        )

    def _check(self, leaves: Sequence[Any]) -> None:
        examples = self._program.inputs
        wanted, given = (
            [_kind(x, self._program.dynamic) for x in examples],
            [_kind(x, self._program.dynamic) for x in leaves],
        )
        if wanted != given:
            raise InputError(f"the program was compiled for inputs {wanted}, got {given}: compile another one.")

    def _index(self, target: Target, leaves: Sequence[Any]) -> Tensor | None:
        example, graph = self._program.target, self._program.plan.graph
        if callable(target):
            raise TargetError(
                "a target function has to be given to compile(...), where it becomes part of the program."
            )
        if example is None:
            if target is not None:
                raise TargetError("the target is part of this program: compile another one for another target.")
            return None
        # the first input need not be one that holds samples
        holds = [leaf for x, leaf in zip(self._program.inputs, leaves, strict=True) if batch_size([x]) == len(example)]
        samples = batch_size(holds) or len(example)
        if target is None and example.ndim == 1:
            return torch.full((samples,), PREDICTED, device=example.device)
        outputs = [o.meta["val"] if isinstance(o, torch.fx.Node) else o for o in graph.outputs]
        shapes = [example.new_empty(1).float().expand(samples, *map(int, x.shape[1:])) for x in outputs]
        return index_for(target, shapes, graph.unflatten_output)


def _is_long_recurrence(program: Program) -> bool:
    kinds = {step.kind for step in program.plan.steps.values()}
    return "recurrent" in kinds and len(program.graph.graph.nodes) > LONG


def _is_on_gpu(program: Program) -> bool:
    return all(x.device.type == "cuda" for x in program.inputs if isinstance(x, Tensor))


def _kind(x: Any, dynamic: bool) -> Any:
    return (str(x.dtype), str(x.device), tuple(x.shape[dynamic:])) if isinstance(x, Tensor) else x
