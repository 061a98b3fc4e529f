"""What the tests of the command line share: a folder with models, inputs, and a way to type a command."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODELS = '''
import torch
from torch import nn


def picture():
    """Reads [B, 3, 8, 8], tells three classes apart."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def rows():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def with_preprocessing():
    return picture(), lambda image: torch.ones(3, 8, 8)


def fails_to_prepare():
    def prepare(image):
        raise ValueError("too red")

    return picture(), prepare


def prepares_lists():
    return picture(), lambda image: [1, 2]


class Gap(nn.Module):
    def forward(self, x):
        return torch.ops.aten.i0(x).sum((2, 3))


def broken():
    raise RuntimeError("no such luck")


def no_model():
    return 7
'''


@dataclass
class Shell:
    """A folder in which commands are typed."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: Any) -> tuple[int, str, str]:
        """Exit code, output and errors of one command."""
        from relprop.cli import main

        code = main([str(word) for word in words])
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *words: Any) -> Any:
        """What a command prints with --json; it must succeed."""
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    def error(self, *words: Any) -> tuple[int, str]:
        """Exit code and the one line of an error, which has no traceback."""
        code, out, err = self(*words)
        lines = [line for line in err.splitlines() if not line.startswith("note: ")]
        assert out == "", out
        assert len(lines) == 1, err
        assert lines[0].startswith("error: "), err
        return code, lines[0].removeprefix("error: ")

    def module(self, name: str = "typed_models", text: str = MODELS) -> str:
        """A module of models in the folder."""
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        return name

    def picture(self, name: str = "a.png", size: tuple[int, int] = (8, 8), seed: int = 0) -> Path:
        """A picture of noise."""
        from PIL import Image

        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path


def pixels_of(path: Path) -> np.ndarray:
    """[1, 3, H, W] in [0, 1]"""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
