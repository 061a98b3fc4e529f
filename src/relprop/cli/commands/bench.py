"""``relprop bench``"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..asked import Asked
from ..failures import Usage
from ..options import Common, InputOptions, ModelOptions
from ..output import bar, show, table
from ..reading import joined


def bench(
    model: str,
    /,
    *inputs: str,
    composite: str = "auto",
    repeat: int = 5,
    batch: int = 1,
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Measure how long an explanation takes on this machine, beside the model itself and its gradient.

    Args:
        model: As for relprop explain.
        inputs: An example; the first sample is taken.
        composite: Which rule for which operation: a name of relprop.composites.
        repeat: How often each is measured; the median counts.
        batch: So many copies of the sample at once.
    """
    for name, value in (("repeat", repeat), ("batch", batch)):
        if value < 1:
            raise Usage(f"--{name} {value}: at least 1")
    asked = Asked.of(model, inputs, composite, model_options, input_options, common)
    x = joined([asked.samples[0]] * batch)
    start = time.perf_counter()
    asked.lrp.attribute(x, _first)
    capture = time.perf_counter() - start
    found = {
        name: _median(run, repeat, asked.model.device)
        for name, run in bar(list(_runs(asked, x).items()), "measurement", asked.common)
    }
    base = found.get("gradient")
    rows = [("what", "ms", "of the gradient")]
    rows += [(name, f"{1000 * t:.1f}", f"{t / base:.2f}" if base else "") for name, t in found.items()]
    text = f"{table(rows, right=(1, 2))}\n\nthe first call, with the capture of the model, took {capture:.1f} s"
    show(text, {"model": model, "batch": batch, "first_call_s": capture, "median_s": found}, asked.common)
    return 0


def _runs(asked: Asked, x: Any) -> dict[str, Callable[[], Any]]:
    """What is measured. A file of a program is run by its explanation only."""
    import torch

    lrp, own = asked.lrp, asked.model.runs
    runs: dict[str, Callable[[], Any]] = {}
    if not isinstance(own, Path):

        def forward() -> Any:
            with torch.no_grad():
                return _call(own, x)

        runs["model"] = forward
        leaves = [t for t in (x.values() if isinstance(x, dict) else [x]) if t.is_floating_point()]
        if leaves:
            runs["gradient"] = lambda: _gradient(own, x, leaves)
    runs["relevance"] = lambda: lrp.attribute(x, _first)
    runs["relevance with ledger"] = lambda: lrp.explain(x, _first)
    return runs


def _first(output: Any) -> Any:
    """A target that every output has: the first score of each sample."""
    from relprop.targets import scores

    return scores(output).flatten(1)[:, 0]


def _call(model: Any, x: Any) -> Any:
    return model(**x) if isinstance(x, dict) else model(x)


def _gradient(model: Any, x: Any, leaves: list[Any]) -> None:
    import torch

    with torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_(True)
        torch.autograd.grad(_first(_call(model, x)).sum(), leaves, allow_unused=True)
        for leaf in leaves:
            leaf.requires_grad_(False)


def _median(run: Callable[[], Any], repeat: int, device: str) -> float:
    import torch

    def timed() -> float:
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    timed()  # the first one makes what later ones have
    return sorted(timed() for _ in range(repeat))[repeat // 2]
