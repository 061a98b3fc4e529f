"""The benchmark itself, on networks that take no time."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import relprop
from benchmarks import floor, lxt, methods, models, roofline
from benchmarks.__main__ import main
from benchmarks.measure import LEAST, Method, measure
from benchmarks.models import CONVOLUTIONAL, Case
from benchmarks.watch import Watch

LAYERS = 4


def small(name: str = "small", batch: int = 2) -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 128),  # square: its shape does not tell forward from back
        nn.ReLU(),
        nn.Linear(128, 5),
    )
    return Case(name, model.eval(), torch.randn(batch, 3, 16, 16).clamp(-3, 3), CONVOLUTIONAL)


def products(case: Case, composite: str) -> tuple[float, float]:
    lrp = relprop.LRP(case.model, composite)
    lrp.plan(case.inputs)
    watch = Watch(case.model, lambda: case.model(case.inputs))
    for _ in range(2):  # the first run makes the modified weights, the second one has them
        watch(lambda: lrp.attribute(case.inputs, 0))
    return watch.found()["forward"], watch.found()["back"]


@pytest.mark.parametrize("composite", ["gradient", "lrp0", "epsilon"])
def test_one_product_forward_and_one_back(composite):
    case = small()
    assert products(case, composite) == (LAYERS, LAYERS)
    assert floor.least(relprop.LRP(case.model), case.inputs, composite) == (LAYERS, LAYERS)


def test_products_with_modified_weights_count():
    case = small()
    # two convolutions with a second sum, the first one of which also meets negative inputs
    assert products(case, "epsilon_plus") == (LAYERS + 2, LAYERS + 1)
    assert floor.least(relprop.LRP(case.model), case.inputs, "epsilon_plus") == (LAYERS + 2, LAYERS + 1)


def test_the_gradient_of_a_transformer_makes_one_product_of_each():
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    case = Case("transformer", nn.Sequential(model, nn.Flatten()), torch.randn(2, 5, 16), [])
    watch = Watch(case.model, lambda: case.model(case.inputs))
    watch(case.gradient)
    assert (watch.found()["forward"], watch.found()["back"]) == (4, 4)


def test_a_recurrent_layer_counts_as_its_weights():
    case = models.make("lstm", 1, torch.device("cpu"))
    lrp = relprop.LRP(case.model)
    assert floor.least(lrp, case.inputs, "epsilon") == (5, 2)  # a quarter of four weights, and the dense layer
    assert products(case, "epsilon")[1] == pytest.approx(2, rel=0.01)


@pytest.mark.slow
def test_a_whole_run(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(models, "MODELS", {"small": small})
    monkeypatch.setattr(lxt, "MODELS", {"small": "attnlrp"})
    monkeypatch.setattr(roofline, "peaks", lambda device: {"flops": 1e11, "bytes": 1e10})
    options = ["--models", "small", "--batch", "1,2", "--repeats", "2", "--no-compiled", "--lxt", "nowhere"]
    main([*options, "--out", str(tmp_path)])
    results = json.loads((tmp_path / "bench.json").read_text())
    rows = {(row["method"], row["batch"]): row for row in results["rows"]}
    assert {batch for _, batch in rows} == {1, 2}
    for name in CONVOLUTIONAL:
        row = rows[f"relprop {name}", 2]
        assert row["ratio"] > 0
        assert row["memory"] > 1
        assert 0 < row["flops"] / row["seconds"] == pytest.approx(row["flops/s"])
        assert row["forward"] >= row["least"][0]
        assert row["back"] >= row["least"][1]
    assert "make lxt" in rows["lxt attnlrp", 1]["error"]
    table = (tmp_path / "bench.md").read_text()
    assert "| small | 2 | relprop epsilon |" in table
    assert "| 4 + 4 | 4 + 4 |" in table
    assert table.strip() in capsys.readouterr().out
    assert (tmp_path / "bench.png").stat().st_size > 10_000


def test_a_method_that_fails_says_why_and_the_others_go_on():
    case = small()

    def broken(case: Case, name: str):
        def run():
            raise RuntimeError("no rule\nfor this")

        return run

    chosen = [Method("other", "epsilon", broken), *methods.all_for(case, relprop.LRP(case.model), others=False)[:1]]
    _, failed, works = measure(case, chosen, most=9, budget=0)
    assert failed["error"] == "RuntimeError: no rule for this"
    assert works["rounds"] == LEAST  # what the budget does not reach


def test_lxt_runs_where_relprop_is_not_installed(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(lxt, "MODELS", {"small": "attnlrp"})
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import os, sys; sys.exit(os.environ[\'PYTHONPATH\'])"\n')
    python.chmod(0o755)
    [row] = lxt.measured(small(), python, most=1, budget=1)
    assert (Path(row["error"]) / "relprop").is_dir()
