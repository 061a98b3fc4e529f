"""What is explained: every form of target, on every form of output."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import TargetError, targets

from .models import UNet, assert_balanced, assert_same, cnn, images, mlp, prepared


@pytest.fixture(scope="module")
def lrp() -> relprop.LRP:
    return relprop.LRP(cnn(), "epsilon_plus")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return images(4)


def by_gradient(model: nn.Module, x: Tensor, target) -> Tensor:
    """Gradient x input: LRP-0 of a ReLU network."""
    v = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(model(v)).sum(), v)
    return gradient * x


# ---------------------------------------------------------------------------------------------------------- index forms


def test_none_is_the_predicted_class(lrp: relprop.LRP, x: Tensor) -> None:
    explanation = lrp.explain(x)
    classes = explanation.output.argmax(1)
    assert torch.equal(explanation.target, classes)
    assert_same(explanation.value, explanation.output.max(1).values)
    assert_same(explanation.relevance, lrp.attribute(x, classes))
    assert_balanced(explanation)


@pytest.mark.parametrize("c", [0, 1, 2, -1])
def test_class_that_was_not_predicted(lrp: relprop.LRP, x: Tensor, c: int) -> None:
    explanation = lrp.explain(x, c)
    assert torch.equal(explanation.target, torch.full((4,), c % 3))
    assert_same(explanation.value, explanation.output[:, c])
    assert_same(explanation.ledger.seed, explanation.output[:, c])
    assert_balanced(explanation)
    model = lrp._capturer.model
    assert_same(lrp.using("lrp0").attribute(x, c), by_gradient(model, x, lambda y: y[:, c]), 1e-10)


def test_forms_that_mean_the_same(lrp: relprop.LRP, x: Tensor) -> None:
    expected = lrp.attribute(x, 2)
    for target in ((2,), -1, torch.tensor(2), torch.full((4,), 2), (torch.full((4,), 2),), lambda y: y[:, 2]):
        assert_same(lrp.attribute(x, target), expected, 1e-12)
    for integer in (torch.int32, torch.uint8):
        assert_same(lrp.attribute(x, torch.full((4,), 2, dtype=integer)), expected, 1e-12)


def test_one_class_per_sample(lrp: relprop.LRP, x: Tensor) -> None:
    classes = torch.tensor([2, 0, 1, 2])
    relevance = lrp.attribute(x, classes)
    for i, c in enumerate(classes.tolist()):
        assert_same(relevance[i : i + 1], lrp.attribute(x[i : i + 1], c))


class Head(nn.Module):
    """A network with another shape of output."""

    def __init__(self, kind: str):
        super().__init__()
        self.net, self.kind = mlp(6, 8, 4), kind

    def forward(self, x: Tensor):
        y = self.net(x)
        if self.kind == "vector":
            return y[:, 1]
        if self.kind == "column":
            return y[:, 1:2]
        if self.kind == "sequence":
            return y.reshape(-1, 2, 2)
        if self.kind == "tuple":
            return y[:, :2], y[:, 2:] * 2
        if self.kind == "dict":
            return {"first": y[:, :2], "second": {"inner": y[:, 2:]}}
        if self.kind == "logits":
            return {"logits": y, "features": x * 2}
        if self.kind == "out":
            return {"out": y.reshape(-1, 2, 2), "aux": y * 3}
        assert self.kind == "dataclass"
        return Output(scores=y, note="text", loss=None)


@dataclass
class Output:
    scores: Tensor
    note: str
    loss: Tensor | None


torch.export.register_dataclass(Output, serialized_type_name="relprop_tests.Output")


def head(kind: str) -> tuple[relprop.LRP, Tensor]:
    torch.manual_seed(0)
    return relprop.LRP(Head(kind).double().eval(), "lrp0"), torch.randn(3, 6).double()


PLAIN = lambda y: y[:, 1]  # noqa: E731


@pytest.mark.parametrize(("kind", "target"), [("vector", None), ("vector", 0), ("column", None), ("column", 0)])
def test_output_of_one_number(kind: str, target: int | None) -> None:
    lrp, x = head(kind)
    explanation = lrp.explain(x, target)
    assert_same(explanation.relevance, by_gradient(lrp._capturer.model.net, x, PLAIN), 1e-10)
    assert explanation.value.shape == (3,)
    assert_balanced(explanation)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("sequence", (0, 1)),
        ("sequence", (torch.tensor([0, 0, 0]), 1)),
        ("sequence", (-2, -1)),
        ("sequence", lambda y: y[:, 0, 1]),
        ("tuple", lambda y: y[0][:, 1]),
        ("dict", lambda y: y["first"][:, 1]),
        ("logits", 1),
        ("logits", lambda y: y["logits"][:, 1]),
        ("out", (0, 1)),
        ("dataclass", lambda y: y.scores[:, 1]),
        ("dataclass", 1),
    ],
    ids=lambda v: v if isinstance(v, str) else "function" if callable(v) else str(v),
)
def test_outputs_of_every_structure_zennit_170(kind: str, target) -> None:
    """zennit#170, LXT#39: tuples, dicts and dataclasses, by index where there is one tensor of scores."""
    lrp, x = head(kind)
    explanation = lrp.explain(x, target)
    assert_same(explanation.relevance, by_gradient(lrp._capturer.model.net, x, PLAIN), 1e-10)
    assert type(explanation.output) is type(lrp._capturer.model(x))
    assert_balanced(explanation)


def test_function_of_two_outputs() -> None:
    lrp, x = head("tuple")
    explanation = lrp.explain(x, lambda y: y[0][:, 1] - 3 * y[1][:, 0])
    net = lrp._capturer.model.net
    assert_same(explanation.relevance, by_gradient(net, x, lambda y: y[:, 1] - 6 * y[:, 2]), 1e-10)
    assert_balanced(explanation)


# ------------------------------------------------------------------------------------------------------------ functions


def test_logit_difference(lrp: relprop.LRP, x: Tensor) -> None:
    relevance = lrp.attribute(x, lambda y: y[:, 2] - y[:, 0])
    assert_same(relevance, lrp.attribute(x, 2) - lrp.attribute(x, 0), 1e-9)


def test_pixel_mask_grad_cam_109() -> None:
    """A region of a segmentation, as grad-cam#109 asks for: only pixels in reach of it have relevance."""
    model, x = (
        prepared(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))),
        images(2, 16),
    )
    mask = torch.zeros(16, 16).double()
    mask[4:8, 4:8] = 1
    explanation = relprop.LRP(model, "epsilon_plus").explain(x, lambda y: (y[:, 1] * mask).sum((1, 2)))
    inside = explanation.relevance[..., 2:10, 2:10].count_nonzero()
    assert inside == explanation.relevance.count_nonzero() > 0
    assert_same(explanation.value, (model(x)[:, 1] * mask).sum((1, 2)).detach())
    assert_balanced(explanation)


def test_function_that_is_not_linear(lrp: relprop.LRP, x: Tensor) -> None:
    """Relevance starts as the function's gradient times the output; the ledger says what that leaves out."""
    explanation = lrp.explain(x, lambda y: torch.softmax(y, 1)[:, 1])
    assert_same(explanation.ledger.seed, torch.softmax(explanation.output, 1)[:, 1])
    assert any(kind == "target" for kind, _ in explanation.ledger.sinks)
    assert_balanced(explanation)
    shifted = lrp.explain(x, lambda y: y[:, 1] + 5)
    assert_same(shifted.relevance, lrp.attribute(x, 1))
    assert_same(shifted.ledger.by_kind()["target"], torch.full((4,), 5.0).double())
    assert_balanced(shifted)


def test_function_is_called_with_the_model_s_output(lrp: relprop.LRP, x: Tensor) -> None:
    seen = []

    def target(y: Tensor) -> Tensor:
        seen.append(y.detach())
        return y[:, 0]

    lrp.attribute(x, target)
    (output,) = seen
    assert_same(output, lrp._capturer.model(x).detach(), 1e-12)


def test_function_of_a_single_sample_may_return_a_number(lrp: relprop.LRP, x: Tensor) -> None:
    assert_same(lrp.attribute(x[:1], lambda y: y[0, 1]), lrp.attribute(x[:1], 1))


# -------------------------------------------------------------------------------------------------------------- several


@pytest.mark.parametrize("given", [[0, 2, None], targets.several([0, 2, None])], ids=["list", "several"])
def test_several_targets(lrp: relprop.LRP, x: Tensor, given) -> None:
    relevance = lrp.attribute(x, given)
    assert relevance.shape == (3, *x.shape)
    for i, target in enumerate((0, 2, None)):
        assert_same(relevance[i], lrp.attribute(x, target), 1e-12)
    explanation = lrp.explain(x, given, record="conv1")
    assert_same(explanation.relevance, relevance, 1e-12)
    assert explanation.value.shape == (3, 4)
    assert len(explanation.ledger) == 3
    assert explanation.relevances["conv1"].shape == (3, 4, 4, 32, 32)
    for ledger, part in zip(explanation.ledger, relevance, strict=True):
        assert_same(ledger.received, part.flatten(1).sum(1))


def test_several_targets_run_the_model_once(monkeypatch: pytest.MonkeyPatch, lrp: relprop.LRP, x: Tensor) -> None:
    from relprop.engine import run as module

    runs = []
    original = module.Run.__init__

    def counted(self, *args, **kwargs):
        runs.append(1)
        original(self, *args, **kwargs)

    monkeypatch.setattr(module.Run, "__init__", counted)
    lrp.attribute(x, [0, 1, 2])
    assert len(runs) == 1


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_a_list_of_as_many_numbers_as_samples_could_mean_two_things(
    lrp: relprop.LRP, x: Tensor, micro_batch: int | None
) -> None:
    for target in ([0, 1, 2, 0], [np.int64(1)] * 4):
        with pytest.raises(TargetError, match="as many numbers as there are samples, 4") as refusal:
            lrp.attribute(x, target, micro_batch=micro_batch)
        assert "torch.tensor([" in str(refusal.value)
        assert "relprop.targets.several([" in str(refusal.value)
    assert lrp.attribute(x, targets.several([0, 1, 2, 0]), micro_batch=micro_batch).shape == (4, *x.shape)
    assert lrp.attribute(x, [0, 1, 2], micro_batch=micro_batch).shape == (3, *x.shape)
    assert lrp.attribute(x, [0, 1, 2, None], micro_batch=micro_batch).shape == (4, *x.shape)
    assert lrp.attribute(x[:1], [2], micro_batch=micro_batch).shape == (1, 1, *x.shape[1:])


def test_the_predicted_class_among_others(lrp: relprop.LRP, x: Tensor) -> None:
    """-1 is the last class; the predicted one has a number of its own."""
    predicted = lrp._capturer.model(x).argmax(1)
    mixed = torch.tensor([-1, targets.PREDICTED, 0, targets.PREDICTED])
    expected = torch.stack([torch.tensor(2), predicted[1], torch.tensor(0), predicted[3]])
    explanation = lrp.explain(x, mixed)
    assert torch.equal(explanation.target, expected)
    assert torch.equal(explanation.relevance, lrp.attribute(x, expected))
    assert torch.equal(lrp.attribute(x, targets.PREDICTED), lrp.attribute(x))


def test_several_of_mixed_forms(lrp: relprop.LRP, x: Tensor) -> None:
    classes = torch.tensor([0, 1, 2, 0])
    relevance = lrp.attribute(x, [classes, lambda y: y[:, 1] - y[:, 0], (2,)])
    assert_same(relevance[0], lrp.attribute(x, classes))
    assert_same(relevance[1], lrp.attribute(x, 1) - lrp.attribute(x, 0), 1e-9)
    assert_same(relevance[2], lrp.attribute(x, 2))


# ----------------------------------------------------------------------------------------------------------------- seed


def test_unit_seed(lrp: relprop.LRP, x: Tensor) -> None:
    """Relevance starts as one, whatever the sign of the output."""
    explanation = lrp.explain(x, 1, seed="unit")
    value = lrp.explain(x, 1).value
    assert_same(explanation.relevance * value[:, None, None, None], lrp.attribute(x, 1), 1e-9)
    assert_same(explanation.ledger.seed, torch.ones(4).double())
    assert_balanced(explanation)


def test_unit_seed_with_a_function_and_with_several(lrp: relprop.LRP, x: Tensor) -> None:
    both = lrp.attribute(x, [1, lambda y: y[:, 1]], seed="unit")
    assert_same(both[0], both[1], 1e-12)
    assert_same(both[0], lrp.attribute(x, 1, seed="unit"), 1e-12)


def test_four_layer_mlp_sums_to_the_seed_zennit_213() -> None:
    """zennit#213: without biases the sum is once the seed, at any depth."""
    for depth in range(1, 6):
        torch.manual_seed(depth)
        model, x = mlp(6, *[8] * (depth - 1), 3, bias=False), torch.randn(4, 6).double()
        lrp = relprop.LRP(model, "lrp0")
        assert_same(lrp.attribute(x, 1).sum(1), model(x)[:, 1].detach(), 1e-9)
        if (model(x)[:, 1].abs() > 1e-9).all():
            assert_same(lrp.attribute(x, 1, seed="unit").sum(1), torch.ones(4).double(), 1e-9)


def test_output_that_is_zero() -> None:
    model = mlp(4, 3, bias=False)
    with torch.no_grad():
        model[0].weight.zero_()
    x = torch.randn(2, 4).double()
    for seed in ("output", "unit"):
        assert torch.isfinite(relprop.LRP(model, "epsilon").attribute(x, 1, seed=seed)).all()


def test_segmentation_by_index() -> None:
    model, x = prepared(UNet()), images(2, 16)
    explanation = relprop.LRP(model, "epsilon").explain(x, (3, 5, 6))
    assert_same(explanation.value, model(x)[:, 3, 5, 6].detach())
    assert_balanced(explanation)


@dataclass
class Found:
    """What torch does not know: a dataclass that nobody registered."""

    logits: Tensor
    hidden: dict[str, Tensor]
    note: object = None


class ReturnsDataclass(nn.Module):
    def __init__(self, look: bool = False) -> None:
        super().__init__()
        self.linear, self.look = nn.Linear(3, 2), look

    def forward(self, x: Tensor) -> object:
        y = self.linear(x)
        if self.look and float(y.detach().sum()) > 1e9:  # a look at values: the model is recorded
            y = 2 * y
        return Found(y, {"twice": 2 * y}, object())


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.filterwarnings("ignore:ReturnsDataclass cannot be exported")
@pytest.mark.parametrize("look", [False, True])
def test_output_that_is_a_dataclass(look: bool, samples: int) -> None:
    model, x = ReturnsDataclass(look).double(), torch.randn(samples, 3, dtype=torch.float64)
    lrp, by_hand = relprop.LRP(model, "lrp0"), x * model.linear.weight[1].detach()
    assert_same(lrp.attribute(x, 1), by_hand)
    assert_same(lrp.attribute(x, lambda found: found.hidden["twice"][:, 1]), 2 * by_hand)
    output = lrp.explain(x, 1).output
    assert_same(output.logits, model(x).logits.detach())
    for again in (copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert_same(again.logits, output.logits)
    with pytest.raises(TargetError, match="has the fields logits, hidden, note, but no 'scores'"):
        lrp.attribute(x, lambda found: found.scores[:, 0])


def test_output_without_a_tensor_to_be_seen() -> None:
    class Hides(ReturnsDataclass):
        def forward(self, x: Tensor) -> object:
            return object()

    with pytest.raises(relprop.CaptureError, match=r"Hides returns object.*Wrap it"):
        relprop.LRP(Hides()).attribute(torch.rand(1, 3), 0)


def test_a_target_function_that_raises_is_named_with_what_it_was_given() -> None:
    def wrong_key(output):
        return output["scores"][:, 0]

    class TwoOutputs(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": x * 2, "hidden": x[:, :1]}

    x = torch.rand(2, 3)
    message = r"'wrong_key' raised KeyError: 'scores'.* a dict \(output\['logits'\]: \(2, 3\) torch.float32; output"
    with pytest.raises(TargetError, match=message) as caught:
        relprop.LRP(TwoOutputs()).attribute(x, wrong_key)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(TargetError, match="raised IndexError: index 7 is out of bounds"):
        relprop.LRP(nn.Linear(3, 2)).explain(x, lambda y: y[:, 7])


def test_target_that_is_only_a_statistic_names_what_stands_in_between() -> None:
    class Votes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sign().sum(1)

    with pytest.raises(TargetError, match=r"explained, but by way of .*sign.* held constant"):
        relprop.LRP(Votes()).attribute(torch.rand(2, 3))
