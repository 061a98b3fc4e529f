"""The propagation as one program: compiled, and saved for processes that know neither relprop nor the model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import InputError, TargetError, targets

from .models import assert_same, prepared

pytestmark = [
    pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of torch's compiler and exporter
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs g++")


class Words(nn.Module):
    """A transformer of one layer over token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 8), nn.Linear(8, 5)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.encoder(self.embed(ids)).mean(1))


class Series(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def cnn() -> nn.Module:
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 6, 3, stride=2, groups=2), nn.ReLU(), nn.AvgPool2d(2, 1, 1)),
        *(nn.ConvTranspose2d(6, 4, 2, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)),
    )
    model[1].running_var.uniform_(0.5, 2)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "cnn": (cnn, lambda: torch.randn(3, 3, 12, 12)),
    "transformer": (Words, lambda: torch.randint(0, 20, (3, 6))),
    "lstm": (Series, lambda: torch.randn(3, 4, 3)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, inputs = MODELS[name]
    return model().eval(), inputs()


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max())


RUN = """
import sys
sys.modules["relprop"] = None
import torch
case = torch.load(sys.argv[1])
def pt2(path):
    return torch.export.load(path).module()
def aoti(path):
    return torch._inductor.aoti_load_package(path)
def onnx(path):
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    names = [i.name for i in session.get_inputs()]
    return lambda *given: [torch.from_numpy(y) for y in session.run(None, dict(zip(names, (x.numpy() for x in given))))]
load = {"pt2": pt2, "aoti": aoti, "onnx": onnx}
results = []
for kind, path in case["files"]:
    program = load[kind](path)
    results.append([program(*given) for given in case["inputs"]])
torch.save(results, sys.argv[2])
"""


def elsewhere(
    tmp_path: Path, files: list[tuple[str, str]], inputs: list[tuple[Tensor, ...]]
) -> list[list[list[Tensor]]]:
    """Results of every file for every input, from a process in which relprop cannot be imported."""
    torch.save({"files": files, "inputs": inputs}, tmp_path / "case")
    command = [sys.executable, "-c", RUN, str(tmp_path / "case"), str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(tmp_path / "results")


@COMPILER
@pytest.mark.parametrize(
    ("name", "composite"), [("cnn", "auto"), ("cnn", "zones"), ("transformer", "auto"), ("lstm", "auto")]
)
def test_file_gives_what_relprop_gives(name: str, composite: str, tmp_path: Path) -> None:
    """All formats, without relprop: output and relevance, of a class given at run time and of the predicted one."""
    model, x = made(name)
    lrp = relprop.LRP(model, composite)
    files = []
    for kind, suffix in [("pt2", "pt2"), ("onnx", "onnx")] + [("aoti", "pt2")] * (composite == "auto"):
        path = lrp.export(tmp_path / f"{kind}.{suffix}", x, format=kind, dynamic=kind == "pt2")
        files.append((kind, str(path)))
    target = torch.tensor([4, 0, 2])
    given = [(x, target), (x, torch.full((3,), targets.PREDICTED)), (x, torch.tensor([-1, 0, -2]))]
    for [(output, relevance), (_, predicted), (_, last)] in elsewhere(tmp_path, files, given):
        close(output, model(x).detach())
        close(relevance, lrp.attribute(x, target))
        close(predicted, lrp.attribute(x))
        close(last, lrp.attribute(x, torch.tensor([-1, 0, -2])))


def test_number_of_samples_is_open(tmp_path: Path) -> None:
    model, x = made("cnn")
    lrp = relprop.LRP(model, "epsilon")
    program = torch.export.load(lrp.export(tmp_path / "cnn.pt2", x)).module()
    more = torch.randn(5, 3, 12, 12)
    close(program(more, torch.full((5,), 3))[1], lrp.attribute(more, 3))


def test_target_function_is_part_of_the_file(tmp_path: Path) -> None:
    model, x = made("cnn")
    lrp = relprop.LRP(model, "epsilon")

    def difference(y: Tensor) -> Tensor:
        return y[:, 1] - y[:, 2]

    program = torch.export.load(lrp.export(tmp_path / "cnn.pt2", x, difference)).module()
    close(program(x)[1], lrp.attribute(x, difference))


def test_target_of_several_numbers(tmp_path: Path) -> None:
    """An output [B, T, C] takes an index [B, 2]."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5)), torch.randn(2, 6, 3)
    lrp = relprop.LRP(model, "epsilon")
    program = torch.export.load(lrp.export(tmp_path / "dense.pt2", x, (1, 2), dynamic=False)).module()
    close(program(x, torch.tensor([[5, 4], [0, 3]]))[1], lrp.attribute(x, (torch.tensor([5, 0]), torch.tensor([4, 3]))))


@pytest.mark.parametrize("path", ["cnn.txt", "cnn", "cnn.pt"])
def test_unknown_format(path: str, tmp_path: Path) -> None:
    model, x = made("cnn")
    with pytest.raises(ValueError, match=r"pt2, aoti, onnx.*cnn"):
        relprop.LRP(model).export(tmp_path / path, x)


def test_one_target_at_a_time(tmp_path: Path) -> None:
    model, x = made("cnn")
    with pytest.raises(TargetError, match="one target"):
        relprop.LRP(model).export(tmp_path / "cnn.pt2", x, [1, 2])


# ------------------------------------------------------------------------------------------------------------- compiled


@COMPILER
@pytest.mark.parametrize("name", MODELS)
def test_compiled_gives_what_eager_gives(name: str) -> None:
    model, x = made(name)
    lrp = relprop.LRP(model)
    compiled = lrp.compile(x)
    close(compiled(x), lrp.attribute(x))
    close(compiled.attribute(x, target=3), lrp.attribute(x, 3))
    target = torch.tensor([1, 4, 0])
    close(compiled(x, target), lrp.attribute(x, target))


@COMPILER
def test_compiled_follows_the_parameters() -> None:
    """Folded and modified weights are made anew: the first call after a change is eager, the next one is compiled."""
    model, x = made("cnn")
    lrp = relprop.LRP(model, "epsilon_plus")
    compiled = lrp.compile(x)
    compiled(x, 1)
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[1].running_mean.add_(1)
    for _ in range(2):
        close(compiled(x, 1), lrp.attribute(x, 1))


@COMPILER
def test_compiled_for_any_number_of_samples() -> None:
    model, x = made("lstm")
    lrp = relprop.LRP(model)
    compiled = lrp.compile(x, dynamic=True)
    for batch in (3, 5):
        more = torch.randn(batch, 4, 3)
        close(compiled(more, 2), lrp.attribute(more, 2))


@pytest.mark.parametrize("dynamic", [False, True])
def test_long_sequences_run_as_they_are_written_down(dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Inductor, whose time grows with the square of their length."""
    monkeypatch.setattr("relprop.programs.compiled.LONG", 100)
    monkeypatch.setattr("torch.compile", None)
    model, _ = made("lstm")
    lrp = relprop.LRP(model, "epsilon")
    x = torch.randn(3, 30, 3)
    compiled = lrp.compile(x, 1, dynamic=dynamic)
    assert_same(compiled.attribute(x, 1), lrp.attribute(x, 1), 1e-5)
    if dynamic:
        x = torch.randn(5, 30, 3)
    assert_same(compiled.attribute(x, 1), lrp.attribute(x, 1), 1e-5)
    model.lstm.weight_ih_l0.data *= 1.1
    for _ in range(2):
        assert_same(compiled.attribute(x, 2), lrp.attribute(x, 2), 1e-5)


@COMPILER
def test_a_single_image(tmp_path: Path) -> None:
    """Its strides are ambiguous: a kernel's output may be laid out otherwise than the compiler thinks."""
    torch.manual_seed(0)
    blocks = (layer for _ in range(2) for layer in (nn.LazyConv2d(8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)).eval()
    x = torch.randn(1, 3, 16, 16)
    model(x)
    lrp, last = relprop.LRP(model.requires_grad_(False)), x.to(memory_format=torch.channels_last)
    expected = lrp.attribute(x, 2)
    close(lrp.compile(x, 2).attribute(x, 2), expected)
    close(lrp.compile(last, 2).attribute(last, 2), expected)
    path = lrp.export(tmp_path / "aoti.pt2", x, 2, format="aoti", dynamic=False)
    [[(_, found)]] = elsewhere(tmp_path, [("aoti", str(path))], [(x, torch.tensor([2]))])
    close(found, expected)


def test_launches_are_captured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which no test here has: that the mode exists, and results survive the next call, can be seen on any machine."""
    model = prepared(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    lrp, x, y = relprop.LRP(model), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    asked: list[object] = []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, mode, **k: asked.append(mode) or compile_(*a, mode=mode, **k))
    lrp.compile(x, 0)
    monkeypatch.setattr("relprop.programs.compiled._is_on_gpu", lambda program: True)
    lrp.compile(x, 0, dynamic=True)
    captured = lrp.compile(x, 0)
    assert asked == [None, None, "reduce-overhead"]
    program, memory = captured._run, torch.zeros(2, 4).double()  # a replay writes to the memory of the last one
    captured._run = lambda *given: (*program(*given)[:-1], memory.copy_(program(*given)[-1]))
    before, after = captured.attribute(x, 0), captured.attribute(y, 0)
    assert_same(before, lrp.attribute(x, 0))
    assert_same(after, lrp.attribute(y, 0))


def test_compiled_for_other_inputs() -> None:
    model, x = made("cnn")
    compiled = relprop.LRP(model, "epsilon").compile(x)
    with pytest.raises(InputError, match=r"\(3, 3, 12, 12\).*\(2, 3, 12, 12\)"):
        compiled(x[:2])
    with pytest.raises(TargetError, match="range"):
        compiled(x, 5)


def test_compiled_target_function() -> None:
    model, x = made("cnn")
    compiled = relprop.LRP(model, "epsilon").compile(x, lambda y: y[:, 1])
    with pytest.raises(TargetError, match="part of this program"):
        compiled(x, 2)


def test_checks_of_a_compiled_call() -> None:
    """They are those of an eager one; none of these calls gets as far as the compiler."""
    model, x = made("cnn")
    compiled = relprop.LRP(model, "epsilon").compile(x)
    with pytest.raises(InputError, match="NaN"):
        compiled(x * float("nan"))
    with pytest.raises(TargetError, match="given to compile"):
        compiled(x, lambda y: y[:, 1])
    model[2] = nn.GELU()
    with pytest.raises(InputError, match="changed since it was compiled"):
        compiled(x)


def test_one_sample_stands_for_any_number(tmp_path: Path) -> None:
    """torch takes a size of one for a constant; an image is what most people have at hand."""
    model, x = made("cnn")
    lrp = relprop.LRP(model, "epsilon")
    program = torch.export.load(lrp.export(tmp_path / "one.pt2", x[:1], torch.tensor([2]))).module()
    close(program(x, torch.full((3,), 2))[1], lrp.attribute(x, 2))


@pytest.mark.parametrize("dynamic", [False, True])
def test_constants_of_a_target_and_of_a_rule(dynamic: bool, tmp_path: Path) -> None:
    """Tensors that neither model nor input holds, used twice."""
    model, x = made("cnn")
    weights, low = torch.rand(5), torch.full((3, 12, 12), -4.0)
    composite = [(relprop.select.first(relprop.select.convolution()), relprop.rules.ZBox(low, -low))]
    lrp = relprop.LRP(model, composite)

    def target(y: Tensor) -> Tensor:
        return (y * weights).sum(1) + (y * weights).sum(1)

    program = torch.export.load(lrp.export(tmp_path / "cnn.pt2", x, target, dynamic=dynamic)).module()
    close(program(x)[1], lrp.attribute(x, target))


def test_memory_format_of_the_input(tmp_path: Path) -> None:
    model, x = made("cnn")
    lrp = relprop.LRP(model, "epsilon")
    program = torch.export.load(lrp.export(tmp_path / "cnn.pt2", x)).module()
    close(program(x.to(memory_format=torch.channels_last), torch.full((3,), 2))[1], lrp.attribute(x, 2))


class Scaled(nn.Module):
    """A number, a vector for all samples, and samples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, number: Tensor, shared: Tensor, x: Tensor) -> Tensor:
        return self.linear(x * shared) * number


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("target", [None, 1, "each"])
def test_compiled_with_inputs_in_any_order_of_which_the_first_holds_no_samples(dynamic: bool, target: object) -> None:
    lrp = relprop.LRP(prepared(Scaled()), "lrp0")
    number, shared = torch.rand((), dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    x, more = torch.rand(2, 3, dtype=torch.float64), torch.rand(5 if dynamic else 2, 3, dtype=torch.float64)
    examples = {"number": number, "x": x, "shared": shared}
    if not dynamic:  # the samples that are left open are those of the first input with a dimension
        examples = {"number": number, "shared": shared, "x": x}
    compiled = lrp.compile(examples, 0, dynamic=dynamic)
    other = {"x": more, "shared": 2 * shared, "number": 3 * number}
    target = torch.arange(len(more)) % 2 if target == "each" else target
    got, expected = compiled(other, target), lrp.attribute(other, target)
    assert got.keys() == expected.keys()
    for name, relevance in expected.items():
        assert_same(got[name], relevance)
