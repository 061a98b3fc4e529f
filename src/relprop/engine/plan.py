"""A plan: one rule for every operation on the way from the output back to the inputs, known before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch.fx import Node

from ..composite import Composite
from ..graph.graph import READING, Graph, describe, module_path, operation, shape_of, source_line
from ..graph.ops import ONE_DIMENSIONAL
from ..rules.base import Lost, Rule, Step
from ..scope import Scope
from .digest import digest
from .lookups import explained
from .schedule import Schedule


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of one propagation, in order of execution. ``print(plan)`` shows them as a table."""

    graph: Graph
    steps: Mapping[Node, Step]
    sources: Mapping[Node, Sequence[int]]
    """Where relevance is read (the explained inputs, and look-ups by their values) -> positions of these inputs."""
    roots: Sequence[Node]
    """The leaves of the output where relevance may start."""
    composite: Composite
    gaps: Sequence[Node]
    """Operations without a rule."""
    scope: Scope
    dependent: Set[Node]
    """Nodes whose value depends on an explained input."""
    bias: str
    schedule: Schedule

    @property
    def explained(self) -> list[Node]:
        """The sources, and the inputs that their relevance belongs to."""
        return explained(self.graph, self.sources)

    @cached_property
    def loses(self) -> bool:
        """Whether relevance ends at an operation that has nothing to hand it on to."""
        return any(isinstance(step.rule, Lost) for step in self.steps.values())

    @property
    def input_names(self) -> list[str]:
        return self.graph.input_names

    @property
    def convolved(self) -> set[str]:
        """Names of the inputs that a 1-D convolution reads: their channels come before their steps."""
        named = zip(self.graph.inputs, self.graph.input_names, strict=True)
        return {name for n, name in named if n is not None and any(u.target in ONE_DIMENSIONAL for u in n.users)}

    @property
    def table_rows(self) -> dict[str, int]:
        """Input that looks something up -> the length of the longest table it does so in."""
        found: dict[str, int] = {}
        for source, positions in self.sources.items():
            shapes = (shape_of(n) for n in source.all_input_nodes if n in self.graph.constants)
            tables = [shape[0] for shape in shapes if shape]
            for i in positions if tables else ():
                name = self.input_names[i]
                found[name] = max(found.get(name, 0), int(max(tables)))
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __reduce__(self) -> Any:
        return PrintedPlan, (str(self), self.input_names, self.convolved, self.table_rows, self.model_digest)

    @property
    def model_digest(self) -> str:
        """SHA-256 of the parameters and buffers that the model reads, by name, as they are now."""
        with READING:
            return digest({name: self.graph.lookup(name) for name in sorted(set(self.graph.parameters.values()))})

    @property
    def title(self) -> str:
        """Composite, bias policy and where relevance starts, in one line."""
        note = f" ({self.composite.note})" if self.composite.note else ""
        inside = [describe(root) for root in self.roots if root not in self.graph.outputs]
        start = f", relevance starts at {', '.join(inside)}" if inside else ""
        return f"composite {self.composite.name}{note}, bias: {self.bias}{start}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table as it is printed: its head, then a row for each operation, at the end those without a rule."""
        rows: list[tuple[str, ...]] = [("node", "operation", "module", "rule", "chosen by", "source")]
        rows += [
            (n.name, operation(n), module_path(n), rule_name(step.rule), step.reason, source_line(n))
            for n, step in self.steps.items()
        ]
        return rows + [(n.name, operation(n), module_path(n), "NO RULE", "", source_line(n)) for n in self.gaps]

    def __str__(self) -> str:
        return f"{self.title}\n{table(self.rows)}"

    __repr__ = __str__


def rule_name(rule: Rule) -> str:
    """A rule as it shows itself, with the name of its class."""
    name, shown = type(rule).__name__, str(rule)
    if shown.startswith("<"):  # it does not show itself
        return name
    return shown if shown.startswith(name) else f"{name}: {shown}"


@dataclass
class PrintedPlan:
    """What a pickled explanation keeps of its plan: the table, which is to be printed, and what a picture needs."""

    text: str
    input_names: list[str]
    convolved: set[str]
    table_rows: dict[str, int]
    model_digest: str = ""

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def table(rows: list[tuple[str, ...]], right: Iterable[int] = ()) -> str:
    """Rows as aligned text, the first one underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
