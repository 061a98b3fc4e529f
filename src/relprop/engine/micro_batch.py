"""A batch in parts, for one that does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ..errors import InputError, RelpropError, TargetError
from ..graph.graph import Graph, is_float, shape_of
from ..progress import Progress
from ..targets import main_output, name_of
from .given import Given
from .join import Joining
from .question import Answer, How, Question
from .seeds import refuse_list
from .session import Session


def answers_in_parts(
    session: Session, given: Given, question: Question, how: How, size: int | None, progress: Progress = iter
) -> list[Answer]:
    """Answers from some samples at a time.

    Args:
        session: the model.
        given: the inputs, all samples.
        question: for all samples.
        how: to work out each part.
        size: how many samples a part has at most; None for all at once.
        progress: goes over the parts.

    Raises:
        ValueError: if ``size`` is no positive whole number.
        InputError, TargetError: if inputs or target cannot be split.
    """
    if size is None:
        return list(session.answers(given, question, how))
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"micro_batch must be a whole number of samples, at least 1, got {size!r}")
    leaves, graph = list(given.leaves), session.graph(given, settled=False)
    samples, split = _split(graph, leaves)
    if question.listed:
        refuse_list(question.targets, samples)
        question = replace(question, listed=False)
    rows = [slice(first, min(first + size, samples)) for first in range(0, samples, size)]
    if len(rows) == 1:
        return list(session.answers(given, question, how))

    found = []
    for part in progress(rows):
        try:
            inputs = given.holding([x[part] if own else x for x, own in zip(leaves, split, strict=True)])
            if part in (rows[0], rows[-1]):  # all others are as long as the first
                _check(session.graph(inputs, settled=False), list(inputs.leaves), part)
            targets = tuple(part_of_target(t, part, samples) for t in question.targets)
            found.append(list(session.answers(inputs, replace(question, targets=targets), how)))
        except RelpropError as error:
            error.add_note(f"This is about samples {part.start} to {part.stop - 1} of {samples}: micro_batch={size}.")
            raise
    joining = Joining(graph, split, [part.stop - part.start for part in rows], _samples(graph, leaves)[0])
    return [
        joining.answer(parts, target, question.record)
        for parts, target in zip(zip(*found, strict=True), question.targets, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Inputs
# ---------------------------------------------------------------------------------------------------------------------


def _split(graph: Graph, leaves: list[Any]) -> tuple[int, list[bool]]:
    """The number of samples, and whether each leaf has them in its first dimension; the others are shared.

    The samples are those of the output. An open size that names them tells more than a number: a table of as many rows
    as there happen to be samples has another one, or none.
    """
    size, samples = _samples(graph, leaves)
    told = [_has_samples(graph, i, leaf, size, samples) for i, leaf in enumerate(leaves)]
    split = [own is not False for own in told]
    for i in [i for i, own in enumerate(told) if own is None]:
        split[i] = _is_taken_row_by_row(graph, leaves, split, i)
    if not any(split):
        raise InputError(
            f"micro_batch= needs inputs with the samples in their first dimension: the output has {samples}, and "
            f"no input has them there ({_shapes(graph, leaves)})."
        )
    return samples, split


def _is_taken_row_by_row(graph: Graph, leaves: list[Any], split: list[bool], i: int) -> bool:
    """Whether the rows of an input are samples, as those of an attention mask are: told by four samples.

    The last two are explained as a part, with their own rows of the input and with all of them. What gives the outputs
    that they have among the four is right.

    Raises:
        InputError: if neither does.
    """
    other = (leaves[i] != leaves[i][:1]).flatten(1).any(1).nonzero() if leaves[i].ndim > 1 else leaves[i].nonzero()
    last = int(other[0]) if len(other) else len(leaves[i]) - 1
    four = [x[[0, 0, last, last]] if own else x for x, own in zip(leaves, split, strict=True)]
    part = [x[2:] if own else x for x, own in zip(four, split, strict=True)]
    whole = _outputs(graph, four)
    if whole is not None and _alike(_outputs(graph, part), [x[2:] if x.ndim else x for x in whole]):
        return True
    if whole is not None and _alike(_outputs(graph, [*part[:i], four[i], *part[i + 1 :]]), [x[2:] for x in whole]):
        return False
    raise InputError(
        f"input {graph.input_names[i]!r} of shape {tuple(leaves[i].shape)} has as many rows as there are samples, but "
        "the model does not ask for that: whether they are samples, to be split for micro_batch=, cannot be told. Give "
        "another number of samples, or explain the parts one by one."
    )


def _outputs(graph: Graph, leaves: list[Any]) -> list[Tensor] | None:
    """The outputs for these inputs; None if they do not fit together."""
    try:
        with torch.no_grad():
            return [x for x in graph.run(leaves) if isinstance(x, Tensor)]
    except Exception:  # whatever an operation says of sizes that do not fit
        return None


def _alike(found: list[Tensor] | None, expected: list[Tensor]) -> bool:
    if found is None or [x.shape for x in found] != [x.shape for x in expected]:
        return False
    return all(torch.allclose(x.double(), y.double(), 1e-3, 1e-5) for x, y in zip(found, expected, strict=True))


def _has_samples(graph: Graph, i: int, leaf: Any, size: Any, samples: int) -> bool | None:
    """Whether an input has the samples in its first dimension; None if its sizes do not tell."""
    node = graph.inputs[i]
    if node is None or not leaf.ndim:
        return False
    captured = _captured(node)
    inside = [d for d, n in enumerate(captured) if _within(size, n)]
    if inside and (inside != [0] or captured[0] != size):
        raise InputError(
            f"input {graph.input_names[i]!r} of shape {tuple(leaf.shape)} cannot be split for micro_batch=: the "
            f"number of samples is in it otherwise than as the length of its first dimension ({_open(captured)})."
        )
    if inside or leaf.shape[0] != samples:
        return bool(inside)
    if isinstance(size, int) or not node.users:
        return True
    steps = {n for other in graph.inputs if other is not None for n in _captured(other)[1:]}
    return False if isinstance(captured[0], int) or captured[0] in steps else None  # as many as there are tokens


def _check(graph: Graph, leaves: list[Any], part: slice) -> None:
    _, found = _samples(graph, leaves)
    if found != part.stop - part.start:
        raise InputError(
            f"micro_batch= cannot split these inputs: for {part.stop - part.start} samples ({_shapes(graph, leaves)}) "
            f"the output has {found}."
        )


def _samples(graph: Graph, leaves: list[Any]) -> tuple[Any, int]:
    """Length of the output's first dimension: as it was captured, a number or an open size, and for these inputs."""
    values = [o.meta["val"] if isinstance(o, Node) else o for o in graph.outputs]
    try:
        node = graph.outputs[main_output(values, graph.unflatten_output)]
    except TargetError:  # a function may know better
        node = next((o for o in graph.outputs if isinstance(o, Node) and is_float(o)), None)
    shape = _captured(node) if isinstance(node, Node) else ()
    if not shape:
        raise InputError("micro_batch= needs an output with a dimension for the samples.")
    if isinstance(shape[0], int):
        return shape[0], shape[0]
    sizes: dict[Any, int] = {}
    for placeholder, leaf in zip(graph.inputs, leaves, strict=True):
        if placeholder is not None:
            sizes.update(zip(_captured(placeholder), leaf.shape, strict=True))
    return shape[0], int(shape[0].subs({size: n for size, n in sizes.items() if not isinstance(size, int)}))


def _captured(node: Node) -> list[Any]:
    """The shape at capture: numbers, and expressions of open sizes."""
    sizes = [n if isinstance(n, int) else n.node.expr for n in shape_of(node) or ()]
    return [n if isinstance(n, int) or n.free_symbols else int(n) for n in sizes]


def _within(size: Any, n: Any) -> bool:
    """Whether an open size is, or is part of, the length of a dimension."""
    if isinstance(n, int) or isinstance(size, int):
        return False
    return bool(n.free_symbols & size.free_symbols)


def _open(captured: list[Any]) -> str:
    return f"captured as [{', '.join(map(str, captured))}]"


def _shapes(graph: Graph, leaves: list[Any]) -> str:
    named = zip(graph.input_names, leaves, strict=True)
    return ", ".join(f"{name}: {tuple(x.shape)}" for name, x in named if isinstance(x, Tensor))


# ---------------------------------------------------------------------------------------------------------------------
# Targets
# ---------------------------------------------------------------------------------------------------------------------


def part_of_target(target: Any, part: slice, samples: int) -> Any:
    """The target for some of the samples.

    Raises:
        TargetError: if it cannot be split.
    """
    if isinstance(target, tuple):
        return tuple(part_of_target(t, part, samples) for t in target)
    if isinstance(target, (Tensor, np.ndarray)) and target.ndim:
        if target.shape != (samples,):
            raise TargetError(
                f"a target of shape {tuple(target.shape)} cannot be split for micro_batch=: it has one index per "
                f"sample, [{samples}]."
            )
        return target[part]
    return _counted(target, part.stop - part.start) if callable(target) else target


def _counted(function: Callable[[Any], Any], samples: int) -> Callable[[Any], Any]:
    """A target function that must not answer for more samples than it was given."""

    def target(output: Any) -> Any:
        value = function(output)
        if isinstance(value, Tensor) and value.ndim == 1 and len(value) != samples:
            raise TargetError(
                f"the target function {name_of(function)!r} returned {len(value)} values for {samples} samples. With "
                "micro_batch= it is called for each part, and cannot hold something for each sample of the whole. An "
                "index per sample, a LongTensor [B] or a tuple of them, is split."
            )
        return value

    target.__name__ = name_of(function)
    return target
