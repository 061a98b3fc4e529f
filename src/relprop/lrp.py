"""The one door: ``LRP(model).attribute(x, target)``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from .capture.capturer import Capturer
from .capture.export import batch_size
from .composites import of
from .engine.checkpoint import Checkpointed
from .engine.diagnose import warn_of_growth
from .engine.hidden import channel_mask, module_outputs
from .engine.inputs import call_of, check_inputs, chosen_inputs, like_inputs, twice
from .engine.micro_batch import in_parts
from .engine.plan import Plan
from .engine.planning import Report, make_plan, refuse_gaps
from .engine.run import Run
from .engine.seeds import index_for, roots_for, seed_at, seed_inside, seed_messages, seed_of, start_of, targets_in
from .engine.session import SEEDS, nodes_of_mask, open_ledger, or_zeros
from .engine.sources import relevances_of, sources_of
from .errors import SelectionError, TargetError
from .explanation import Explanation
from .graph.graph import Graph, is_float
from .graph.modes import own_modes
from .programs.compiled import Compiled
from .programs.export import format_of, save
from .programs.program import Program, trace
from .progress import bar
from .rules.message import Message
from .rules.table import table_version
from .targets import Several

BIAS_POLICIES = ("absorb", "redistribute", "zero")


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
        leaves, spec = pytree.tree_flatten(call_of(inputs))

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
        return like_inputs(inputs, *pytree.tree_unflatten(found, spec))

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
        args, kwargs = call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        return self._plan(graph, leaves, wrt, None)

    def check(self, inputs: Any, *, wrt: Any = None) -> Report:
        """All operations without a rule at once, without running the model."""
        args, kwargs = call_of(inputs)
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
        return Compiled(program, partial(self.attribute, wrt=wrt, seed=seed), self._graph_of, like_inputs, names)

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
            inputs, target = (pytree.tree_map_only(Tensor, twice, x) for x in (inputs, target))
            self._explain(inputs, target, wrt=wrt, seed=seed, accounting=False)
        args, kwargs = call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        roots = roots_for(graph, target)
        plan = self._plan(graph, leaves, wrt, roots, strict=len(roots) < 2, keep=roots)

        def propagate(run: Run, index: Tensor | None) -> tuple[list[Any], list[Tensor | None]]:
            outputs = run.outputs
            if index is None:
                found = seed_of(target, outputs, graph.unflatten_output, seed)
            else:
                found = seed_at(index, outputs, graph.unflatten_output, seed)
            return outputs, relevances_of(plan, run, run.sweep(seed_messages(graph, plan, found)))

        index = index_for(target, Run(plan, leaves).outputs, graph.unflatten_output)
        return trace(plan, leaves, index, propagate, dynamic=dynamic, **kind)

    def _graph_of(self, inputs: Any) -> tuple[Graph, list[Any], Any]:
        args, kwargs = call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        return graph, leaves, pytree.tree_structure((args, kwargs))

    def _graph(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Graph, list[Any]]:
        leaves = pytree.tree_leaves((args, kwargs))
        check_inputs(leaves, self._capturer)
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
        chosen = chosen_inputs(graph, leaves, wrt)
        key = (id(graph), chosen, roots, accounting, strict, keep, table_version())
        if key not in self._plans:
            if len(self._plans) > 64:
                self._plans.clear()
            sources = sources_of(graph, chosen, wrt)
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
        args, kwargs = call_of(inputs)
        graph, leaves = self._graph(args, kwargs)
        recorded = module_outputs(graph, record)
        masks = {n: channel_mask(n, m) for n, m in nodes_of_mask(graph, mask or {})}
        start, channels = start_of(graph, at)
        roots = roots_for(graph, target) if start is None else (start,)
        keep = (*recorded.values(), *masks, *roots)
        # which of several outputs a function uses is known when it has been called
        plan = self._plan(graph, leaves, wrt, roots, accounting=accounting, strict=len(roots) < 2, keep=keep)
        targets = targets_in(target)
        run_as = Checkpointed if checkpoint and not differentiable else Run
        run = run_as(plan, leaves, retain=len(targets) > 1, differentiable=differentiable, batch=batch_size(leaves))
        output_leaves = run.outputs
        results, relevances = [], []
        for one in progress(targets):
            if start is not None:
                found = seed_inside(run.values[start], channel_mask(start, channels), seed)
                seeds = {start: Message(found.coefficients[0])}
            else:
                found = seed_of(one, output_leaves, graph.unflatten_output, seed)
                seeds = seed_messages(graph, plan, found)
            refuse_gaps(plan, seeds)
            ledger = open_ledger(run, found, seeds, graph, output_leaves) if accounting else None
            hidden: dict[Node, Tensor | None] = dict.fromkeys(recorded.values())
            messages = run.sweep(seeds, masks, hidden)
            relevance = relevances_of(plan, run, messages, ledger)
            warn_of_growth(run, seeds, relevance)
            relevances.append(relevance)
            kept = {}
            for name, node in recorded.items():
                if node in plan.sources and node in messages:
                    hidden[node] = messages[node].relevance(run.values[node])
                kept[name] = or_zeros(hidden[node], run.values[node]).contiguous()
            results.append((found, ledger, kept))
        stacked = isinstance(target, (Several, list))
        joined = [
            None if r[0] is None else (torch.stack(r) if stacked else r[0]) for r in zip(*relevances, strict=True)
        ]
        _, spec = pytree.tree_flatten((args, kwargs))
        result_args, result_kwargs = pytree.tree_unflatten(joined, spec)
        shaped = like_inputs(inputs, result_args, result_kwargs)
        if not accounting:
            return shaped, None
        return shaped, results, plan, inputs, graph.unflatten_output(output_leaves)
