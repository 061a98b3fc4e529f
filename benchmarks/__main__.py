"""``make bench``: whole attributions of relprop, the plain gradient and other libraries, in one run.

Every row is a multiple of the plain gradient x input of the same model on the same inputs. Each method runs right after
the gradient, and all methods take turns, so that drift of the machine cancels; the median of the ratios is printed with
its quartiles. After every case, what was found is written to ``out/bench.json`` and ``out/bench.md``, and at the end a
chart to ``out/bench.png``. A method that fails on a model says why.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from relprop import LRP

from . import floor, lxt, memory, methods, models, report, roofline
from .measure import Row, measure

COMPOSITES = list(dict.fromkeys(models.CONVOLUTIONAL + models.TRANSFORMER + models.RECURRENT))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    warnings.simplefilter("ignore")
    torch.backends.cudnn.allow_tf32 = False  # single precision throughout, as on a CPU
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    setting = {"torch": torch.__version__, "device": where, "peaks": roofline.peaks(device)}
    rows: list[Row] = []
    cases = [(name, batch) for name in options.models for batch in options.batch]
    with memory.limited() if device.type == "cpu" else nullcontext():
        for name, batch in (progress := tqdm(cases, disable=None)):
            progress.set_description(f"{name} x{batch}")
            found = one_case(models.make(name, batch, device), options, progress.set_postfix_str)
            rows += [row | roofline.place(row, setting["peaks"]) for row in found]
            report.write(options.out, setting, rows)
            torch._dynamo.reset()  # forgets the compiled programs, and what they hold
            gc.collect()
    report.chart(options.out / "bench.png", rows)
    print(report.as_markdown(setting, rows))


def one_case(case: models.Case, options: argparse.Namespace, tell: Any) -> list[Row]:
    """The rows of one model and batch size."""
    case.composites = [name for name in case.composites if name in options.composites]
    lrp = LRP(case.model)
    effort = {"most": options.repeats, "budget": options.budget}
    chosen = methods.all_for(case, lrp, compiled=options.compiled, others=options.peers)
    rows = measure(case, chosen, tell=tell, **effort)
    if options.peers:
        tell("lxt, in its own environment")
        rows += lxt.measured(case, options.lxt, **effort)
    for row in rows:
        if "error" not in row and row["composite"] in ["", *COMPOSITES]:
            row["least"] = floor.least(lrp, case.inputs, row["composite"])
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(known: Sequence[str]) -> Any:
        def chosen(text: str) -> list[str]:
            found = text.split(",")
            if unknown := [name for name in found if name not in known]:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose among {', '.join(known)}")
            return found

        return chosen

    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else None)
    known = list(models.MODELS)
    parser.add_argument("--models", type=names(known), default=known, help="separated by commas: " + ", ".join(known))
    parser.add_argument("--batch", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8], help="1,8")
    parser.add_argument("--composites", type=names(COMPOSITES), default=COMPOSITES, help=", ".join(COMPOSITES))
    parser.add_argument("--repeats", type=int, default=15, help="rounds at most")
    parser.add_argument("--budget", type=float, default=120, help="seconds for the rounds of one case; at least three")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--no-compiled", dest="compiled", action="store_false", help="leave lrp.compile out")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="leave other libraries out")
    parser.add_argument("--lxt", type=Path, default=Path(".venv-lxt/bin/python"), help="a Python that has LXT")
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
