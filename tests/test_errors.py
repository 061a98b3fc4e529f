"""Bad input gets one clear error: what is wrong, what came, what was expected."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import (
    CaptureError,
    InputError,
    RuleError,
    SelectionError,
    TargetError,
    UnsupportedOperation,
    rules,
    select,
)

from .models import CNN, assert_balanced, assert_same, cnn, images, mlp


def raises(error: type[Exception], *words: str):
    """The error, whose message holds all of these words."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*(?:{word}))" for word in words))


def shown(value: object) -> str:
    """A name for a test that is the same in every process."""
    return "function" if callable(value) else str(value)


# --------------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("captured", [False, True], ids=["first call", "later call"])
def test_wrong_shape(captured: bool) -> None:
    lrp = relprop.LRP(cnn())
    if captured:
        lrp.attribute(images())
    with raises(InputError, r"input", r"\(2, 5, 32, 32\)", "channels"):
        lrp.attribute(images(channels=5))
    with raises(InputError, r"input", r"\(2, 7\)"):
        relprop.LRP(mlp(5, 3)).attribute(torch.zeros(2, 7).double())


def test_wrong_number_of_inputs() -> None:
    lrp = relprop.LRP(cnn())
    with raises(InputError, "argument"):
        lrp.attribute((images(), images()))
    with raises(InputError, "nonsense"):
        lrp.attribute({"nonsense": images()})


@pytest.mark.parametrize("captured", [False, True], ids=["first call", "later call"])
def test_wrong_dtype(captured: bool) -> None:
    lrp = relprop.LRP(cnn())
    if captured:
        lrp.attribute(images())
    with raises(InputError, "input 0", "float32", "float64"):
        lrp.attribute(images().float())


def test_integers_that_are_no_tokens() -> None:
    with raises(InputError, "input"):
        relprop.LRP(mlp(5, 3)).attribute(torch.ones(2, 5).long())


@pytest.mark.parametrize("captured", [False, True], ids=["first call", "later call"])
def test_wrong_device(captured: bool) -> None:
    lrp = relprop.LRP(cnn())
    if captured:
        lrp.attribute(images())
    with raises(InputError, "input 0", "meta", "cpu"):
        lrp.attribute(images().to("meta"))


def test_empty_batch() -> None:
    with raises(InputError, "input 0", "empty", r"\(0, 3, 32, 32\)"):
        relprop.LRP(cnn()).attribute(images()[:0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite(bad: float) -> None:
    x = images()
    x[1, 2, 3, 4] = bad
    with raises(InputError, "input 0", "1 value", r"\[1, 2, 3, 4\]"):
        relprop.LRP(cnn()).attribute(x)


def test_minus_infinity_is_no_input_either() -> None:
    """Only a mask may hold -inf; what is explained may not."""
    x = images()
    x[1, 2, 3, 4] = -float("inf")
    with raises(InputError, "input 0", r"\[1, 2, 3, 4\]"):
        relprop.LRP(cnn()).attribute(x)


@pytest.mark.parametrize("inputs", ["x.png", None, 3.0])
def test_no_tensors(inputs: object) -> None:
    with raises(InputError, type(inputs).__name__):
        relprop.LRP(cnn()).attribute(inputs)


def test_nothing_in_the_inputs() -> None:
    with raises(InputError, "tensor"):
        relprop.LRP(cnn()).attribute(())


def test_complex_input() -> None:
    with raises(InputError, "input 0", "complex"):
        relprop.LRP(cnn()).attribute(images().to(torch.complex128))


def test_wrt_that_names_no_input() -> None:
    with raises(InputError, "wrt='y'", "x|0"):
        relprop.LRP(cnn()).attribute(images(), wrt="y")


# -------------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (3, ["3", "out of range", "size 3"]),
        (-4, ["-4", "out of range"]),
        (torch.tensor([0, 3]), ["out of range", "3"]),
        (torch.tensor([0, 1, 2]), [r"\[2\]", r"\(3,\)"]),
        (torch.tensor([0.0, 1.0]), ["float32", "long"]),
        ((0, 0), [r"\(2, 3\)", "2 index"]),
        ("cat", ["'cat'", "int"]),
        (True, ["True", "int"]),
        ([], ["empty|no target"]),
        (lambda y: y, [r"\(2, 3\)", "per sample"]),
        (lambda y: y.sum(), ["per sample"]),
        (lambda y: 1.0, ["float", "tensor"]),
        (lambda y: y.argmax(1).double(), ["depend"]),
    ],
    ids=shown,
)
def test_targets_that_do_not_fit(target: object, words: list[str]) -> None:
    lrp = relprop.LRP(cnn())
    with raises(TargetError, *words):
        lrp.attribute(images(), target=target)


class Segments(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_ambiguous_target_lists_the_choices() -> None:
    with raises(TargetError, r"\(2, 4, 32, 32\)", "index tuple", "function"):
        relprop.LRP(Segments()).attribute(images())


class Labels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).argmax(1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 3).double(), nn.Linear(5, 2).double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.b(x)


def test_output_without_floats() -> None:
    with raises(TargetError, "float", "int64"):
        relprop.LRP(Labels()).attribute(images())


def test_several_outputs_need_a_function() -> None:
    with raises(TargetError, "several", r"\(B, 3\)", r"\(B, 2\)", "function"):
        relprop.LRP(Twice()).attribute(torch.ones(2, 5).double(), target=1)


def test_seed_is_output_or_unit() -> None:
    with raises(ValueError, "seed", "unit", "'one'"):
        relprop.LRP(cnn()).attribute(images(), seed="one")


# ------------------------------------------------------------------------------------------------- rules and composites


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rules.Epsilon(-1.0), ["Epsilon", "epsilon", "-1"]),
        (lambda: rules.Epsilon(float("nan")), ["epsilon", "nan"]),
        (lambda: rules.Epsilon("small"), ["epsilon", "small"]),
        (lambda: rules.Gamma(-0.1), ["Gamma", "gamma", "-0.1"]),
        (lambda: rules.Gamma(float("inf")), ["gamma", "inf"]),
        (lambda: rules.AlphaBeta(2.0, 2.0), ["alpha - beta", "1"]),
        (lambda: rules.ZBox(1.0, -1.0), ["low", "high"]),
        (lambda: rules.ZPlus(-1e-6), ["stabilizer", "-1e-06"]),
        (lambda: rules.Norm(-1.0), ["stabilizer"]),
    ],
)
def test_rule_parameter_out_of_range(make, words: list[str]) -> None:
    with raises(RuleError, *words):
        make()


def test_box_of_another_shape() -> None:
    composite = [(select.first(select.convolution()), rules.ZBox([0.0, 0.0], [1.0, 1.0]))]
    with raises(RuleError, "ZBox", r"\(2,\)", r"\(2, 3, 32, 32\)"):
        relprop.LRP(cnn(), composite).attribute(images())


def test_rule_for_another_kind_of_operation() -> None:
    composite = relprop.Composite([(select.activation(), rules.Epsilon())])
    with raises(RuleError, "Epsilon", "relu"):
        relprop.LRP(cnn(), composite).plan(images())


def test_misspelt_composite_lists_the_names() -> None:
    with raises(SelectionError, "epsilon_pluss", "epsilon_plus", "auto"):
        relprop.LRP(cnn(), "epsilon_pluss")


def test_no_composite_at_all() -> None:
    with raises(RuleError, "composite", "3"):
        relprop.LRP(cnn(), 3)
    with raises(TypeError, "selector"):
        relprop.Composite([("conv1", rules.LRP0())])


def test_misspelt_bias_policy() -> None:
    with raises(ValueError, "bias", "absorb", "'absorbed'"):
        relprop.LRP(cnn(), bias="absorbed")


@pytest.mark.parametrize("selector", [select.module("layer9.*"), select.recurrent(), select.module_type(nn.LSTM)])
def test_selector_that_matches_nothing(selector: select.Selector) -> None:
    with raises(SelectionError, "matches no", "convolution"):
        relprop.LRP(cnn(), [(selector, rules.LRP0())]).attribute(images())


@pytest.mark.parametrize("options", [{"record": "layer9.*"}, {"mask": {"layer9": 0}}, {"at": "layer9"}], ids=str)
def test_pattern_that_matches_nothing(options: dict) -> None:
    with raises(SelectionError, "layer9", "conv1"):
        relprop.LRP(cnn()).explain(images(), **options)


@pytest.mark.parametrize(
    "options", [{"mask": {"conv1": 4}}, {"mask": {"conv1": []}}, {"at": ("conv1", [0, 9])}], ids=str
)
def test_channel_out_of_range(options: dict) -> None:
    with raises(SelectionError, "channel", "4"):
        relprop.LRP(cnn()).explain(images(), **options)


def test_mask_of_another_shape() -> None:
    with raises(SelectionError, "mask", r"\(3,\)", r"\(2, 4, 32, 32\)"):
        relprop.LRP(cnn()).explain(images(), mask={"conv1": torch.ones(3)})


# -------------------------------------------------------------------------------------------------------- training mode


@pytest.mark.parametrize("part", ["drop", "bn1", "everything"])
def test_training_mode_is_refused(part: str) -> None:
    model = cnn()
    (model if part == "everything" else getattr(model, part)).train()
    with raises(CaptureError, r"model\.eval\(\)", "training mode", "" if part == "everything" else part):
        relprop.LRP(model).attribute(images())


def test_training_mode_after_a_capture_is_refused() -> None:
    model = cnn()
    lrp = relprop.LRP(model)
    before = lrp.attribute(images())
    model.train()
    with raises(CaptureError, r"model\.eval\(\)"):
        lrp.attribute(images())
    model.eval()
    assert torch.equal(lrp.attribute(images()), before)


@pytest.mark.parametrize("training", [False, True])
def test_norm_without_statistics_of_its_own(training: bool) -> None:
    """model.eval() does not help it; with statistics, which it is told to get, it is a batch norm like any other."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    x = images()[:, :, :8, :8]
    with raises(
        CaptureError, r"1 \(aten\.\w*batch_norm", "statistics of the batch", r"norm\.running_mean = ", "GroupNorm"
    ):
        relprop.LRP(model.train(training)).attribute(x)
    model.eval()
    norm.running_mean, norm.running_var = torch.rand(4).double(), torch.rand(4).double()
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    folded = nn.Conv2d(3, 4, 3).double()
    folded.weight.data = model[0].weight.detach() * scale[:, None, None, None]
    folded.bias.data = (model[0].bias.detach() - norm.running_mean) * scale + norm.bias.detach()
    other = nn.Sequential(folded, *model[2:])
    assert_same(relprop.LRP(model, "epsilon_plus").attribute(x, 1), relprop.LRP(other, "epsilon_plus").attribute(x, 1))


def test_functional_dropout_is_refused() -> None:
    class Drops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5)

    with raises(CaptureError, "dropout|random", "test_errors.py"):
        relprop.LRP(Drops()).attribute(torch.ones(2, 3))


# ---------------------------------------------------------------------------------------------- operations without rule


@torch.library.custom_op("relprop_tests::twist", mutates_args=())
def twist(x: Tensor) -> Tensor:
    return x * 2


@twist.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("relprop_tests::other", mutates_args=())
def other(x: Tensor) -> Tensor:
    return x + 0


@other.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Twister(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return twist(x)


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.twister, self.leave = nn.Linear(5, 4).double(), Twister(), nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(other(torch.relu(self.twister(self.enter(x)))))


@pytest.fixture
def table() -> object:
    """Rules that a test registers are gone after it."""
    from relprop.rules.table import TABLE

    before = dict(TABLE)
    yield TABLE
    TABLE.clear()
    TABLE.update(before)


def test_custom_op_without_rule_captum_1232(table: object) -> None:
    """captum#1232: an unknown operation is named with its module, file and line, and so is the way to register it."""
    lrp, x = relprop.LRP(Custom().eval()), torch.randn(2, 5).double()
    with raises(UnsupportedOperation, "relprop_tests.twist|relprop_tests.other", r"test_errors\.py:\d+", "rule_for"):
        lrp.attribute(x)
    report = lrp.check(x)
    assert not report
    assert len(report.gaps) == 2
    assert "twister (relprop_tests.twist" in report.gaps[0]
    assert "test_errors.py" in report.gaps[0]
    assert "relprop_tests.other" in report.gaps[1]
    assert all(gap in str(report) for gap in report.gaps)

    @relprop.rule_for(torch.ops.relprop_tests.twist)
    def pass_doubled(call, message):  # y = 2 x: R_x = R_y, c_x = 2 c_y
        return relprop.Message(r=message.relevance(call.output))

    with raises(UnsupportedOperation, "relprop_tests.other"):
        lrp.attribute(x)

    @relprop.rule_for(torch.ops.relprop_tests.other)
    class Same(rules.Rule):
        def backward(self, call, message):
            return [message]

    assert lrp.check(x)
    explanation = lrp.explain(x, 1)
    plain = nn.Sequential(lrp._capturer.model.enter, Scaled(), nn.ReLU(), lrp._capturer.model.leave)
    assert_same(explanation.relevance, relprop.LRP(plain).attribute(x, 1), 1e-9)
    assert_balanced(explanation)


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_unsupported_operation_that_is_not_on_the_way(table: object) -> None:
    """An operation without a rule is no matter where no relevance goes."""

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3).double()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fc(x), twist(x)

    relevance = relprop.LRP(Aside()).attribute(torch.ones(2, 5).double(), target=lambda y: y[0][:, 0])
    assert relevance.shape == (2, 5)


def test_rule_with_too_few_messages(table: object) -> None:
    @relprop.rule_for(torch.ops.relprop_tests.twist, torch.ops.relprop_tests.other)
    def nothing(call, message):
        return []

    with raises(ValueError, "0 messages for 1 input", "relprop_tests"):
        relprop.LRP(Custom().eval()).attribute(torch.ones(2, 5).double())


def test_rule_for_what_is_no_operation() -> None:
    with raises(TypeError, "rule_for", "'relu'"):
        relprop.rule_for("relu")


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("model", [lambda x: x, 3, None, "no such file.pt2"], ids=shown)
def test_what_is_no_model(model: object) -> None:
    with pytest.raises(CaptureError):
        relprop.LRP(model)


# ----------------------------------------------------------------------------------------------------------- .pt2 files


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest file, with a batch of any size."""
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    program = torch.export.export(cnn(), (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, path)
    return path


def rewritten(archive: Path, tmp_path: Path, change) -> Path:
    """A copy of which every member has gone through ``change(name, data) -> data``; None drops it."""
    path = tmp_path / "changed.pt2"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return path


def test_an_honest_file_loads(archive: Path, tmp_path: Path) -> None:
    copy = rewritten(archive, tmp_path, lambda name, data: data)
    for path in (archive, str(archive), copy):
        assert_same(relprop.LRP(path).attribute(images(3)), relprop.LRP(cnn()).attribute(images(3)))


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "no model", "broken model", "no weights", "flipped"])
def test_damaged_file(archive: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "damaged.pt2"
    whole = archive.read_bytes()
    if damage in ("text", "empty", "cut"):
        path.write_bytes({"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    elif damage == "flipped":
        middle = whole.index(b'"graph_module"') + 40
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    else:
        word = "weight_" if damage == "no weights" else "model.json"
        path = rewritten(
            archive, tmp_path, lambda name, data: data if word not in name else (b"{" if "broken" in damage else None)
        )
    with raises(CaptureError, path.name):
        relprop.LRP(path)


class Payload:
    """A pickle that runs code."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def hostile_weights(
    archive: Path, tmp_path: Path, protocol: int, zipped: bool, decoy: bool = False
) -> tuple[Path, Path]:
    """A file whose first weight is declared to be a pickle, and is one that runs code."""
    trace = tmp_path / "code has run"
    if zipped:
        buffer = io.BytesIO()
        torch.save({"weight": Payload(trace)}, buffer)
        code = buffer.getvalue()
    else:
        code = pickle.dumps(Payload(trace), protocol=protocol)

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(data)
            first = next(iter(config["config"].values()))
            first["use_pickle"] = True
            if decoy:
                config["config"]["decoy"] = {**first, "use_pickle": False}
            return json.dumps(config).encode()
        return code if name.endswith("/weight_0") else data

    return rewritten(archive, tmp_path, change), trace


@pytest.mark.parametrize("decoy", [False, True], ids=["", "declared plain as well"])
@pytest.mark.parametrize(("protocol", "zipped"), [(2, True), (0, False), (2, False), (5, False)])
def test_pickled_weight_that_runs_code(archive: Path, tmp_path: Path, protocol: int, zipped: bool, decoy: bool) -> None:
    path, trace = hostile_weights(archive, tmp_path, protocol, zipped, decoy)
    if not decoy:
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            torch.export.load(io.BytesIO(path.read_bytes()))
        assert trace.exists(), "torch itself would have run it"
        trace.unlink(missing_ok=True)
    with raises(CaptureError, "changed.pt2", "refused", "weight_0"):
        relprop.LRP(path)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("member", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"])
def test_pickle_beside_the_weights(archive: Path, tmp_path: Path, member: str, protocol: int) -> None:
    trace = tmp_path / "code has run"
    path = rewritten(archive, tmp_path, lambda name, data: None if name.endswith(member) else data)
    with zipfile.ZipFile(path, "a") as file:
        root = file.namelist()[0].partition("/")[0]
        file.writestr(f"{root}/{member}", pickle.dumps(Payload(trace), protocol=protocol))
    with raises(CaptureError, "refused", member):
        relprop.LRP(path)
    assert not trace.exists()


def test_expression_that_runs_code(archive: Path, tmp_path: Path) -> None:
    """torch evaluates symbolic sizes with sympy, which evaluates them with Python."""
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')"
    spelt = "+".join(f"chr({ord(c)})" for c in code)
    for expression in (f"exec({spelt})", code, "s0.__class__", "Symbol('s0', __import__('os'))", "lambda: s0"):
        size = expression.replace('"', "'").encode()

        def change(name: str, data: bytes, size: bytes = size) -> bytes:
            honest = b"Symbol('s77', positive=True, integer=True)"
            return data.replace(honest, size) if name.endswith("model.json") else data

        path = rewritten(archive, tmp_path, change)
        assert path.read_bytes() != archive.read_bytes()
        with raises(CaptureError, "refused", "expression"):
            relprop.LRP(path)
        assert not trace.exists()


@pytest.mark.parametrize("operation", ["torch.os.system", "torch.hub.load", "torch.ops.load_library", "_operator.call"])
def test_operation_that_is_none(archive: Path, tmp_path: Path, operation: str) -> None:
    path = rewritten(
        archive, tmp_path, lambda name, data: data.replace(b"torch.ops.aten.relu.default", operation.encode())
    )
    with raises(CaptureError, "refused", operation):
        relprop.LRP(path)


def test_compiled_library_in_the_file(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "compiled.pt2"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a") as file:
        root = file.namelist()[0].partition("/")[0]
        file.writestr(f"{root}/data/aotinductor/model/wrapper.so", b"\x7fELF")
    with raises(CaptureError, "refused", "aotinductor"):
        relprop.LRP(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(archive: Path, tmp_path: Path) -> None:
    """One reader takes the first, another one the last."""
    path = tmp_path / "twice.pt2"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a") as file:
        name = next(n for n in file.namelist() if n.endswith("weight_0"))
        file.writestr(name, b"")
    with raises(CaptureError, "refused", "twice"):
        relprop.LRP(path)


def test_file_that_was_exported_in_training_mode(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(CNN().double().train(), (images(),)), tmp_path / "training.pt2")
    with raises(CaptureError, "training mode"):
        relprop.LRP(tmp_path / "training.pt2").attribute(images())


def test_file_for_another_size(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(cnn(), (images(),)), tmp_path / "fixed.pt2")
    lrp = relprop.LRP(tmp_path / "fixed.pt2")
    lrp.attribute(images())
    with raises(CaptureError, r"\(2, 3, 32, 32\)", r"\(3, 3, 32, 32\)", "dynamic"):
        lrp.attribute(images(3))


# ------------------------------------------------------------------------------------------------ relevance out of hand


class Cancelling(nn.Module):
    """f = 1e-9: the difference of two neurons that are nearly the same."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons, self.difference = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        self.neurons.weight.data = torch.eye(2)
        self.difference.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.difference(self.neurons(x))


@pytest.mark.parametrize("method", ["attribute", "explain"])
def test_growth_is_named_with_its_denominator(method: str) -> None:
    """LRP-0 gives R = (1, -(1 - 1e-9)) for an output of 1e-9: 2e9 times as much as it started with."""
    lrp = relprop.LRP(Cancelling().double(), "lrp0")
    x = torch.tensor([[1.0, 1.0 - 1e-9]], dtype=torch.float64)
    with pytest.warns(
        relprop.RelevanceWarning, match="grown to 2 at the output of .*neurons.*2e.09.*difference.*1e-09"
    ):
        getattr(lrp, method)(x)
    with pytest.warns(relprop.RelevanceWarning, match="see the first"):
        getattr(lrp, method)(x)


def test_growth_at_the_input() -> None:
    """The first layer is where it grows."""
    lrp = relprop.LRP(Cancelling().double().difference, "lrp0")
    with pytest.warns(relprop.RelevanceWarning, match="grown to 2 at input .*divides by"):
        lrp.attribute(torch.tensor([[1.0, 1.0 - 1e-9]], dtype=torch.float64))


def test_relevance_that_is_not_finite() -> None:
    """The gradient of a square root at zero is infinite."""

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt().sum(1)

    with pytest.warns(relprop.RelevanceWarning, match="not finite"):
        relprop.LRP(Root(), "gradient").attribute(torch.tensor([[0.0, 1.0]]))


def against_its_bias(layer: nn.Module, weight: float, bias: float) -> nn.Module:
    """f(1) = weight + bias, by one layer, in front of another that changes nothing."""
    net = nn.Sequential(layer, nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
        net[1].weight.fill_(1)
    return net


@pytest.mark.parametrize("method", ["attribute", "explain"])
def test_inputs_that_receive_more_than_is_explained(method: str) -> None:
    """f(1) = 14 - 13 = 1, of which LRP-0 gives 14 to the input and -13 to the bias. It is told once for each plan."""
    lrp = relprop.LRP(against_its_bias(nn.Linear(1, 1), 14.0, -13.0), "lrp0")
    x = torch.ones(2, 1, dtype=torch.float64)
    with pytest.warns(relprop.RelevanceWarning, match=r"receive 1400 %.* at 0 .*LRP0\(\) hands on \+1300 %.*larger ε"):
        getattr(lrp, method)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(lrp, method)(x)


def test_an_lstm_that_gives_inputs_more_than_is_explained() -> None:
    """One step: a_g = 14 x - 13 = 1, and all relevance of the output goes to a_g, 14 parts to x and -13 to the bias.

    What ε = 0.001 leaves of it, z / (z + ε) each: 1 / 1.001 at a_g = 1, 0.9974 at c = sigmoid(0) tanh(1) = 0.3808, and
    0.9945 in the head, at h = sigmoid(0) tanh(c) = 0.1817. Together 14 * 0.9909 = 13.87.
    """

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 1, batch_first=True), nn.Linear(1, 1, bias=False)
            for parameter in self.parameters():
                nn.init.zeros_(parameter)
            self.lstm.weight_ih_l0.data[2], self.lstm.bias_ih_l0.data[2], self.head.weight.data[:] = 14.0, -13.0, 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    lrp = relprop.LRP(Reader().double())
    with pytest.warns(relprop.RelevanceWarning, match=r"receive 1387 %.* at lstm .*Recurrent\(epsilon=0.001"):
        lrp.attribute(torch.ones(1, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    "net",
    [
        against_its_bias(nn.Linear(1, 1), 2.5, -1.5),
        against_its_bias(nn.Linear(1, 1), 14.0, -13.0)[0],  # its own terms cancel: that is the output as it is
    ],
    ids=["two and a half times", "the last layer"],
)
def test_inputs_that_receive_more_within_reason(net: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relprop.LRP(net, "lrp0").attribute(torch.ones(1, 1, dtype=torch.float64))


def test_relevance_that_stays_in_proportion_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relprop.LRP(cnn(), "epsilon").explain(images())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"record": [3]}, "string.*3"),
        ({"mask": ["conv1"]}, "dict.*conv1"),
        ({"mask": {"conv1": "x"}}, "int.*'x'"),
        ({"mask": {"conv1": lambda a: None}}, "tensor.*None"),
        ({"mask": {"conv1": lambda a: a[:, :, :1, :2]}}, "shape.*does not fit"),
        ({"mask": {"conv1": torch.tensor(float("nan"))}}, "finite"),
        ({"at": 3}, "path.*3"),
        ({"at": ("conv1", 3, 4)}, "path.*conv1"),
    ],
)
def test_malformed_hidden_arguments(arguments: dict, said: str) -> None:
    with pytest.raises(relprop.SelectionError, match=said):
        relprop.LRP(cnn()).explain(images(), 1, **arguments)


def test_record_of_nothing() -> None:
    assert relprop.LRP(cnn()).explain(images(), 1, record=None).relevances == {}
