"""A type checker finds what a user misspells, and nothing wrong with what is right."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest

import relprop
from relprop import composites, view
from relprop.explanation.look import Look, SavedLook, WordLook

RIGHT = """
import numpy as np
import torch
from torch import nn
import relprop
from relprop import rules, select, targets

model = nn.Linear(2, 2)
for_convolutions = [(select.convolution(), rules.Gamma(0.25)), (select.dense(), rules.Epsilon(1e-6))]
lrp = relprop.LRP(model, "epsilon_plus", bias="zero")
relprop.LRP(model, rules.Epsilon(0.1)), relprop.LRP(model), relprop.LRP(model, "auto").using("lrp0", bias="absorb")
relprop.LRP(model, for_convolutions), relprop.LRP(model, relprop.composites.gamma)
relprop.LRP(model, relprop.Composite([(select.dense(), rules.ZPlus())])).attribute(None, 3, seed="unit")
lrp.attribute(None, [281, 282]), lrp.attribute(None, "tiger cat"), lrp.attribute(None, np.array([3]).argmax())
lrp.attribute(None, (1, 2)), lrp.attribute(None, torch.tensor([1])), lrp.attribute(None, lambda z: z[0])
lrp.attribute(None, targets.several([None, 3])), lrp.attribute(None, targets.class_index(3))
explanation = lrp.explain(None, micro_batch=2)
explanation.figure(0, percentile="auto", cmap="coldhot"), explanation.html(title="a text")
explanation.save("cat.png", crop=0.9, which=1)
lrp.export("cat.onnx", None, format="onnx")
relprop.evaluate(lrp, None, composites=["lrp0"], baselines=["occlusion"], replacements=["blur"], unit="token")
"""

WRONG = [
    'relprop.LRP(model, "epsilon_pluss")',
    'relprop.LRP(model, bias="absorbed")',
    "relprop.LRP(model, compsite=None)",
    'lrp.using("epsilon", bias="none")',
    'lrp.attribute(None, seed="units")',
    'lrp.explain(None, seed="one")',
    "lrp.explain(None, microbatch=2)",
    'lrp.export("a", None, format="onyx")',
    "explanation.figure(0, percentil=99)",
    "explanation.html(colour_map=None)",
    'explanation.save("cat.png", dpj=100)',
    'explanation.figure(0, kind="list")',
    'relprop.evaluate(lrp, None, baselines=["oclusion"])',
    'relprop.evaluate(lrp, None, replacements=["blurr"])',
    'relprop.evaluate(lrp, None, unit="tokens")',
]

SETTINGS = """
[mypy]
strict = true
[mypy-relprop.*]
follow_imports = silent
disable_error_code = misc
[mypy-torch.*,numpy.*,matplotlib.*,PIL.*]
follow_imports = skip
"""


def test_the_names_of_composites_are_those_that_there_are() -> None:
    assert sorted(get_args(composites.Name)) == sorted(composites.NAMED)


def test_the_options_of_pictures_are_those_that_there_are() -> None:
    """Each option is one of a picture or of the explanation itself, and each of a picture is an option."""
    own = {"crop", "slices", "kind", "which", "wrt", "tokens"}
    made = [view.figure, view.series, view.table, view.tokens_figure]
    taken = {n for f in made for n, p in inspect.signature(f).parameters.items() if p.default is not p.empty}
    assert set(SavedLook.__annotations__) - own == taken - {"image"}
    words = {n for n, p in inspect.signature(view.tokens_html).parameters.items() if p.default is not p.empty}
    assert set(WordLook.__annotations__) == words
    assert set(SavedLook.__annotations__) - set(Look.__annotations__) == {"tokens", "wrt", "which"}


@pytest.mark.slow
def test_mypy_finds_what_is_misspelt_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy comes with the extra dev")
    monkeypatch.setenv("MYPYPATH", str(Path(relprop.__file__).parents[1]))
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    (tmp_path / "snippet.py").write_text("\n".join([RIGHT.strip(), *WRONG]))
    settings = [f"--config-file={tmp_path / 'mypy.ini'}", f"--cache-dir={tmp_path / 'cache'}"]
    told, trouble, _ = api.run([*settings, str(tmp_path / "snippet.py")])
    assert not trouble
    first = RIGHT.strip().count("\n") + 2
    found = {int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line}
    assert found == {first + i for i in range(len(WRONG))}, told
