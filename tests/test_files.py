"""Explanations as samples, as arrays and as files: what is kept, what is read back, and what bad files are told."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop import targets

from .models import assert_same

FORMATS = (".npz", ".safetensors", ".json")


class Two(nn.Module):
    """An input for each sample and one that all share; a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, common: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.fc(x) * common.sum(), "pair": (x, x.int())}


@pytest.fixture(scope="module")
def single() -> relprop.Explanation:
    return relprop.LRP(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).double()).explain(
        torch.rand(3, 3, dtype=torch.float64), record="*"
    )


@pytest.fixture(scope="module")
def several() -> relprop.Explanation:
    x = {"x": torch.rand(2, 3), "common": torch.rand(5)}
    return relprop.LRP(Two()).explain(x, [torch.tensor([1, 2]), targets.contrast(torch.tensor([0, 3]), 1)])


def test_samples_are_explanations(single: relprop.Explanation) -> None:
    assert len(single) == 3
    ones = list(single)
    assert [len(one) for one in ones] == [1, 1, 1]
    for i, one in enumerate(ones):
        assert_same(one.relevance[0], single.relevance[i])
        assert_same(one.output[0], single.output[i])
        assert_same(one.inputs[0], single.inputs[i])
        assert_same(one.ledger.seed[0], single.ledger.seed[i])
        assert_same(one.ledger.received + one.ledger.absorbed, one.ledger.seed)
        assert one.target.tolist() == [single.target[i].item()]
        assert one.relevances.keys() == single.relevances.keys()
        assert_same(one.relevances["0"][0], single.relevances["0"][i])
    assert_same(single[-1].relevance, ones[2].relevance)
    assert_same(single[1:].relevance, single.relevance[1:])
    for bad in (3, -4):
        with pytest.raises(IndexError, match=f"sample {bad}; there are 3 samples"):
            single[bad]
    with pytest.raises(TypeError, match="a sample's number or a slice, got 'a'"):
        single["a"]


def test_samples_of_several_targets(several: relprop.Explanation) -> None:
    """What all samples share stays whole; a target with an index for each sample keeps the sample's own."""
    assert len(several) == 2
    one = several[1]
    assert_same(one.relevance["x"], several.relevance["x"][:, 1:])
    assert_same(one.relevance["common"], several.relevance["common"])
    assert_same(one.inputs["common"], several.inputs["common"])
    assert one.target[0].tolist() == [2]
    assert one.target[1] == targets.contrast(torch.tensor([3]), 1)
    assert_same(one.value, several.value[:, 1:])
    assert [part.target for part in one.parts] == one.target


def test_to_and_numpy(single: relprop.Explanation, several: relprop.Explanation) -> None:
    half = single.to(torch.float16)
    assert half.relevance.dtype == half.ledger.seed.dtype == half.relevances["0"].dtype == torch.float16
    assert half.target.dtype == torch.int64
    assert several.to("cpu", dtype=torch.float64).output["pair"][1].dtype == torch.int32
    assert single.to("meta").relevance.device.type == "meta"
    assert single.relevance.dtype == torch.float64  # the first is as it was
    assert np.array_equal(single.numpy(), single.relevance.numpy())
    assert np.array_equal(several.numpy()["x"], several.relevance["x"].numpy())


def test_words(single: relprop.Explanation) -> None:
    told = repr(single)
    assert f"value       {float(single.value[0]):.4g}, " in told
    best = int(single.output[0].argmax())
    assert f"prediction  {best} ({float(single.output[0, best]):.4g})" in told
    assert "rules       composite" in told
    assert "bias: absorb" in told
    assert "relevance   input [3, 3]" in told
    ledger = single.ledger
    share = 100 * float(ledger.received.sum() / ledger.seed.sum())
    found = re.search(r"received by input \S+ \((\S+) %\)", told)
    assert found is not None
    assert float(found[1]) == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["single", "several"])
def test_a_file_is_read_back(request: pytest.FixtureRequest, tmp_path: Path, kind: str, suffix: str) -> None:
    first: relprop.Explanation = request.getfixturevalue(kind)
    again = relprop.load(first.save(tmp_path / f"a{suffix}"))
    assert_same(again.value, first.value, 0)
    assert repr(again) == repr(first)
    assert str(again.plan) == str(first.plan)
    assert len(again) == len(first)
    for old, new in zip(first.ledgers, again.ledgers, strict=True):
        assert str(new) == str(old)
        assert new.shared == old.shared
    names = ["x", "common"] if kind == "several" else [...]
    for name in names:
        assert torch.equal(again.relevance[name], first.relevance[name])
        assert again.relevance[name].dtype == first.relevance[name].dtype
    assert again.relevances.keys() == first.relevances.keys()
    if kind == "several":
        assert isinstance(again.output["pair"], tuple)
        assert again.output["pair"][1].dtype == torch.int32
        assert str(again.target[1]) == str(first.target[1])
    assert repr(relprop.load(again.save(tmp_path / f"b{suffix}"))) == repr(first)  # ... and can be saved again


@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_that_a_format_lacks(tmp_path: Path, suffix: str) -> None:
    """bfloat16 is unknown to numpy, and JSON knows neither infinity nor nan."""
    e = relprop.LRP(nn.Linear(3, 4).bfloat16()).explain(torch.rand(2, 3).bfloat16(), 1)
    e.output = torch.tensor([float("nan"), float("inf"), -float("inf"), 1 / 3], dtype=torch.float64)
    again = relprop.load(e.save(tmp_path / f"a{suffix}"))
    assert again.inputs.dtype == torch.bfloat16
    assert torch.equal(again.inputs, e.inputs)
    torch.testing.assert_close(again.output, e.output, equal_nan=True, rtol=0, atol=0)


def test_a_file_is_no_picture(single: relprop.Explanation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.npz holds all samples, and no picture: leave out sample, title"):
        single.save(tmp_path / "a.npz", 1, title="cat")
    single.output = single.output.to(torch.complex64)
    try:
        with pytest.raises(relprop.FileError, match=r"output is a .* tensor of torch\.complex64"):
            single.save(tmp_path / "a.npz")
    finally:
        single.output = single.output.real.double()


class Harmful:
    def __reduce__(self):
        return (print, ("code was run",))


def test_bad_files(single: relprop.Explanation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(relprop.FileError, match=r"ends in '\.pt'; relprop\.load reads \.npz, \.safetensors, \.json"):
        relprop.load(tmp_path / "a.pt")
    for suffix in FORMATS:
        path = tmp_path / f"a{suffix}"
        with pytest.raises(FileNotFoundError, match="there is no file"):
            relprop.load(path)
        whole = single.save(path).read_bytes()
        for content in (b"", b"no explanation", whole[: len(whole) // 2], whole[-100:], b"\x93NUMPY\x01\x00"):
            path.write_bytes(content)
            with pytest.raises(relprop.FileError, match=r"is no explanation that relprop saved, or is damaged"):
                relprop.load(path)
    np.savez(tmp_path / "a.npz", relprop=np.array([Harmful()], dtype=object))
    with pytest.raises(relprop.FileError, match="damaged"):
        relprop.load(tmp_path / "a.npz")
    assert capsys.readouterr().out == ""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("relprop.npy", b"0" * 10**6)
    with pytest.raises(relprop.FileError, match="compressed"):
        relprop.load(tmp_path / "a.npz")
    text = json.loads(single.save(tmp_path / "a.json").read_text())
    for change, message in (({"format": 2}, "of format 2"), ({"content": {}}, "lacks what an explanation has")):
        (tmp_path / "a.json").write_text(json.dumps({**text, **change}))
        with pytest.raises(relprop.FileError, match=message):
            relprop.load(tmp_path / "a.json")


def test_the_package_for_safetensors_is_named(single, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match=re.escape('pip install "relprop[safetensors]"')):
        single.save(tmp_path / "a.safetensors")
