"""Digests of reports and files: they are the same wherever an explanation goes, and tell whatever was changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop.engine.digest import digest
from relprop.explanation.digests import digests_of

FORMATS = (".npz", ".json", ".safetensors")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


X = torch.linspace(-1, 1, 3 * 192).reshape(3, 3, 8, 8)


@pytest.fixture(scope="module")
def explained() -> relprop.Explanation:
    return relprop.LRP(network()).explain(X, target=[0, 2])


def agreement(findings: list) -> dict[str, bool]:
    return {finding.what: finding.agrees for finding in findings}


def test_a_digest_is_of_the_values() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(2, 2)
    expected = hashlib.sha256(b"tensor torch.float32 [2, 2] " + np.array([1, 2, 3, 4], "<f4").tobytes()).hexdigest()
    assert digest(x) == expected
    assert digest(x.T.contiguous().T) == expected  # however it lies in memory
    others = [
        x.double(),
        x.flatten(),
        -x,
        [x],
        {"x": x},
        (x, x),
        None,
        1,
        "1",
        True,
        1.0,
        [],
        {},
        [[]],
        ["a", "b"],
        "ab",
    ]
    assert len({expected, *map(digest, others)}) == len(others) + 1
    assert digest([x, 1]) == digest((x, 1))
    assert digest(torch.empty(0, 3)) != digest(torch.empty(3, 0))
    assert digest(x.to(torch.bfloat16)) != digest(x.half())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_agrees_with_itself_and_with_the_explanation(explained, tmp_path: Path, suffix: str) -> None:
    path = explained.save(tmp_path / f"a{suffix}")
    assert digests_of(relprop.load(path)) == digests_of(explained)
    found = agreement(relprop.verify(path))
    assert {"plan", "inputs", "relevance", "output", "value", "ledger"} == found.keys()
    assert all(found.values())
    again = relprop.LRP(network()).explain(X, target=[0, 2])
    assert all(agreement(relprop.verify(path, again)).values())


def test_whatever_is_changed_in_a_file_is_found(explained, tmp_path: Path) -> None:
    path = explained.save(tmp_path / "a.json")
    whole = json.loads(path.read_text())
    for name, field in (("relevance", "relevance"), ("inputs", "inputs"), ("ledger", "ledgers.0.dict.0")):
        changed = json.loads(path.read_text())
        key = next(k for k in changed["arrays"] if k.startswith(field.split(".")[0]))
        changed["arrays"][key]["values"][0] = 0.125
        (tmp_path / "b.json").write_text(json.dumps(changed))
        assert agreement(relprop.verify(tmp_path / "b.json"))[name] is False
    text = json.dumps(whole)
    assert "LRP0()" in text
    (tmp_path / "b.json").write_text(text.replace("LRP0()", "ZPlus()"))
    assert [what for what, agrees in agreement(relprop.verify(tmp_path / "b.json")).items() if not agrees] == ["plan"]


def test_another_model_input_or_rule_is_found(explained, tmp_path: Path) -> None:
    path = explained.save(tmp_path / "a.npz")

    def differing(again: relprop.Explanation) -> set[str]:
        found = relprop.verify(path, again)
        return {f.what.partition(",")[0] for f in found if not f.agrees and "again" in f.what}

    targets = [0, 2]
    assert {"model", "value", "received"} <= differing(relprop.LRP(network(seed=1)).explain(X, targets))
    assert {"inputs", "value", "received"} == differing(relprop.LRP(network()).explain(X + 0.1, targets))
    assert {"plan", "received"} == differing(relprop.LRP(network(), "epsilon_plus").explain(X, targets))
    trained = network()
    with torch.no_grad():
        trained[3].bias[1] += 1e-3  # of a class that is not explained
    assert {"model"} == differing(relprop.LRP(trained).explain(X, targets))


def test_the_plan_is_the_same_wherever_the_source_lies(tmp_path: Path) -> None:
    code = "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x.relu().sum(1)\n"
    digests, texts = [], []
    for folder, first in (("here", ""), ("elsewhere_with_a_long_name", "\n\n\n")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "net.py"
        file.write_text(first + code)
        space: dict = {}
        exec(compile(file.read_text(), str(file), "exec"), space)
        explained = relprop.LRP(space["Net"]()).explain(torch.ones(2, 3))
        digests.append(digests_of(explained)["plan"])
        texts.append(str(explained.plan))
    assert texts[0] != texts[1]
    assert digests[0] == digests[1]


def test_a_report_agrees_and_whatever_is_changed_is_found(explained, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    path = relprop.report(explained, tmp_path / "a.html", title=f"{'0' * 64} <&>")
    assert agreement(relprop.verify(path)) == {
        "page": True, "plan of sample 0": True, "plan of sample 1": True, "plan of sample 2": True
    }  # fmt: skip
    again = relprop.LRP(network()).explain(X, target=[0, 2])
    found = agreement(relprop.verify(path, again))
    assert all(found.values())
    assert "model of sample 2, explained again" in found
    assert agreement(relprop.verify(path, again[:2]))["samples"] is False
    assert agreement(relprop.verify(path, relprop.LRP(network(1)).explain(X, [0, 2])))[
        "model of sample 0, explained again"
    ] is False  # fmt: skip
    page = path.read_text()
    for old, new in (("target 0", "target 1"), ("LRP0()", "ZPlus()"), ("</main>", " </main>")):
        assert old in page
        (tmp_path / "b.html").write_text(page.replace(old, new, 1))
        assert agreement(relprop.verify(tmp_path / "b.html"))["page"] is False
    (tmp_path / "c.html").write_bytes(path.read_bytes().replace(b"\n", b"\r\n", 1))
    assert agreement(relprop.verify(tmp_path / "c.html"))["page"] is False
    for digest_ in digests_of(explained[1]).items():
        assert digest_[0] not in ("model", "plan", "inputs", "relevance") or digest_[1] in page


def test_what_is_no_report_or_states_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html></html>")
    with pytest.raises(relprop.FileError, match="is no report of relprop"):
        relprop.verify(tmp_path / "a.html")
    (tmp_path / "b.html").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(relprop.FileError, match="is no report of relprop"):
        relprop.verify(tmp_path / "b.html")
    with pytest.raises(relprop.FileError, match="reads"):
        relprop.verify(tmp_path / "c.txt")
    with pytest.raises(FileNotFoundError):
        relprop.verify(tmp_path / "c.npz")
    with pytest.raises(FileNotFoundError):
        relprop.verify(tmp_path / "c.html")
