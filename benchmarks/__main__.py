"""``make bench``: whole attributions of relprop, the plain gradient and other libraries, in one run.

Every row is a ratio to the plain gradient x input of the same model on the same inputs, measured pair by pair: the
methods take turns, and the median of the ratios is printed with its quartiles, so that drift of the machine cancels.
Results go to ``out/bench.json`` and ``out/bench.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import memory, models, peers

COMPOSITES = ["lrp0", "epsilon", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"]


def methods_for(case: models.Case) -> dict[str, Callable[[], Any]]:
    """Name -> a function that makes one whole attribution; "gradient" is the yardstick."""
    import relprop

    found: dict[str, Callable[[], Any]] = {"gradient": peers.gradient(case)}
    base = relprop.LRP(case.model)
    for name in case.composites or COMPOSITES:
        lrp = base.using(name)
        found[f"relprop {name}"] = lambda lrp=lrp: lrp.attribute(case.inputs, case.target)
    found.update(peers.all_for(case))
    return found


def measure(case: models.Case, repeats: int) -> list[dict[str, Any]]:
    """Ratios and memory of every method on one model."""
    methods, failed = {}, []
    for name, run in methods_for(case).items():
        try:
            run()
            methods[name] = run
        except Exception as error:  # a peer that does not work on a model is a result, too
            reason = (str(error).splitlines() or [""])[0][:80]
            failed.append({"model": case.name, "method": name, "error": f"{type(error).__name__}: {reason}"})
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in tqdm(range(repeats), desc=case.name, leave=False):
        for name, run in methods.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    peaks = {name: memory.peak(run) for name, run in methods.items()}
    rows: list[dict[str, Any]] = []
    for name in methods:
        ratios = [t / g for t, g in zip(times[name], times["gradient"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        rows.append(
            {
                "model": case.name,
                "method": name,
                "seconds": statistics.median(times[name]),
                "ratio": statistics.median(ratios),
                "quartiles": [low, high],
                "memory": peaks[name] / peaks["gradient"],
                "passes": peers.passes(case, methods[name]),
            }
        )
    return rows + failed


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | method | time / gradient (quartiles) | memory / gradient | forward + backward products |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['model']} | {row['method']} | fails: {row['error']} | | |")
            continue
        low, high = row["quartiles"]
        forward, backward = row["passes"]
        lines.append(
            f"| {row['model']} | {row['method']} | {row['ratio']:.2f} ({low:.2f}-{high:.2f}) | {row['memory']:.2f} | "
            f"{forward} + {backward} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", default=",".join(models.DEFAULT), help="names, separated by commas")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name in options.models.split(","):
        rows += measure(models.make(name, options.batch), options.repeats)
        options.out.mkdir(exist_ok=True)
        (options.out / "bench.json").write_text(json.dumps(rows, indent=1))
        (options.out / "bench.md").write_text(as_markdown(rows) + "\n")
    print(as_markdown(rows))


if __name__ == "__main__":
    main()
