"""Where relevance starts: from a target to a coefficient for each output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.fx import Node

from ..errors import RelpropError, SelectionError, TargetError, reason_of
from ..graph.facts import facts
from ..graph.graph import Graph, is_float, made_by, picks, place
from ..rules.base import Lost
from ..rules.message import Message, divide
from ..targets import PREDICTED, Target, is_float_tensor, main_output, name_of, shown
from .hidden import channel_mask, module_outputs
from .picking import index_of, pick
from .plan import Plan
from .run import Run
from .scores import Score, score_behind

# ---------------------------------------------------------------------------------------------------------------------
# Targets and seeds
# ---------------------------------------------------------------------------------------------------------------------


def refuse_list(targets: Sequence[Target], samples: int) -> None:
    """Raise if a plain list of targets could as well be a class for each sample.

    Raises:
        TargetError: with both ways to say it.
    """
    numbers = all(isinstance(t, (int, np.integer)) and not isinstance(t, bool) for t in targets)
    if numbers and len(targets) == samples > 1:
        shown = f"[{', '.join(map(str, targets[:4]))}{', ...' if len(targets) > 4 else ''}]"
        raise TargetError(
            f"target={shown} holds as many numbers as there are samples, {samples}. For one class of each sample "
            f"give torch.tensor({shown}); for all of these classes of every sample, relprop.targets.several({shown})."
        )


def roots_for(graph: Graph, targets: Sequence[Target]) -> tuple[tuple[Node, ...], Score | None]:
    """Where relevance may start: at all outputs for a function; for an index at the one with the scores.

    Where these are made probabilities of in the end, it starts in front of that, which is told as well.
    """
    floats = [o for o in graph.outputs if isinstance(o, Node) and is_float(o)]
    by_function = [callable(t) for t in targets]
    if all(by_function) or not floats:
        return tuple(dict.fromkeys(floats)), None
    values = [o.meta["val"] if isinstance(o, Node) else o for o in graph.outputs]
    if len(floats) > 1 and any(by_function):
        position = _main_output_or_none(values, graph)
    else:
        position = main_output(values, graph.unflatten_output)
    score = None if position is None else score_behind(graph, position)
    start = score.node if score is not None else None if position is None else graph.outputs[position]
    starts = [*(floats if any(by_function) else []), *([] if start is None else [start])]
    return tuple(dict.fromkeys(starts)), score


def starts_of(graph: Graph) -> tuple[Node, ...]:
    """Where relevance may start as long as no target is given: at the only output's score, or at all outputs."""
    floats = [o for o in graph.outputs if isinstance(o, Node) and is_float(o)]
    return roots_for(graph, [None])[0] if len(floats) == 1 else tuple(dict.fromkeys(floats))


def _main_output_or_none(values: list[Any], graph: Graph) -> int | None:
    """An index target that does not say which of several outputs it means is told so when it is looked at."""
    try:
        return main_output(values, graph.unflatten_output)
    except TargetError:
        return None


def seeds_for(
    run: Run, outputs: list[Any], score: Score | None, find: Callable[[list[Any]], Seed]
) -> tuple[Seed, dict[Node, Message]]:
    """The seed that is found in the outputs, and its messages.

    Args:
        run: the forward run.
        outputs: leaves of the model's output.
        score: what takes the place of a probability among them, if something does.
        find: from the leaves to a seed.
    """
    graph, plan = run.plan.graph, run.plan
    if score is None:
        found = find(outputs)
        return found, seed_messages(graph, plan, found)
    shown_as = list(outputs)
    shown_as[score.position] = score.shown(run.values)
    found = find(shown_as)
    if score.node not in plan.steps and score.node not in plan.sources and not _is_pick(score.node, plan):
        raise TargetError(f"the target does not depend on any input that is explained{_but_for(graph, plan, found)}.")
    _refuse_lost(plan, [score.node])
    return found, {score.node: Message(score.pulled_back(found.coefficients[score.position], run.values))}


def seed_messages(graph: Graph, plan: Plan, found: Seed) -> dict[Node, Message]:
    seeds: dict[Node, Message] = {}
    for i, c in found.coefficients.items():
        node = graph.outputs[i]
        if isinstance(node, Node) and (node in plan.steps or node in plan.sources or _is_pick(node, plan)):
            seeds[node] = seeds[node].plus(Message(c)) if node in seeds else Message(c)
    if not seeds:
        raise TargetError(f"the target does not depend on any input that is explained{_but_for(graph, plan, found)}.")
    _refuse_lost(plan, seeds)
    return seeds


def _refuse_lost(plan: Plan, seeded: Iterable[Node]) -> None:
    """Raise if all relevance ends where no rule hands it on."""
    if not plan.loses:
        return
    reached = {m for n in seeded for m in (n, made_by(n))}
    lost = None
    for node in reversed([*plan.steps]):
        if node in reached:
            step = plan.steps[node]
            reached.update(m for n in step.active for m in (n, made_by(n)))
            lost = node if isinstance(step.rule, Lost) else lost
    if lost is not None and reached.isdisjoint(plan.sources):
        raise TargetError(
            f"the target depends on what is explained only by way of {place(lost)}, where it says which values are "
            "taken or how much of them. The values are constants, and all relevance would be theirs."
        )


def _but_for(graph: Graph, plan: Plan, found: Seed) -> str:
    """The operation that stands between target and inputs, if one does."""
    held = next((n for n in graph.nodes if n in plan.dependent and facts(n).stopped), None)
    if held is None or not any(graph.outputs[i] in plan.dependent for i in found.coefficients):
        return ""
    return f", but by way of {place(held)}: norms, other statistics, signs and rounded numbers are held constant"


def _is_pick(node: Node, plan: Plan) -> bool:
    return picks(node) and made_by(node) in plan.steps


def start_of(
    graph: Graph, at: str | tuple[str, Any] | None
) -> tuple[Node, Callable[[Tensor], Tensor]] | tuple[None, None]:
    """The hidden tensor where relevance starts, and what of it.

    Raises:
        SelectionError: if the path matches no module, or several.
    """
    if at is None:
        return None, None
    path, channels = (at, None) if isinstance(at, str) else at
    found = module_outputs(graph, [path])
    if len(found) > 1:
        raise SelectionError(f"at={path!r} matches several modules: {', '.join(found)}; name one.")
    node = next(iter(found.values()))
    return node, channel_mask(node, channels)


def seed_inside(activation: Tensor, mask: Callable[[Tensor], Tensor], kind: str) -> Seed:
    kept = mask(activation) * torch.ones_like(activation)
    value = (activation * kept).flatten(1).sum(1) if activation.ndim > 1 else activation * kept
    if kind == "unit":
        kept = kept / value.reshape(-1, *[1] * (kept.ndim - 1))
        value = torch.ones_like(value)
    return Seed({0: kept}, value, "hidden")


@dataclass
class Seed:
    """Where relevance starts: a coefficient for each output tensor, and the value explained for each sample."""

    coefficients: dict[int, Tensor]
    """Position among the leaves of the output -> coefficient in the shape of that leaf."""
    value: Tensor
    """The explained value, [B]."""
    target: Any
    """The class that was explained, [B], or the target as it was given."""


def seed_of(
    target: Target,
    leaves: list[Any],
    unflatten: Callable[[list[Any]], Any],
    kind: str = "output",
    samples: int | None = None,
) -> Seed:
    """The seed of a target.

    Args:
        target: anything a user may give, but :class:`Several`.
        leaves: leaves of the model's output.
        unflatten: makes the output of its leaves.
        kind: "output" starts with the explained value as relevance, "unit" with one.
        samples: how many there are. The output of a single one may be a number without a dimension: ``squeeze()``.

    Raises:
        TargetError: if the target does not fit the output.
    """
    if callable(target):
        return _of_kind(_from_function(target, leaves, unflatten), kind)
    return _of_kind(_from_index(target, leaves, unflatten, samples), kind)


def _of_kind(seed: Seed, kind: str) -> Seed:
    if kind == "unit":
        scale = divide(torch.ones_like(seed.value), seed.value)
        seed.coefficients = {i: c * _along_batch(scale, c) for i, c in seed.coefficients.items()}
        seed.value = torch.ones_like(seed.value)
    return seed


# ---------------------------------------------------------------------------------------------------------------------
# Index targets
# ---------------------------------------------------------------------------------------------------------------------


def _from_index(target: Target, leaves: list[Any], unflatten: Callable[[list[Any]], Any], samples: int | None) -> Seed:
    position = main_output(leaves, unflatten)
    output: Tensor = leaves[position]
    if output.ndim == 0 and samples == 1:
        index_of(target, output.reshape(1))
        return Seed({position: torch.ones_like(_accumulate(output))}, _accumulate(output).reshape(1), target or 0)
    if output.ndim == 0:
        raise TargetError("the output is a single number, with no dimension for samples; expected [B, ...].")
    index = index_of(target, output)
    value, coefficient = pick(_accumulate(output), index)
    explained = index[0] if len(index) == 1 else (target if target is not None else torch.zeros(len(value)).long())
    return Seed({position: coefficient}, value, explained)


def seed_at(index: Tensor, leaves: list[Any], unflatten: Callable[[list[Any]], Any], kind: str = "output") -> Seed:
    """The seed of an index that is known when a program runs, [B] for an output [B, C], else [B, dimensions].

    A negative number counts from the end, but ``targets.PREDICTED`` is the predicted class of an output [B, C].
    Nothing is checked: a program cannot look at values.
    """
    position = main_output(leaves, unflatten)
    output = _accumulate(leaves[position])
    if index.ndim == 1:
        index = torch.where(index == PREDICTED, output.argmax(1), index)[:, None]
    parts = [i % size for i, size in zip(index.unbind(1), output.shape[1:], strict=True)]
    value, coefficient = pick(output, parts)
    return _of_kind(Seed({position: coefficient}, value, index), kind)


def index_for(target: Target, leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> Tensor | None:
    """A target as the index that :func:`seed_at` takes; None if it is a function, or there is nothing to choose.

    Raises:
        TargetError: if the target does not fit the output, or there are several.
    """
    if callable(target):
        return None
    output = leaves[main_output(leaves, unflatten)]
    parts = index_of(target, output)
    if not parts:
        return None
    return parts[0] if output.ndim == 2 else torch.stack(parts, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Functions of the output
# ---------------------------------------------------------------------------------------------------------------------


def _from_function(target: Callable[[Any], Any], leaves: list[Any], unflatten: Callable[[list[Any]], Any]) -> Seed:
    floats = [i for i, x in enumerate(leaves) if is_float_tensor(x)]
    if not floats:
        raise TargetError("the model's output holds no floating-point tensor, so that nothing of it can be explained.")
    with torch.enable_grad():
        # an output with a graph stays in it, so that relevance can be differentiated
        connected = any(leaves[i].requires_grad for i in floats)
        variables = {i: _variable(_accumulate(leaves[i])) for i in floats}
        value = _called(target, unflatten([variables.get(i, x) for i, x in enumerate(leaves)]))
        if not isinstance(value, Tensor):
            raise TargetError(
                f"a target function must return a tensor [B], one scalar per sample; got {type(value).__name__}."
            )
        samples = next((x.shape[0] for x in leaves if isinstance(x, Tensor) and x.ndim), 1)
        if value.ndim == 0 and samples == 1:
            value = value.reshape(1)
        if value.ndim != 1:
            raise TargetError(
                f"a target function must return one scalar per sample, a tensor [B]; got shape {tuple(value.shape)}. "
                "Sum or index the other dimensions, but not the samples."
            )
        if not value.requires_grad:
            raise TargetError("the target function does not depend on the output through a differentiable function.")
        gradients = torch.autograd.grad(
            value.sum(), list(variables.values()), create_graph=connected, allow_unused=True
        )
    coefficients = {i: g for i, g in zip(floats, gradients, strict=True) if g is not None}
    return Seed(coefficients, value if connected else value.detach(), target)


def _called(target: Callable[[Any], Any], output: Any) -> Any:
    """What a target function makes of the output."""
    try:
        return target(output)
    except RelpropError:
        raise  # one of the helpers here says what is wrong
    except Exception as error:
        parts = [
            f"output{pytree.keystr(path)}: {f'{shown(x.shape)} {x.dtype}' if isinstance(x, Tensor) else repr(x)}"
            for path, x in pytree.tree_flatten_with_path(output)[0]
        ]
        name, kind = name_of(target), type(output).__name__
        raise TargetError(
            f"the target function {name!r} raised {reason_of(error)}. It was given the model's output, a {kind} "
            f"({'; '.join(parts)})."
        ) from error


def _variable(x: Tensor) -> Tensor:
    return x.clone() if x.requires_grad else x.detach().clone().requires_grad_()


def _accumulate(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _along_batch(v: Tensor, like: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (like.ndim - 1)) if like.shape[:1] == v.shape else v.mean()
