"""A ``.pt2`` file takes no more memory than it has bytes, is soon refused, and an honest one loads."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import relprop
from relprop import CaptureError
from relprop.capture.sizes import NotASize, symbols_of

from .models import assert_same, cnn, images

SYMBOL = "Symbol('s77', positive=True, integer=True)"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest file, with a batch of any size."""
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(torch.export.export(cnn(), (images(),), dynamic_shapes=({0: Dim.AUTO},)), path)
    return path


def changed(archive: Path, tmp_path: Path, change: Callable[[str, bytes], bytes], method: int = 0) -> Path:
    path = tmp_path / "changed.pt2"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def edited(archive: Path, tmp_path: Path, member: str, edit: Callable[[Any], None]) -> Path:
    """A copy of which one JSON document is edited."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(member):
            return data
        edit(document := json.loads(data))
        return json.dumps(document).encode()

    return changed(archive, tmp_path, change)


def refused(path: Path, *words: str) -> None:
    """It is refused, within ten seconds and 100 MB."""
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(CaptureError, match="(?s)" + "".join(f"(?=.*(?:{word}))" for word in (path.name, *words))):
            relprop.LRP(path)
        assert time.monotonic() - start < 10
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------------------------------------------------- memory


def test_members_that_unpack_to_gigabytes(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data/weights/more", b"0")
        file.getinfo("model/data/weights/more").file_size = 3 * 10**9  # in the directory, which is all that is read
    refused(path, "refused", "2,861 MB", "on disk", r"torch\.export\.load")


def test_text_that_unpacks_to_megabytes(archive: Path, tmp_path: Path) -> None:
    """It would be slow to read, not only large."""
    path = changed(
        archive, tmp_path, lambda name, x: x + b" " * 10**7 * name.endswith("model.json"), zipfile.ZIP_DEFLATED
    )
    refused(path, "refused", "text unpacks", "on disk")


def test_no_more_is_unpacked_than_declared(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "lies.pt2"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data/weights/more", bytes(2 * 10**8), compresslevel=1)
        file.getinfo("model/data/weights/more").file_size = 100
    refused(path, "damaged|more")


@pytest.mark.parametrize("stride", [0, 1])
@pytest.mark.parametrize("dtype", [7, 12], ids=["float32", "bool"])
def test_tensor_that_is_declared_larger_than_its_file(archive: Path, tmp_path: Path, stride: int, dtype: int) -> None:
    """Where nothing is stored torch makes zeros of any size; strides of zero repeat one number."""

    def edit(config: Any) -> None:
        meta = next(iter(config["config"].values()))["tensor_meta"]
        meta["sizes"], meta["dtype"] = [{"as_int": 10**5}, {"as_int": 10**5}], dtype
        meta["strides"] = [{"as_int": stride}] * 2

    path = edited(archive, tmp_path, "weights_config.json", edit)
    if stride:
        path = changed(path, tmp_path.parent, lambda name, x: b"" if name.endswith("weight_0") else x)
    refused(path, "refused", "data/weights", r"\[100000, 100000\]", "MB")


def test_pickle_that_is_compressed_inside(archive: Path, tmp_path: Path) -> None:
    torch.save(torch.zeros(10**6), saved := io.BytesIO())
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(inner := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))

    def change(name: str, data: bytes) -> bytes:
        return inner.getvalue() if "sample_inputs" in name else data

    refused(changed(archive, tmp_path, change), "refused", "sample_inputs", "compressed")


# ------------------------------------------------------------------------------------------------------- symbolic sizes

SLOW = [
    "9**9**9**9",
    "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))",
    "(((((2**64)**64)**64)**64)**64)**64",
    "LShift(Integer(1), Integer(100000000000))",
    "PowByNatural(Integer(9), Integer(999999999))",
    "Float('1.5', precision=99999999999)",
    "2**Symbol('s77')",
    "Pow(Add(" + ", ".join(f"Symbol('s{i}')" for i in range(12)) + "), Integer(40))",
    "Max(" + ", ".join(f"s{i}" for i in range(3000)) + ")",
    "(" * 5000 + "s77" + ")" * 5000,
    "-" * 9000 + "s77",
    "s" + "9" * 50,
    "9" * 4000,
    "5!",
    "s77.is_integer",
    "",
]


@pytest.mark.parametrize("expression", SLOW, ids=lambda x: x[:16])
def test_expression_that_takes_long(archive: Path, tmp_path: Path, expression: str) -> None:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(SYMBOL.encode(), expression.encode()) if name.endswith("model.json") else data

    refused(
        changed(archive, tmp_path, change), "refused", "model.json, tensor_values", "expression", "no symbolic size"
    )


@pytest.mark.parametrize("key", ["u99999999999", "9**9**9**9", "__import__('os')"])
def test_range_that_takes_long(archive: Path, tmp_path: Path, key: str) -> None:
    """torch counts up to the number of a symbol."""

    def edit(document: Any) -> None:
        document["range_constraints"][key] = {"min_val": 0, "max_val": None}

    refused(edited(archive, tmp_path, "model.json", edit), "refused", "range_constraints", "no symbolic size")


def test_many_sizes(archive: Path, tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        size = {"as_expr": {"expr_str": "+".join(["s77"] * 20), "hint": None}}
        values.update({f"more{i}": {**next(iter(values.values())), "sizes": [size] * 10} for i in range(2000)})

    refused(edited(archive, tmp_path, "model.json", edit), "refused", "many symbolic sizes", r"torch\.export\.load")


@pytest.mark.parametrize("symbol", ["s99", "u3"])
def test_symbol_that_the_file_says_nothing_of(archive: Path, tmp_path: Path, symbol: str) -> None:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(b"Symbol('s77'", f"Symbol('{symbol}'".encode()) if name.endswith("model.json") else data

    refused(changed(archive, tmp_path, change), "refused", r"tensor_values\.\w+\.sizes\[0\]", f"'{symbol}'", "s77")


@pytest.mark.parametrize(
    ("expression", "symbols"),
    [
        (SYMBOL, {"s77"}),
        ("Add(FloorDiv(Add(Symbol('s0', positive=True, integer=True), Integer(-1)), Integer(2)), Integer(1))", {"s0"}),
        ("Pow(Symbol('s1'), Integer(-1))", {"s1"}),
        ("Pow(s1, Rational(1, 2))", {"s1"}),
        ("Piecewise(ExprCondPair(Integer(1), StrictLessThan(s0, Integer(3))), ExprCondPair(s2, true))", {"s0", "s2"}),
        ("Mul(Float('0.5', precision=53), Symbol('u0', integer=True))", {"u0"}),
        ("-2*s0//3 + s1**2 % 5 - (s0 - 1)", {"s0", "s1"}),
        ("s0 >= 3 & s1 != 4", {"s0", "s1"}),
        ("IntTrueDiv(Max(Integer(1), s0), Min(int_oo, s1))", {"s0", "s1"}),
        (" + ".join(f"s{i}" for i in range(8)), {f"s{i}" for i in range(8)}),
    ],
)
def test_honest_expressions(expression: str, symbols: set[str]) -> None:
    assert symbols_of(expression) == symbols


def test_precedence_of_powers() -> None:
    """2 ** -1 ** 2 is 2 ** (-(1 ** 2)), and 2 ** 3 ** 4 is 2 ** 81."""
    symbols_of("2**-1")
    symbols_of("(2**3)**4")
    with pytest.raises(NotASize, match="exponent"):
        symbols_of("2**3**4")


# --------------------------------------------------------------------------------------------------------- honest files


class Strided(nn.Module):
    """Its sizes are ⌊(n - 1) / 2⌋ + 1, and it branches on them, so that torch writes guards in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        return nn.functional.interpolate(y, size=x.shape[2:]).mean((2, 3))


class Pairs(nn.Module):
    """A batch that is twice another one."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.reshape(-1, 2, 3).sum(1) * y


def test_an_honest_file_with_all_sizes_open(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Strided().double()
    sizes = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    torch.export.save(torch.export.export(model, (images(),), dynamic_shapes=(sizes,)), tmp_path / "open.pt2")
    lrp = relprop.LRP(tmp_path / "open.pt2", "epsilon")
    for x in (images(), images(3)[:, :, :21, :17]):
        assert_same(lrp.attribute(x, target=1), relprop.LRP(model, "epsilon").attribute(x, target=1))


def test_sizes_that_follow_from_others(tmp_path: Path) -> None:
    """y = (x₁ + x₂) t: the sum of both halves is half of the product to each factor, whatever came first."""
    n = Dim("n", min=2)
    x, t = torch.randn(8, 3).double(), torch.randn(4, 3).double()
    program = torch.export.export(Pairs(), (x, t), dynamic_shapes=({0: 2 * n}, {0: n}))
    torch.export.save(program, tmp_path / "pairs.pt2")
    for lrp in (relprop.LRP(program, "epsilon"), relprop.LRP(tmp_path / "pairs.pt2", "epsilon")):
        for rows in (4, 3):
            _, of_t = lrp.attribute((x[: 2 * rows], t[:rows]), target=1)
            product = (x[: 2 * rows].reshape(rows, 2, 3).sum(1) * t[:rows])[:, 1]
            assert_same(of_t[:, 1], product / 2)


class Folded(nn.Module):
    """A batch that must be even."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2, 3).sum(1)


def test_size_that_is_twice_a_symbol() -> None:
    """The sum of pairs: every row is its own explanation."""
    n = Dim("n", min=2)
    x = torch.randn(8, 3).double()
    program = torch.export.export(Folded(), (x,), dynamic_shapes=({0: 2 * n},))
    lrp = relprop.LRP(program, "epsilon")
    for rows in (4, 3):
        found = lrp.attribute(x[: 2 * rows], target=1)
        assert_same(found[:, 1], x[: 2 * rows, 1])
    with pytest.raises(CaptureError, match=r"2\*s\d+.*\(5, 3\)"):
        lrp.attribute(x[:5], target=1)


def test_compressed_file(archive: Path, tmp_path: Path) -> None:
    path = changed(archive, tmp_path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert_same(relprop.LRP(path).attribute(images(3)), relprop.LRP(cnn()).attribute(images(3)))
