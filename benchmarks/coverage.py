"""``make coverage``: try every architecture and write ``docs/coverage.md``.

For each: does it capture, which operations have no rule, does the output equal the model's, does the ledger balance,
how long does an attribution take next to a gradient. In double precision, so that a residual is an error.
"""

from __future__ import annotations

import argparse
import gc
import re
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from tqdm import tqdm

from .architectures import Example, examples

OUT = Path(__file__).parent.parent / "docs" / "coverage.md"


KNOWN = {"gemma4_vit_167m": "it drops to single precision within, which relprop does not"}
"""Why the output of an architecture is not that of the model to the last digits."""


def try_one(example: Example) -> dict[str, Any]:
    """One row of the table."""
    import relprop

    row: dict[str, Any] = {"source": example.source, "name": example.name}
    try:
        model, inputs, target = example.make()
    except Exception as error:
        return {**row, "status": f"cannot be built here: {_line(error)}"}
    try:
        expected, precision = _run(model, inputs), "double"
    except RuntimeError as error:
        if "Double" not in str(error):
            return {**row, "status": f"the model itself fails: {_line(error)}"}
        model.float()
        inputs = pytree.tree_map(lambda x: x.float() if x.dtype == torch.float64 else x, inputs)
        expected, precision = _run(model, inputs), "single"
    try:
        start = time.perf_counter()
        lrp = relprop.LRP(model)
        report = lrp.check(inputs)
        row["capture"] = time.perf_counter() - start
        if not report:
            return {
                **row,
                "status": "gaps: " + "; ".join(dict.fromkeys(re.findall(r"\((\S+)\)", " ".join(report.gaps)))),
            }
        explanation = lrp.explain(inputs, target)
        row["output"] = _difference(expected, explanation.output)
        ledger = explanation.ledger
        moved = ledger.seed.abs() + ledger.received.abs() + sum(a.abs() for a in ledger.sinks.values())
        row["residual"] = float((ledger.residual.abs() / moved).max())
        row["received"] = float(ledger.received.sum() / ledger.seed.sum())
        row["composite"] = explanation.plan.composite.name
        tolerance = 1e-9 if precision == "double" else 1e-5
        row["status"] = "works" if row["residual"] <= tolerance and row["output"] <= 1e-6 else "imprecise"
        if row["status"] == "imprecise" and example.name in KNOWN:
            row["status"] += f": {KNOWN[example.name]}"
        if row["status"] == "works" and precision == "single":
            row["status"] = "works (in single precision: the model does not run in double)"
        row["ratio"] = _ratio(lambda: lrp.attribute(inputs, target), lambda: _gradient(model, inputs, target))
    except Exception as error:
        row["status"] = f"fails: {_line(error)}"
    return row


def _run(model: torch.nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def _difference(expected: Any, actual: Any) -> float:
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(actual), strict=False)
    worst = 0.0
    for x, y in pairs:
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.dtype.is_floating_point:
            scale = float(x.abs().nan_to_num(posinf=0, neginf=0).max()) or 1.0
            worst = max(worst, float((x - y).nan_to_num().abs().max()) / scale)
    return worst


def _gradient(model: torch.nn.Module, inputs: Any, target: Any) -> None:
    """The plain gradient of the target with respect to everything that a gradient reaches first."""
    given = dict(inputs) if isinstance(inputs, dict) else {"": inputs}
    leaves = {}
    for name, x in given.items():
        if x.dtype.is_floating_point:
            leaves[name] = given[name] = x.detach().clone().requires_grad_()
    output = model(**given) if isinstance(inputs, dict) else model(given[""])
    value = target(output) if callable(target) else output[:, target]
    wanted = list(leaves.values()) or [next(p for p in model.parameters() if p.requires_grad)]
    torch.autograd.grad(value.sum(), wanted, allow_unused=True)


def _ratio(run: Any, gradient: Any, repeats: int = 3) -> float:
    """Time of one to that of the other, in turns; not a number where the model has no gradient."""
    times: tuple[list[float], list[float]] = ([], [])
    try:
        for _ in range(repeats):
            for one, spent in zip((run, gradient), times, strict=True):
                start = time.perf_counter()
                one()
                spent.append(time.perf_counter() - start)
    except RuntimeError:
        return float("nan")
    return min(times[0]) / min(times[1])


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}".replace("|", "/")


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, sorted as it was tried, with a summary."""
    works = sum(r["status"].startswith("works") for r in rows)
    built = sum(not r["status"].startswith("cannot") for r in rows)
    lines = [
        "# Coverage",
        "",
        f"Made by `make coverage`. Of {len(rows)} architectures {built} could be built, and {works} of these work:",
        "every operation has a rule, the output equals the model's, the ledger balances to 1e-9 in double precision.",
        "Weights are random. The time is that of a whole attribution against one plain gradient, the smaller of three:",
        "for these small configurations mostly overhead ([performance](performance.md) has the real sizes).",
        "",
        "| source | architecture | status | composite | ledger residual | received | time / gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        numbers = [
            f"{r[key]:{form}}" if key in r else ""
            for key, form in (("residual", ".0e"), ("received", ".3g"), ("ratio", ".2f"))
        ]
        lines.append(
            f"| {r['source']} | {r['name']} | {r['status']} | {r.get('composite', '')} | {' | '.join(numbers)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Try every architecture and write docs/coverage.md")
    parser.add_argument("--only", default="", help="a regular expression that source/name must match")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [e for e in examples() if re.search(options.only, f"{e.source}/{e.name}")]
    rows = []
    for example in (progress := tqdm(chosen)):
        progress.set_description(example.name)
        torch.manual_seed(0)
        rows.append(try_one(example))
        if not rows[-1]["status"].startswith("works"):
            tqdm.write(f"{example.source}/{example.name}: {rows[-1]['status']}")
        gc.collect()
        options.out.write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
