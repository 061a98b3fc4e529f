"""A captured model under one composite and bias policy: questions in, answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.fx import Node

from ..capture.capturer import Capturer, Outdated
from ..composite import Composite
from ..composites import of
from ..errors import TargetError
from ..graph.graph import Graph
from ..graph.modes import own_modes
from ..rules.message import Message, is_finite
from ..rules.table import table_version
from ..targets import Target
from .balance import warn_of_residual
from .checkpoint import Checkpointed
from .diagnose import warn_of_growth
from .given import Given
from .guarded import Guarded, GuardedParts
from .hidden import channel_mask, module_outputs
from .inputs import check_inputs, chosen_inputs, refuse_infinite_inputs, refuse_missing_batch
from .ledger import Ledger
from .plan import Plan
from .planning import make_plan, refuse_gaps, refuse_random
from .question import PLAIN, Answer, How, Question, Wrt
from .run import Run
from .scores import Score
from .seeds import Seed, refuse_list, roots_for, seed_inside, seed_of, seeds_for, start_of, starts_of
from .sources import relevances_of, sources_of
from .trace import Trace, follow
from .watch import Masks, Record, Watcher

Bias = Literal["absorb", "redistribute", "zero"]
BIAS_POLICIES: tuple[str, ...] = get_args(Bias)


class Session:
    """A captured model under one composite and bias policy.

    Args:
        capturer: makes graphs of the model, and may be shared with other sessions.
        composite: anything that :func:`relprop.composites.of` takes.
        bias: the bias policy.

    Raises:
        SelectionError: if there is no composite of that name.
        ValueError: if ``bias`` is no policy.
    """

    limit = 64
    """So many plans are kept."""

    def __init__(self, capturer: Capturer, composite: Any = "auto", bias: Bias = "absorb"):
        if bias not in BIAS_POLICIES:
            raise ValueError(f"bias must be one of {', '.join(map(repr, BIAS_POLICIES))}, got {bias!r}")
        self.capturer, self.bias = capturer, bias
        self.composite: Composite | None = of(composite)
        self._plans: dict[Any, tuple[Graph, Plan]] = {}
        self._grown: set[Plan] = set()
        """Plans of which a warning has named the operation where relevance gets out of hand."""
        self._unbalanced: set[Plan] = set()
        """Plans of which a warning has named the operation whose books do not balance."""

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: the model, composite and policy. It is captured anew when it is used."""
        return {**self.__dict__, "_plans": {}, "_grown": set(), "_unbalanced": set()}

    def answers(self, given: Given, question: Question, how: How = PLAIN) -> Iterator[Answer]:
        """An answer to every target of a question, from one forward run.

        Raises:
            InputError, TargetError, SelectionError, CaptureError, UnsupportedOperation: with what came, and what was
                expected.
        """
        with own_modes():  # never while somebody else goes on with what was answered
            run, places = self._run(given, question, how)
            if question.listed:
                refuse_list(question.targets, _samples(run))
        for target in question.targets:
            with own_modes():
                answer = self._answer(run, target, question, places, how.accounting)
            yield answer

    def trace(self, given: Given, question: Question) -> Trace:
        """Where relevance of one target goes, operation by operation. It holds all values of the network.

        Raises:
            TargetError: if there are several targets.
            InputError, SelectionError, CaptureError, UnsupportedOperation: as :meth:`answers`.
        """
        if question.several:
            raise TargetError("a trace follows one target at a time: call it once for each.")
        with own_modes():
            (target,), (run, places) = question.targets, self._run(given, question, How(accounting=True), hold=True)
            found, seeds = _start(run, run.outputs, target, question, places)
            refuse_gaps(run.plan.gaps, seeds)
            run.batch = len(found.value)
            return follow(run, seeds, places.watchers)

    def _run(self, given: Given, question: Question, how: How, *, hold: bool = False) -> tuple[Run, Places]:
        """The forward run, whose output is the model's."""
        while True:
            graph = self.graph(given, settled=False)
            places = Places.of(graph, question)
            with suppress(Outdated), self.capturer.running(*given.call()):
                plan = self.plan(graph, given, question.wrt, places, accounting=how.accounting)
                run = _forward(plan, given, how, retain=hold or len(question.targets) > 1, hold=hold)
                self.capturer.confirm(graph, *given.call(), run.outputs)
                if question.at is None and not any(map(callable, question.targets)):
                    refuse_missing_batch(plan.steps.values(), given.leaves, run.outputs)
                return run, places

    def graph(self, given: Given, *, settled: bool = True) -> Graph:
        """The model as it was captured for such inputs.

        Args:
            given: the inputs.
            settled: run the model if that is necessary to know whether a graph that serves others serves these.

        Raises:
            InputError, CaptureError: if they do not fit, or the model cannot be captured.
        """
        check_inputs(list(given.leaves), self.capturer.source)
        with own_modes():
            while True:
                graph = self.capturer(*given.call())
                with suppress(Outdated):
                    if settled:
                        self.capturer.settle(graph, *given.call())
                    return graph

    def plan(
        self,
        graph: Graph,
        given: Given,
        wrt: Wrt,
        places: Places | None = None,
        *,
        accounting: bool = False,
        strict: bool | None = None,
    ) -> Plan:
        """The rule of every operation, made once for each kind of question.

        Args:
            graph: of the model, for these inputs.
            given: the inputs.
            wrt: names or positions of those that are explained.
            places: what the question names in the graph; by default relevance starts at every output.
            accounting: whether a ledger will be kept.
            strict: raise if an operation has no rule. By default only where relevance starts at one place: which of
                several outputs a function uses is known when it has been called.

        Raises:
            InputError, UnsupportedOperation: if there is nothing to explain, or no rule for it.
        """
        roots, keep = (None, ()) if places is None else (places.roots, places.keep)
        strict = strict if strict is not None else roots is None or len(roots) < 2
        chosen = chosen_inputs(graph, list(given.leaves), wrt)
        key = (id(graph), chosen, roots, accounting, strict, keep, table_version())
        if key not in self._plans:
            alive = set(map(id, self.capturer.graphs))
            self._plans = {k: kept for k, kept in self._plans.items() if id(kept[0]) in alive}
            if len(self._plans) > self.limit:
                self._plans.clear()
            plans = {kept for _, kept in self._plans.values()}
            self._grown &= plans
            self._unbalanced &= plans
            sources = sources_of(graph, chosen, wrt)
            starts = list(starts_of(graph) if roots is None else roots)
            made = make_plan(
                graph,
                self.composite,
                self.bias,
                sources,
                starts,
                accounting=accounting,
                strict=strict,
                keep=[*sources, *keep],
            )
            self._plans[key] = (graph, made)  # the graph is kept alive, so that its id stays its own
        return self._plans[key][1]

    def _answer(self, run: Run, target: Target, question: Question, places: Places, accounting: bool) -> Answer:
        plan, outputs = run.plan, run.outputs
        found, seeds = _start(run, outputs, target, question, places)
        refuse_gaps(plan.gaps, seeds)
        refuse_random(plan.graph, seeds)
        ledger = open_ledger(run, found, seeds) if accounting else None
        if ledger is not None and places.score is not None and not callable(target):
            ledger.start = str(places.score)
        record = Record(places.recorded.values())
        messages = run.sweep(seeds, [*places.watchers, *([record] if places.recorded else [])])
        relevances = relevances_of(plan, run, messages, ledger)
        if (guarded := _needs_guard(run, relevances)) is not None:
            return self._answer(guarded, target, question, places, accounting)
        warn_of_growth(run, seeds, relevances, self._grown)
        if ledger is not None:
            warn_of_residual(run, seeds, ledger, places.watchers, self._unbalanced)
        kept = {}
        for name, node in places.recorded.items():
            relevance = record.found[node]
            if node in plan.sources and node in messages:
                relevance = messages[node].relevance(run.values[node])
            kept[name] = or_zeros(relevance, run.values[node]).contiguous()
        return Answer(relevances, found.target, found.value, ledger, kept, outputs, plan)


@dataclass(frozen=True)
class Places:
    """What a question names, as nodes of the graph."""

    recorded: dict[str, Node]
    """Module path -> the output whose relevance is kept."""
    masks: dict[Node, Callable[[Tensor], Tensor]]
    start: Node | None
    """The hidden tensor where relevance starts, if it does not at the output."""
    chosen: Callable[[Tensor], Tensor] | None
    """What of that tensor."""
    roots: tuple[Node, ...]
    """Where relevance may start."""
    score: Score | None
    """What an index target explains in the place of a probability."""

    @classmethod
    def of(cls, graph: Graph, question: Question) -> Places:
        """
        Raises:
            SelectionError: if a path or pattern matches no module.
        """
        start, chosen = start_of(graph, question.at)
        masks = {
            node: channel_mask(node, channels)
            for path, channels in question.mask.items()
            for node in module_outputs(graph, [path]).values()
        }
        roots, score = roots_for(graph, question.targets) if start is None else ((start,), None)
        return cls(module_outputs(graph, question.record), masks, start, chosen, roots, score)

    @property
    def watchers(self) -> list[Watcher]:
        """What changes relevance on its way."""
        return [Masks(self.masks)] if self.masks else []

    @property
    def keep(self) -> tuple[Node, ...]:
        """Nodes whose values outlive the forward run."""
        return (*self.recorded.values(), *self.masks, *self.roots)


# ---------------------------------------------------------------------------------------------------------------------
# From a question to an answer
# ---------------------------------------------------------------------------------------------------------------------


def _samples(run: Run) -> int:
    """Length of the first dimension of the output."""
    return next((len(x) for x in run.outputs if isinstance(x, Tensor) and x.ndim), 0)


def _forward(plan: Plan, given: Given, how: How, retain: bool, hold: bool = False) -> Run:
    kind = Checkpointed if how.checkpoint and not how.differentiable else Run
    leaves = list(given.leaves)
    return kind(plan, leaves, retain=retain, hold=hold, differentiable=how.differentiable, batch=given.samples)


def _start(
    run: Run, outputs: list[Any], target: Target, question: Question, places: Places
) -> tuple[Seed, dict[Node, Message]]:
    """Where relevance starts, and the messages that it starts with."""
    graph, seeds = run.plan.graph, dict[Node, Message]()
    if places.start is not None and places.chosen is not None:
        found = seed_inside(run.values[places.start], places.chosen, question.seed)
        seeds = {places.start: Message(found.coefficients[0])}
    else:
        score = None if callable(target) else places.score
        found, seeds = seeds_for(
            run,
            outputs,
            score,
            lambda leaves: seed_of(target, leaves, graph.unflatten_output, question.seed, run.batch),
        )
    if not is_finite(found.value):
        refuse_infinite_inputs(run.leaves)
    return found, seeds


def _needs_guard(run: Run, relevances: Sequence[Tensor | None]) -> Guarded | None:
    """Where relevance is not finite and some value is not either: the same run once more, with a guard."""
    if isinstance(run, Guarded) or all(map(is_finite, relevances)):
        return None
    kind = GuardedParts if isinstance(run, Checkpointed) else Guarded
    again = kind(run.plan, run.leaves, differentiable=run.differentiable, batch=run.batch)
    return again if again.has_gaps else None


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


def open_ledger(run: Run, found: Seed, seeds: Mapping[Node, Message]) -> Ledger:
    run.batch = len(found.value)
    run.ledger = Ledger(found.value.detach().double() if found.value.device.type != "mps" else found.value.detach())
    started = torch.zeros_like(run.ledger.seed)
    for node, message in seeds.items():
        started = started + run.per_sample(message.relevance(run.values[node]), node)
    missing = run.ledger.seed - started
    if float(missing.abs().max()) > 1e-12 * float(run.ledger.seed.abs().max() + 1):
        run.ledger.book("target", next(iter(seeds)), missing)
    return run.ledger


def or_zeros(relevance: Tensor | None, value: Tensor) -> Tensor:
    return torch.zeros_like(value) if relevance is None else relevance
