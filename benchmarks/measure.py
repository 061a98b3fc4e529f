"""Time, memory and work of the methods of one case, which take turns with the plain gradient."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from . import memory
from .models import Case
from .watch import Watch

Run = Callable[[], Any]
Row = dict[str, Any]
LEAST = 3
"""Rounds that even the slowest case gets."""


@dataclass
class Method:
    """One way to explain a case: a library, and the composite whose rules it applies."""

    library: str
    composite: str
    make: Callable[[Case, str], Run]
    visible: bool = True
    """Whether its operations pass PyTorch's dispatcher, where they are counted; those of a compiled program do not."""

    @property
    def name(self) -> str:
        return f"{self.library} {self.composite}".strip()


YARDSTICK = Method("gradient x input", "", lambda case, _: case.gradient)


def measure(
    case: Case, methods: list[Method], *, most: int, budget: float, tell: Callable[[str], Any] = lambda _: None
) -> list[Row]:
    """One row for each method, the gradient first; one that fails says why.

    Args:
        case: model and inputs.
        methods: what to compare with the gradient.
        most: rounds at most.
        budget: seconds after which no further round begins, once there were three.
        tell: is told what is going on.
    """
    watch = Watch(case.model, lambda: case.model(case.inputs))
    device = case.inputs.device
    rows: dict[str, Row] = {}
    runs: dict[str, Run] = {}
    for method in [YARDSTICK, *methods]:
        tell(f"{method.name}: first run")
        row = {"model": case.name, "batch": case.batch, "method": method.name}
        rows[method.name] = row | {"library": method.library, "composite": method.composite}
        try:
            runs[method.name] = run = method.make(case, method.composite)
            rows[method.name] |= _inspect(run, watch if method.visible else None, device)
        except Exception as error:  # what does not work on a model is a result, too
            _failed(method.name, error, rows, runs)
    gc.collect()
    gc.freeze()  # what is there by now need not be searched for garbage before every run
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    start = time.perf_counter()
    for n in range(most):
        if n >= LEAST and (time.perf_counter() - start) * (n + 1) / n > budget:
            break
        for name in list(runs)[:: 1 if n % 2 else -1]:  # nobody always runs behind the same one
            tell(f"{name}: round {n + 1}")
            try:
                yardstick = seconds(case.gradient, device)
                times[name].append((seconds(runs[name], device), yardstick))
            except Exception as error:
                _failed(name, error, rows, runs)
    gc.unfreeze()
    for name in runs:
        rows[name] |= summary(times[name])
    return list(rows.values())


def _inspect(run: Run, watch: Watch | None, device: torch.device) -> Row:
    """Two runs, which also warm up: in the first one, modified weights are made."""
    if watch is None:
        run()
        return {"memory": memory.peak(run, device)}
    watch(run)
    return {"memory": memory.peak(lambda: watch(run), device), **watch.found()}


def _failed(name: str, error: Exception, rows: dict[str, Row], runs: dict[str, Run]) -> None:
    runs.pop(name, None)
    rows[name]["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def seconds(run: Run, device: torch.device) -> float:
    """How long a run takes, by the device's own clock."""
    gc.collect()
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


def summary(times: list[tuple[float, float]]) -> Row:
    """The median time, and the median of the ratios to the gradient that ran just before, with its quartiles."""
    ratios = [t / g for t, g in times]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {
        "seconds": statistics.median(t for t, _ in times),
        "ratio": statistics.median(ratios),
        "quartiles": [low, high],
        "rounds": len(times),
    }
