"""LXT needs an older transformers, hence an environment of its own, where this file runs as a program.

It is measured there against the plain gradient of the same model, in turns as everywhere. LXT changes the classes of
models; before each run of the gradient the change is taken back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

import relprop

from .measure import Method, Row, Run, measure
from .models import Case, make

MODELS = {"vit_b_16": "cp_lrp", "bert": "attnlrp", **dict.fromkeys(["llama_128", "llama_512", "llama_2048"], "attnlrp")}
"""What it supports, and with which rules."""


def measured(case: Case, python: Path, *, most: int, budget: float) -> list[Row]:
    """The row of LXT, or none for models that it is not meant for."""
    if case.name not in MODELS:
        return []
    composite = MODELS[case.name]
    row = {"model": case.name, "batch": case.batch, "method": f"lxt {composite}", "library": "lxt"}
    row["composite"] = composite
    if not python.exists():
        return [row | {"error": f"there is no {python}: `make lxt` installs it"}]
    wanted = {"name": case.name, "batch": case.batch, "device": str(case.inputs.device)}
    wanted |= {"most": most, "budget": budget, "threads": torch.get_num_threads()}
    done = subprocess.run(
        [python, "-m", __name__, json.dumps(wanted)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(Path(relprop.__file__).parents[1])},  # it is not installed there
    )
    if done.returncode:
        return [row | {"error": (done.stderr.strip().splitlines() or ["it was ended"])[-1][:160]}]
    return [json.loads(done.stdout.splitlines()[-1])]


# -- in the other environment -----------------------------------------------------------------------------------------


def main(wanted: dict[str, Any]) -> Row:
    """Measure one case."""
    torch.set_num_threads(wanted["threads"])
    device = torch.device(wanted["device"])
    case = make(wanted["name"], wanted["batch"], device)
    change, undo = _patch(wanted["name"])
    change()
    explained = make(wanted["name"], wanted["batch"], device)
    undo()
    explained.model.load_state_dict(case.model.state_dict(), strict=False, assign=True)  # the very same weights

    def run() -> Any:
        change()
        try:
            return explained.gradient()
        finally:
            undo()

    method = Method("lxt", MODELS[case.name], lambda case, name: run)
    gradient, row = measure(case, [method], most=wanted["most"], budget=wanted["budget"])
    return row | {"gradient memory": gradient["memory"]}


def _patch(name: str) -> tuple[Run, Run]:
    """Two functions: one changes the classes of a model as LXT does, one changes them back."""
    from lxt.efficient import monkey_patch
    from lxt.efficient.models import get_default_map
    from torchvision.models import vision_transformer
    from transformers.models.bert import modeling_bert
    from transformers.models.llama import modeling_llama

    module = {"vit": vision_transformer, "ber": modeling_bert, "lla": modeling_llama}[name[:3]]
    owners = list(dict.fromkeys([module, *get_default_map(module)]))
    before = [dict(vars(o)) for o in owners]
    monkey_patch(module)
    after = [dict(vars(o)) for o in owners]

    def switch(to: list[dict[str, Any]], of: list[dict[str, Any]]) -> None:
        for owner, new, old in zip(owners, to, of, strict=True):
            for key in new.keys() | old.keys():
                if key not in new:
                    delattr(owner, key)
                elif new[key] is not old.get(key):
                    setattr(owner, key, new[key])

    switch(before, after)
    return partial(switch, after, before), partial(switch, before, after)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("\n" + json.dumps(main(json.loads(sys.argv[1]))))
