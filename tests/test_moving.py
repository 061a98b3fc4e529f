"""Every row of docs/moving.md: what stands on the left, in the other library, and on the right, in relprop."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
import relprop.captum
from relprop import composites, rules, select, targets
from relprop.adapters import to_shap

PAGE = Path(__file__).parents[1] / "docs" / "moving.md"


def rows() -> Iterator[tuple[str, str, str]]:
    """(header, left, right) of every row of every table."""
    header = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = re.split(r" \| ", line.strip("| ")) if line.startswith("| ") else []
        if not cells:
            header = "" if not line.startswith("|") else header
        elif not header:
            header = cells[0]
        else:
            yield header, cells[0].strip("`"), cells[1].strip("`")


class Network(nn.Sequential):
    """Layers for which captum and zennit have rules; neither knows ``nn.Flatten``."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(36, 5, bias=False))
        nn.init.uniform_(self[3].weight, -0.1, 0.3)  # scores are positive, where all definitions agree

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self[3](torch.flatten(self[2](self[1](self[0](x))), 1))
        return z


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention = nn.Embedding(9, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 9)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        z: Tensor = self.head(x + self.attention(x, x, x, need_weights=False)[0])
        return z


def names(seed: int = 0) -> dict[str, Any]:
    """What the page's expressions speak of, anew each time: some libraries change models."""
    torch.manual_seed(seed)
    model, linear, x = Network().eval(), nn.Linear(4, 3).eval(), torch.rand(2, 3, 8, 8)
    table = {"linear": linear, "rows": torch.randn(6, 4)}
    text = {"language_model": LanguageModel(), "ids": torch.tensor([[1, 2, 3]])}
    own = {"relprop": relprop, "composites": composites, "rules": rules, "select": select, "targets": targets}
    return {"torch": torch, "model": model, "x": x, "relevance": torch.randn(2, 3, 8, 8), **table, **text, **own}


def offered(*modules: str) -> dict[str, Any]:
    """All that some modules offer; the test is skipped where one is not installed."""
    found: dict[str, Any] = {}
    for name in modules:
        module = pytest.importorskip(name, reason=f"{name} is not installed: this row is run on relprop's side only")
        found |= {n: getattr(module, n) for n in dir(module) if not n.startswith("_")}
    return found


def in_zennit(expression: str) -> Any:
    own = names()
    own |= offered(*(f"zennit.{part}" for part in "attribution canonizers composites image rules types core".split()))
    found = eval(expression, own)
    if isinstance(found, own["Hook"]):
        found = own["LayerMapComposite"]([(own["Activation"], own["Pass"]()), (own["Linear"], found)])
    if isinstance(found, own["Composite"]):
        found = own["Gradient"](model=own["model"], composite=found)(own["x"], torch.eye(5)[[3, 3]])[1]
    return found


def in_captum(expression: str) -> Any:
    own = names() | offered("captum.attr._utils.lrp_rules", "captum.attr._utils.visualization")
    captum = own["captum"] = pytest.importorskip("captum")
    found = eval(expression, own)
    if isinstance(found, own["PropagationRule"]):
        for i in (0, 3):
            own["model"][i].rule = copy.deepcopy(found)  # it keeps what it has seen
        found = captum.attr.LRP(own["model"]).attribute(own["x"], 3)
    return found


def in_shap(expression: str) -> Any:
    own = names() | offered("shap") | {"shap": pytest.importorskip("shap"), "to_shap": to_shap}
    own["values"] = to_shap(relprop.LRP(own["model"]).explain(own["x"]))
    own["table"] = to_shap(relprop.LRP(own["linear"]).explain(own["rows"], 1))
    found = eval(expression, own)
    pytest.importorskip("matplotlib.pyplot").close("all")
    return found


def in_relprop(expression: str) -> Any:
    """A rule or composite is that of an explanation of class 3."""
    own = names()
    found = eval(expression, own)
    if isinstance(found, (str, list, relprop.Rule, relprop.Composite)):
        found = relprop.LRP(own["model"], found).attribute(own["x"], 3, seed="unit")
    return found


OTHERS: dict[str, Callable[[str], Any] | None] = {
    "zennit rule or composite": in_zennit,
    "zennit call": in_zennit,
    "captum rule": in_captum,
    "captum call": in_captum,
    "shap": in_shap,
    "iNNvestigate analyzer": None,
    "LXT": None,
}
"""What runs the left side; None where the library does not install beside a current PyTorch."""


def test_every_table_is_run() -> None:
    assert {header for header, _, _ in rows()} == set(OTHERS)


@pytest.mark.parametrize(("header", "left", "right"), list(rows()))
def test_a_row_does_the_same_on_both_sides(header: str, left: str, right: str) -> None:
    found = in_relprop(right)
    if (run := OTHERS[header]) is None:
        assert found.abs().max() > 0
        return
    expected = run(left)
    if not isinstance(found, Tensor):
        return  # a picture
    if header == "captum rule":
        expected = expected / names()["model"](names()["x"])[:, 3, None, None, None]
    expected = torch.as_tensor(np.asarray(expected.detach() if isinstance(expected, Tensor) else expected))
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-5, check_dtype=False)
