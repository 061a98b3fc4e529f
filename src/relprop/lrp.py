"""The one door: ``LRP(model).attribute(x, target)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils.rnn import PackedSequence

from .capture import Capturer, batch_size
from .checkpoint import Checkpointed
from .compiled import Compiled
from .composites import of
from .embeddings import token_nodes, tokens
from .errors import InputError, RelevanceWarning, SelectionError, TargetError
from .explanation import Explanation
from .export import format_of, save
from .graph import Graph, is_float, where
from .hidden import channel_mask, module_outputs
from .ledger import Ledger
from .message import Message
from .micro_batch import in_parts
from .modes import own_modes
from .plan import Plan, make_plan, refuse_gaps
from .program import Program, trace
from .progress import bar
from .propagate import GROWTH, Run, diagnose
from .rules.base import STOPPED, table_version
from .targets import Seed, Several, index_for, main_output, seed_at, seed_of

BIAS_POLICIES = ("absorb", "redistribute", "zero")
SEEDS = ("output", "unit")


@dataclass
class Report:
    """Every operation without a rule, from :meth:`LRP.check`. It is true if there is none."""

    plan: Plan

    @property
    def gaps(self) -> list[str]:
        return [where(node) for node in self.plan.gaps]

    def __bool__(self) -> bool:
        return not self.plan.gaps

    def __str__(self) -> str:
        if self:
            return f"every one of the {len(self.plan.steps)} active operations has a rule"
        return f"{len(self.plan.gaps)} operations have no rule:\n" + "\n".join(f"  {gap}" for gap in self.gaps)

    __repr__ = __str__


class LRP:
    """Layer-wise Relevance Propagation for a captured model.

    Args:
        model: an ``nn.Module``, an ``ExportedProgram``, or the path of a ``.pt2`` file.
        composite: which rule for which operation: a name from :mod:`relprop.composites`, a
            :class:`~relprop.composites.Composite`, ``(selector, rule)`` pairs, or one rule for every linear operation.
            "auto" picks one by what the graph contains, and says which in the plan.
        bias: what happens to the share of biases: "absorb" (it is booked as a sink), "redistribute" (the inputs of the
            neuron share it equally) or "zero" (biases are left out of numerators and denominators).

    Raises:
        CaptureError: if ``model`` is none of these, or the file cannot be loaded.
        SelectionError: if there is no composite of that name.
        ValueError: if ``bias`` is no policy.
    """

    def __init__(
        self, model: nn.Module | ExportedProgram | str | Path, composite: Any = "auto", *, bias: str = "absorb"
    ):
        self._configure(composite, bias)
        self._capturer = Capturer(model)

    def _configure(self, composite: Any, bias: str) -> None:
        if bias not in BIAS_POLICIES:
            raise ValueError(f"bias must be one of {', '.join(map(repr, BIAS_POLICIES))}, got {bias!r}")
        self.composite = of(composite)
        self.bias = bias
        self._plans: dict[Any, tuple[Graph, Plan]] = {}

    # -- the public face ----------------------------------------------------------------------------------------------

    def attribute(
        self,
        inputs: Any,
        target: Any = None,
        *,
        wrt: Any = None,
        seed: str = "output",
        create_graph: bool = False,
        checkpoint: bool = False,
        micro_batch: int | None = None,
        progress: bool = True,
    ) -> Any:
        """Relevance of the inputs.

        Args:
            inputs: a tensor, a tuple (positional arguments) or a dict (keyword arguments), samples first.
            target: what to explain: None (the predicted class of an output [B, C], or the output itself if it is [B] or
                [B, 1]), an int, a LongTensor [B], an index tuple, a function from the output to one scalar per sample,
                or :func:`relprop.targets.several` of these.
            wrt: names or positions of the inputs to explain; by default every floating-point input, and every integer
                input that indexes an embedding, which gets one value per token.
            seed: "output" starts with the explained value as relevance, "unit" with one.
            create_graph: keep the graph, so that relevance can be differentiated with respect to inputs and parameters
                (training on explanations, Ross et al. 2017). It costs the memory of a forward and a backward pass.
            checkpoint: run the network once more, part by part on the way back, instead of holding all that this needs:
                memory grows with the square root of the depth. It has no effect together with ``create_graph``.
            micro_batch: explain so many samples at a time, when all at once do not fit into memory. Inputs with the
                samples in their first dimension, and indices per sample, are split; the other inputs are shared by all
                parts, and their relevance is summed. A function is called for each part.
            progress: show which part it is at, on a terminal and where tqdm is installed.

        Returns:
            Relevance in the structure and shape of the inputs; None for an input that is not explained.

        Raises:
            InputError, TargetError, CaptureError, UnsupportedOperation: with what came, and what was expected.
            ValueError: if there is no such seed, or ``micro_batch`` is no number of samples.
        """
        explain = partial(
            self._explain, wrt=wrt, seed=seed, accounting=False, differentiable=create_graph, checkpoint=checkpoint
        )
        if micro_batch is None:
            return explain(inputs, target)[0]
        leaves, spec = pytree.tree_flatten(_call_of(inputs))

        def call(part: list[Any]) -> Any:
            args, kwargs = pytree.tree_unflatten(part, spec)
            return kwargs or args

        found = in_parts(
            lambda part: self._graph_of(call(part))[0],
            leaves,
            target,
            micro_batch,
            lambda part, one: pytree.tree_leaves(explain(call(part), one)[0]),
            bar("attribute") if progress else iter,
        )
        return _like_inputs(inputs, *pytree.tree_unflatten(found, spec))

    def explain(
        self,
        inputs: Any,
        target: Any = None,
        *,
        wrt: Any = None,
        seed: str = "output",
        record: str | Iterable[str] = (),
        mask: Mapping[str, Any] | None = None,
        at: tuple[str, Any] | str | None = None,
        checkpoint: bool = False,
    ) -> Explanation:
        """Relevance of the inputs, with the ledger and the relevance of hidden tensors.

        Args:
            inputs: as in :meth:`attribute`, but always all at once: hidden tensors need not have samples to split.
            target: as in :meth:`attribute`.
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.
            record: patterns of module paths, such as ``["layer3.*"]``, whose outputs' relevance is kept.
            mask: module path -> channels that relevance may pass through (conditional relevance, Achtibat et al. 2023):
                an int, a list of ints, a tensor that multiplies the relevance, or a function from activation to tensor.
            at: start at a hidden module instead of the output: its path, or ``(path, channels)``. Relevance starts as
                the activation of these channels.
            checkpoint: as in :meth:`attribute`.

        Raises:
            SelectionError: if a pattern or path matches no module.
            InputError, TargetError, CaptureError, UnsupportedOperation: with what came, and what was expected.
        """
        record = [record] if isinstance(record, str) else list(record or ())
        if mask is not None and not isinstance(mask, Mapping):
            raise SelectionError(f"mask must be a dict, module path -> channels, got {mask!r}.")
        relevance, results, plan, values, output = self._explain(
            inputs, target, wrt=wrt, seed=seed, accounting=True, record=record, mask=mask, at=at, checkpoint=checkpoint
        )
        stacked = isinstance(target, (Several, list))
        ledgers = [ledger for _, ledger, _ in results]
        first = results[0][0]
        hidden = {
            name: torch.stack([r[2][name] for r in results]) if stacked else results[0][2][name]
            for name in results[0][2]
        }
        return Explanation(
            relevance=relevance,
            output=output,
            target=[r[0].target for r in results] if stacked else first.target,
            value=torch.stack([r[0].value for r in results]) if stacked else first.value,
            ledger=ledgers if stacked else ledgers[0],  # type: ignore[arg-type]
            plan=plan,
            inputs=values,
            relevances=hidden,
        )

    def using(self, composite: Any = "auto", *, bias: str | None = None) -> LRP:
        """The same model under another composite or bias policy; what was captured is shared, not captured again."""
        other = LRP.__new__(LRP)
        LRP._configure(other, composite, self.bias if bias is None else bias)
        other._capturer = self._capturer
        return other

    def plan(self, inputs: Any, *, wrt: Any = None) -> Plan:
        """The rule of every operation, node by node, before anything runs. ``print`` it."""
        args, kwargs = _call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        return self._plan(graph, leaves, wrt, None)

    def check(self, inputs: Any, *, wrt: Any = None) -> Report:
        """All operations without a rule at once, without running the model."""
        args, kwargs = _call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        return Report(self._plan(graph, leaves, wrt, None, strict=False))

    def compile(
        self, inputs: Any, target: Any = None, *, wrt: Any = None, seed: str = "output", dynamic: bool = False
    ) -> Compiled:
        """The propagation as one compiled program, for inputs of these shapes, with the same numbers.

        Recurrent layers are unrolled, step by step. Long sequences are run as they are written down, without Inductor,
        which would take very long for them. On a GPU the launches of a program of fixed shapes are captured as a CUDA
        graph, and repeated.

        Args:
            inputs: examples, as in :meth:`attribute`.
            target: a function is part of the program; an index is only an example.
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.
            dynamic: leave the number of samples open.

        Raises:
            CaptureError: if what is done depends on the values of the inputs.
            InputError, TargetError, UnsupportedOperation: with what came, and what was expected.
        """
        program = self._program(inputs, target, wrt, seed, dynamic, compiled=True)
        names = list(inputs) if isinstance(inputs, Mapping) else []
        return Compiled(program, partial(self.attribute, wrt=wrt, seed=seed), self._graph_of, _like_inputs, names)

    def export(
        self,
        path: str | Path,
        inputs: Any,
        target: Any = None,
        *,
        wrt: Any = None,
        seed: str = "output",
        format: str | None = None,
        dynamic: bool = True,
    ) -> Path:
        """Save the explanation as a program of its own: inputs and target to output and relevance.

        It runs without relprop and without the model's code. Parameters are saved as they are now.

        Args:
            path: of the file.
            inputs: examples, as in :meth:`attribute`.
            target: a function is part of the program. An index is only an example: the program takes one of its own,
                a LongTensor [B] for an output [B, C] (negative: the predicted class), else [B, dimensions].
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.
            format: "pt2" (``torch.export.load``), "aoti" (``torch._inductor.aoti_load_package``) or "onnx"; by default
                what the path ends with.
            dynamic: leave the number of samples open.

        Raises:
            ValueError: if there is no such format.
            ImportError: if a format needs packages that are missing.
            CaptureError: if what is done depends on the values of the inputs.
            InputError, TargetError, UnsupportedOperation: with what came, and what was expected.
        """
        kind = format_of(path, format)
        return save(self._program(inputs, target, wrt, seed, dynamic, portable=kind == "onnx"), Path(path), kind)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the model, composite and policy. It is captured anew when it is used."""
        return {**self.__dict__, "_plans": {}}

    # -- inside -------------------------------------------------------------------------------------------------------

    @own_modes()
    def _program(self, inputs: Any, target: Any, wrt: Any, seed: str, dynamic: bool, **kind: bool) -> Program:
        if isinstance(target, (list, Several)):
            raise TargetError("a program explains one target at a time: call it once for each.")
        self._explain(inputs, target, wrt=wrt, seed=seed, accounting=False)  # errors come before the long work
        if dynamic and batch_size(pytree.tree_leaves(inputs)) == 1:
            # torch takes a dimension of one for a constant: two samples stand for any number
            inputs, target = (pytree.tree_map_only(Tensor, _twice, x) for x in (inputs, target))
            self._explain(inputs, target, wrt=wrt, seed=seed, accounting=False)
        args, kwargs = _call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        roots = _roots(graph, target)
        plan = self._plan(graph, leaves, wrt, roots, strict=len(roots) < 2, keep=roots)

        def propagate(run: Run, index: Tensor | None) -> tuple[list[Any], list[Tensor | None]]:
            outputs = run.outputs
            if index is None:
                found = seed_of(target, outputs, graph.unflatten_output, seed)
            else:
                found = seed_at(index, outputs, graph.unflatten_output, seed)
            return outputs, _relevances(plan, run, run.sweep(_seeds(graph, plan, found)))

        index = index_for(target, Run(plan, leaves).outputs, graph.unflatten_output)
        return trace(plan, leaves, index, propagate, dynamic=dynamic, **kind)

    def _graph_of(self, inputs: Any) -> tuple[Graph, list[Any], Any]:
        args, kwargs = _call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        return graph, leaves, pytree.tree_structure((args, kwargs))

    def _graph(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Graph, list[Any]]:
        leaves = pytree.tree_leaves((args, kwargs))
        _check_inputs(leaves, self._capturer)
        with own_modes():
            graph = self._capturer(args, kwargs)
        return graph, leaves

    def _plan(
        self,
        graph: Graph,
        leaves: list[Any],
        wrt: Any,
        roots: tuple[Node, ...] | None,
        *,
        accounting: bool = False,
        strict: bool = True,
        keep: tuple[Node, ...] = (),
    ) -> Plan:
        chosen = _chosen_inputs(graph, leaves, wrt)
        key = (id(graph), chosen, roots, accounting, strict, keep, table_version())
        if key not in self._plans:
            if len(self._plans) > 64:
                self._plans.clear()
            sources: list[Node] = []
            for i in chosen:
                node = graph.inputs[i]
                assert node is not None
                sources += [node] if is_float(node) else list(token_nodes(graph, node))
            if not sources:
                raise InputError(
                    "nothing to explain: no input is a floating-point tensor or indexes an embedding (inputs: "
                    f"{', '.join(graph.input_names) or 'none'}{', wrt: ' + repr(wrt) if wrt is not None else ''})."
                )
            starts = [o for o in graph.outputs if isinstance(o, Node) and is_float(o)] if roots is None else list(roots)
            plan = make_plan(
                graph,
                self.composite,
                self.bias,
                sources,
                starts,
                accounting=accounting,
                strict=strict,
                keep=[*sources, *keep],
            )
            self._plans[key] = (graph, plan)  # the graph is kept alive, so that its id stays its own
        return self._plans[key][1]

    @own_modes()
    def _explain(
        self,
        inputs: Any,
        target: Any,
        *,
        wrt: Any,
        seed: str,
        accounting: bool,
        differentiable: bool = False,
        checkpoint: bool = False,
        record: Sequence[str] = (),
        mask: Mapping[str, Any] | None = None,
        at: Any = None,
        progress: Callable[[list[Any]], Iterable[Any]] = iter,
    ) -> Any:
        if seed not in SEEDS:
            raise ValueError(f"seed must be one of {', '.join(map(repr, SEEDS))}, got {seed!r}")
        args, kwargs = _call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        recorded = module_outputs(graph, record)
        masks = {n: channel_mask(n, m) for n, m in _by_node(graph, mask or {})}
        start, channels = _start(graph, at)
        roots = _roots(graph, target) if start is None else (start,)
        keep = (*recorded.values(), *masks, *roots)
        # which of several outputs a function uses is known when it has been called
        plan = self._plan(graph, leaves, wrt, roots, accounting=accounting, strict=len(roots) < 2, keep=keep)
        targets = _targets(target)
        run_as = Checkpointed if checkpoint and not differentiable else Run
        run = run_as(plan, leaves, retain=len(targets) > 1, differentiable=differentiable, batch=batch_size(leaves))
        output_leaves = run.outputs
        results, relevances = [], []
        for one in progress(targets):
            if start is not None:
                found = _seed_at(run.values[start], channel_mask(start, channels), seed)
                seeds = {start: Message(found.coefficients[0])}
            else:
                found = seed_of(one, output_leaves, graph.unflatten_output, seed)
                seeds = _seeds(graph, plan, found)
            refuse_gaps(plan, seeds)
            ledger = _open_ledger(run, found, seeds, graph, output_leaves) if accounting else None
            hidden: dict[Node, Tensor | None] = dict.fromkeys(recorded.values())
            messages = run.sweep(seeds, masks, hidden)
            relevance = _relevances(plan, run, messages, ledger)
            _watch(run, seeds, relevance)
            relevances.append(relevance)
            kept = {}
            for name, node in recorded.items():
                if node in plan.sources and node in messages:
                    hidden[node] = messages[node].relevance(run.values[node])
                kept[name] = _or_zeros(hidden[node], run.values[node]).contiguous()
            results.append((found, ledger, kept))
        stacked = isinstance(target, (Several, list))
        joined = [
            None if r[0] is None else (torch.stack(r) if stacked else r[0]) for r in zip(*relevances, strict=True)
        ]
        _, spec = pytree.tree_flatten((args, kwargs))
        result_args, result_kwargs = pytree.tree_unflatten(joined, spec)
        shaped = _like_inputs(inputs, result_args, result_kwargs)
        if not accounting:
            return shaped, None
        return shaped, results, plan, inputs, graph.unflatten_output(output_leaves)


# ---------------------------------------------------------------------------------------------------------------------
# Inputs
# ---------------------------------------------------------------------------------------------------------------------


def _call_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How the model is called with these inputs."""
    if any(map(_is_packed, pytree.tree_leaves(inputs, is_leaf=_is_packed))):
        raise InputError(
            "a PackedSequence is no input: it does not hold samples side by side. Explain a model that takes the "
            "padded batch and the lengths and packs them in its forward."
        )
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise InputError(
        f"inputs must be a tensor, a tuple (positional) or a dict (keywords), got {type(inputs).__name__}."
    )


def _is_packed(x: Any) -> bool:
    return isinstance(x, PackedSequence)


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x]) if x.ndim and x.shape[0] == 1 else x


def _like_inputs(inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(inputs, Tensor):
        return args[0]
    return kwargs if isinstance(inputs, Mapping) else tuple(args)


def _check_inputs(leaves: list[Any], capturer: Capturer) -> None:
    tensors = [(i, x) for i, x in enumerate(leaves) if isinstance(x, Tensor)]
    if not tensors:
        raise InputError("the inputs hold no tensor.")
    for i, x in tensors:
        if x.ndim and x.shape[0] == 0:
            raise InputError(f"input {i} is an empty batch: shape {tuple(x.shape)}.")
        if x.dtype.is_complex:
            raise InputError(f"input {i} is complex ({x.dtype}); give real and imaginary parts as real tensors.")
        if x.ndim and not capturer.lives_on(x.device):
            own = ", ".join(map(str, capturer.devices()))
            raise InputError(f"input {i} is on {x.device}, the model on {own}: move one of them with .to(device).")
        if x.dtype.is_floating_point and not _is_mask(x) and not bool(torch.isfinite(x).all()):
            _refuse_infinite(i, x)


def _refuse_infinite(i: int, x: Tensor) -> None:
    bad = ~torch.isfinite(x)
    raise InputError(
        f"input {i} holds {int(bad.sum())} values that are NaN or infinite, the first at index "
        f"{bad.nonzero()[0].tolist()}."
    )


def _is_mask(x: Any) -> bool:
    """An additive attention mask: its only infinite values are -inf."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point or x.ndim < 2:
        return False
    lowest, highest = torch.aminmax(x)
    return bool(lowest == -torch.inf) and bool(highest < torch.inf)  # NaN is neither


def _chosen_inputs(graph: Graph, leaves: list[Any], wrt: Any) -> tuple[int, ...]:
    """Positions of the inputs to explain; a mask that holds -inf is none unless nothing else is left."""
    tensors = [i for i, n in enumerate(graph.inputs) if n is not None]
    if wrt is None:
        explained = [i for i in tensors if is_float(graph.inputs[i]) or token_nodes(graph, graph.inputs[i])]  # type: ignore[arg-type]
        chosen = [i for i in explained if not _is_mask(leaves[i])] or explained
        for i in chosen:
            if _is_mask(leaves[i]):
                _refuse_infinite(i, leaves[i])
        return tuple(chosen)
    chosen = []
    for name in [wrt] if isinstance(wrt, (str, int)) else list(wrt):
        found = [i for i in tensors if name in (i, str(i), graph.input_names[i])]
        if not found:
            known = ", ".join(repr(graph.input_names[i]) for i in tensors)
            raise InputError(f"wrt={name!r} names no tensor input; there are {known}.")
        if _is_mask(leaves[found[0]]):
            _refuse_infinite(found[0], leaves[found[0]])
        chosen += found
    return tuple(chosen)


# ---------------------------------------------------------------------------------------------------------------------
# Targets and seeds
# ---------------------------------------------------------------------------------------------------------------------


def _targets(target: Any) -> list[Any]:
    if isinstance(target, list):
        target = Several(tuple(target))
    if isinstance(target, Several):
        if not target.targets:
            raise TargetError("an empty list of targets")
        return list(target.targets)
    return [target]


def _roots(graph: Graph, target: Any) -> tuple[Node, ...]:
    """The outputs where relevance may start: all for a function, the one with the scores for an index."""
    floats = [o for o in graph.outputs if isinstance(o, Node) and is_float(o)]
    if any(callable(t) for t in _targets(target)) or len(floats) <= 1:
        return tuple(dict.fromkeys(floats))
    values = [o.meta["val"] if isinstance(o, Node) else o for o in graph.outputs]
    return (graph.outputs[main_output(values, graph.unflatten_output)],)


def _seeds(graph: Graph, plan: Plan, found: Seed) -> dict[Node, Message]:
    seeds: dict[Node, Message] = {}
    for i, c in found.coefficients.items():
        node = graph.outputs[i]
        if isinstance(node, Node) and (node in plan.steps or node in plan.sources or _is_pick(node, plan)):
            seeds[node] = seeds[node].plus(Message(c)) if node in seeds else Message(c)
    if not seeds:
        raise TargetError(f"the target does not depend on any input that is explained{_but_for(graph, plan, found)}.")
    return seeds


def _but_for(graph: Graph, plan: Plan, found: Seed) -> str:
    """The operation that stands between target and inputs, if one does."""
    held = next((n for n in graph.nodes if n in plan.tainted and n.target in STOPPED), None)
    if held is None or not any(graph.outputs[i] in plan.tainted for i in found.coefficients):
        return ""
    return f", but by way of {where(held)}: norms, other statistics, signs and rounded numbers are held constant"


def _is_pick(node: Node, plan: Plan) -> bool:
    return (
        bool(node.args)
        and isinstance(node.args[0], Node)
        and node.args[0] in plan.steps
        and "getitem" in str(node.target)
    )


def _start(graph: Graph, at: Any) -> tuple[Node | None, Any]:
    if at is None:
        return None, None
    if not isinstance(at, str) and not (isinstance(at, tuple) and len(at) == 2 and isinstance(at[0], str)):
        raise SelectionError(f"at must be a module path or (path, channels), got {at!r}.")
    path, channels = (at, None) if isinstance(at, str) else at
    found = module_outputs(graph, [path])
    if len(found) > 1:
        raise SelectionError(f"at={path!r} matches several modules: {', '.join(found)}; name one.")
    return next(iter(found.values())), channels


def _seed_at(activation: Tensor, mask: Callable[[Tensor], Tensor], kind: str) -> Seed:
    kept = mask(activation) * torch.ones_like(activation)
    value = (activation * kept).flatten(1).sum(1) if activation.ndim > 1 else activation * kept
    if kind == "unit":
        kept = kept / value.reshape(-1, *[1] * (kept.ndim - 1))
        value = torch.ones_like(value)
    return Seed({0: kept}, value, "hidden")


def _by_node(graph: Graph, mask: Mapping[str, Any]) -> list[tuple[Node, Any]]:
    return [(node, m) for path, m in mask.items() for node in module_outputs(graph, [path]).values()]


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


def _open_ledger(run: Run, found: Seed, seeds: dict[Node, Message], graph: Graph, leaves: list[Any]) -> Ledger:
    run.batch = len(found.value)
    run.ledger = Ledger(found.value.detach().double() if found.value.device.type != "mps" else found.value.detach())
    started = torch.zeros_like(run.ledger.seed)
    for node, message in seeds.items():
        started = started + run.per_sample(message.relevance(run.values[node]), node)
    missing = run.ledger.seed - started
    if float(missing.abs().max()) > 1e-12 * float(run.ledger.seed.abs().max() + 1):
        run.ledger.book("target", next(iter(seeds)), missing)
    return run.ledger


def _relevances(
    plan: Plan, run: Run, messages: dict[Node, Message], ledger: Ledger | None = None
) -> list[Tensor | None]:
    """Relevance of every leaf of the inputs."""
    graph, leaves = plan.graph, run.leaves
    results: list[Tensor | None] = [None] * len(leaves)
    for i, node in enumerate(graph.inputs):
        if node is None:
            continue
        explained = [node] if node in plan.sources else [n for n in token_nodes(graph, node) if n in plan.sources]
        if not explained:
            continue
        total = torch.zeros_like(leaves[i], dtype=_relevance_dtype(leaves[i]))
        for source in explained:
            message = messages.get(source)
            if message is None:
                continue
            relevance = message.relevance(run.accumulate(run.values[source]))
            if ledger is not None:
                name = graph.input_names[i] if len(explained) == 1 else f"{graph.input_names[i]} via {where(source)}"
                amount = run.per_sample(relevance, source)
                if run.is_shared(source):
                    ledger.shared.add(name)
                ledger.inputs[name] = ledger.inputs.get(name, torch.zeros_like(amount)) + amount
            total = total + (relevance if source is node else tokens(graph, node, source, leaves[i], relevance))
        if ledger is not None and not any(s in messages for s in explained):
            ledger.inputs[graph.input_names[i]] = torch.zeros_like(ledger.seed)
        results[i] = total
    return results


def _or_zeros(relevance: Tensor | None, value: Tensor) -> Tensor:
    return torch.zeros_like(value) if relevance is None else relevance


def _relevance_dtype(leaf: Tensor) -> torch.dtype:
    return leaf.dtype if leaf.dtype == torch.float64 else torch.float32


def _watch(run: Run, seeds: dict[Node, Message], sent: list[Tensor | None]) -> None:
    """Warn if relevance is not finite or has grown out of proportion, and say where it began.

    What the reverse sweep freed is needed to tell, so it costs another run: paid only if all is not well, and once.
    """
    size = sum(float(r.detach().abs().sum()) for r in sent if r is not None)
    # not the explained value: of two outputs that are compared it may be next to nothing
    start = sum(float(m.relevance(run.values[node]).detach().abs().sum()) for node, m in seeds.items())
    if size <= GROWTH * start or (size == 0 and start == 0):
        return
    reason: str | None = "relevance is not finite, or has grown out of proportion: see the first such warning."
    if not run.plan.diagnosed:
        run.plan.diagnosed = True
        reason = diagnose(Run(run.plan, run.leaves, retain=True, hold=True, batch=run.batch), seeds, max(start, 1e-30))
    if reason:
        warnings.warn(reason, RelevanceWarning, stacklevel=4)


__all__ = ["LRP", "Report", "fnmatchcase"]
