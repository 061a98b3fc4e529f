"""One capture serves many inputs, and is made anew when it must be."""

from __future__ import annotations

import copy
import random
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops import while_loop
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from transformers import LlamaConfig, LlamaForCausalLM

import relprop
from relprop.capture.control_flow import unrolled

from .models import UNet, assert_balanced, assert_same, cnn, images, mlp, prepared, score


def captures(lrp: relprop.LRP) -> int:
    return sum(len(known) for known in lrp._capturer._captures.values())


def assert_explains(lrp: relprop.LRP, model: nn.Module, x, target=score) -> None:
    """The output is the model's, and the books balance."""
    explanation = lrp.explain(x, target)
    expected = model(x) if isinstance(x, Tensor) else model(*x) if isinstance(x, tuple) else model(**x)
    assert_same(explanation.output, expected, 1e-12)
    assert_balanced(explanation)


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("first", [1, 2, 5])
def test_one_capture_for_every_batch_size(first: int) -> None:
    model = cnn()
    lrp = relprop.LRP(model, "epsilon_plus")
    for batch in (first, 5, 1, 3, 2, 8):
        assert_explains(lrp, model, images(batch))
    assert captures(lrp) == 1


def test_second_image_size() -> None:
    """The first other size opens the dimensions that changed; a third one needs no capture more."""
    model = cnn()
    lrp = relprop.LRP(model, "epsilon_plus")
    for size in (16, 32, 24, 16, 48):
        assert_explains(lrp, model, images(2, size))
    assert_explains(lrp, model, images(5, 32)[..., :16])
    assert captures(lrp) == 2


def test_sizes_of_a_model_that_returns_more_than_tensors() -> None:
    """As the language models of transformers do, whose output holds their cache."""

    class Cache:
        pass

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.layer = nn.Embedding(7, 3), nn.Linear(3, 2)

        def forward(self, ids: Tensor, scale: Tensor) -> dict[str, object]:
            return {"logits": self.layer(self.embedding(ids)) * scale[:, None, None], "cache": Cache()}

    lrp = relprop.LRP(Tagger().double(), "epsilon")
    for batch, length in ((1, 5), (1, 6), (3, 6), (3, 7), (1, 8)):
        inputs = {"ids": torch.randint(7, (batch, length)), "scale": torch.rand(batch, dtype=torch.float64)}
        assert lrp.attribute(inputs, (-1, 1))["ids"].shape == (batch, length)
    assert captures(lrp) == 1


def test_a_language_model_with_its_cache_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As people call it: one prompt, then one of another length. Neither the cache nor the length costs a trace."""
    config = LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, use_cache=True
    )
    model = LlamaForCausalLM(config).double().eval()
    lrp, traces, export = relprop.LRP(model), [], torch.export.export

    def counted(*args: Any, **kwargs: Any) -> Any:
        traces.append("export")
        return export(*args, **kwargs)

    def rewritten(*_: Any) -> Any:
        traces.append("rewritten")
        raise AssertionError

    monkeypatch.setattr(torch.export, "export", counted)
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", rewritten)
    for shape in ((1, 5), (1, 7), (2, 6)):
        inputs = {"input_ids": torch.randint(50, shape)}
        explanation = lrp.explain(inputs, (-1, 3))
        assert torch.allclose(explanation.value, model(**inputs).logits[:, -1, 3].detach(), rtol=1e-6)
    assert traces == ["export"]


def test_sizes_that_torch_cannot_leave_open() -> None:
    """The sizes within this network are more than torch.export can solve for: one capture for each, any batch."""
    model = prepared(UNet())
    lrp = relprop.LRP(model, "epsilon_plus")
    for size in (16, 32, 16, 32):
        for batch in (2, 3):
            assert_explains(lrp, model, images(batch, size))
    assert captures(lrp) == 2


class Branches(nn.Module):
    """Takes another branch for other sizes: what torch.export assumed is checked."""

    def __init__(self):
        super().__init__()
        self.few, self.many, self.odd = (nn.Linear(4, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 3:
            return self.many(x)
        if x.shape[0] % 2 == 0:
            return self.few(x)
        return self.odd(x)


@pytest.mark.parametrize("sizes", [(2, 5, 3, 1, 4), (1, 2, 3, 7), (5, 3, 2, 1)])
def test_model_that_branches_on_the_batch_size(sizes: tuple[int, ...]) -> None:
    model = Branches().double()
    lrp = relprop.LRP(model, "lrp0")
    for n in sizes:
        assert_explains(lrp, model, torch.randn(n, 4).double())


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(2, -1)) if len(x) == 2 else self.fc(x)


def test_model_that_fixes_its_batch_size() -> None:
    model = FixedBatch().double()
    lrp = relprop.LRP(model, "lrp0")
    for n in (2, 4, 1, 2):
        assert_explains(lrp, model, torch.randn(n, 4).double())


def test_captures_are_forgotten_at_last() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).double()
    model(torch.zeros(1, 4).double())

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(tuple(range(1, x.ndim)))

    lrp = relprop.LRP(Mean(), "lrp0")
    for ndim in range(1, 5):
        lrp.attribute(torch.ones(2, *[3] * ndim).double())
    assert captures(lrp) == 4
    assert all(len(known) <= lrp._capturer.limit for known in lrp._capturer._captures.values())


# ------------------------------------------------------------------------------------------------ structure of the call


class Mixed(nn.Module):
    """Image and table together, as in innvestigate#233."""

    def __init__(self):
        super().__init__()
        self.conv, self.table, self.out = nn.Conv2d(3, 4, 3), nn.Linear(5, 4), nn.Linear(8, 3)

    def forward(self, image: Tensor, table: Tensor, scale: float = 1.0) -> Tensor:
        x = F.relu(self.conv(image)).mean((2, 3))
        return self.out(torch.cat([x, F.relu(self.table(table))], 1)) * scale


def mixed() -> tuple[nn.Module, Tensor, Tensor]:
    return prepared(Mixed()), images(2, 8), torch.randn(2, 5).double()


def test_image_and_table_innvestigate_233() -> None:
    model, image, table = mixed()
    lrp = relprop.LRP(model, "lrp0")
    given = [(image, table), {"image": image, "table": table}, {"table": table, "image": image}]
    expected = [v.clone().requires_grad_() for v in (image, table)]
    gradients = torch.autograd.grad(model(*expected)[:, 1].sum(), expected)
    for inputs in given:
        relevance = lrp.attribute(inputs, 1)
        assert type(relevance) is type(inputs)
        pairs = zip((image, table), gradients, strict=True)
        parts = relevance if isinstance(relevance, tuple) else (relevance["image"], relevance["table"])
        for part, (x, gradient) in zip(parts, pairs, strict=True):
            assert_same(part, gradient * x, 1e-10)
    explanation = lrp.explain((image, table), 1)
    assert len(explanation.ledger.inputs) == 2
    assert_balanced(explanation)


@pytest.mark.parametrize("wrt", ["image", "table", ["image"], ["image", "table"]], ids=str)
def test_wrt_by_name(wrt) -> None:
    """What is not explained keeps its share, in the ledger."""
    model, image, table = mixed()
    lrp = relprop.LRP(model, "epsilon")
    both = lrp.explain({"image": image, "table": table}, 1)
    explanation = lrp.explain({"image": image, "table": table}, 1, wrt=wrt)
    for name in ("image", "table"):
        if name in ([wrt] if isinstance(wrt, str) else wrt):
            assert_same(explanation.relevance[name], both.relevance[name], 1e-9)
        else:
            assert explanation.relevance[name] is None
    assert_balanced(explanation)


def test_wrt_by_position() -> None:
    model, image, table = mixed()
    lrp = relprop.LRP(model, "epsilon")
    relevance = lrp.attribute((image, table), 1, wrt=1)
    assert relevance[0] is None
    assert_same(relevance[1], lrp.attribute((image, table), 1)[1], 1e-9)


def test_argument_that_is_no_tensor() -> None:
    model, image, table = mixed()
    lrp = relprop.LRP(model, "lrp0")
    doubled = lrp.attribute({"image": image, "table": table, "scale": 2.0}, 1)
    plain = lrp.attribute({"image": image, "table": table}, 1)
    assert_same(doubled["image"], 2 * plain["image"])
    assert doubled["scale"] is None


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, batch: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return {"out": self.fc(batch["xs"][0] + 2 * batch["xs"][1]), "other": batch["xs"][0]}


def test_nested_inputs() -> None:
    model = Nested().double()
    a, b = torch.randn(2, 4).double(), torch.randn(2, 4).double()
    relevance = relprop.LRP(model, "lrp0").attribute(({"xs": [a, b]},), lambda y: y["out"][:, 1])
    assert_same(relevance[0]["xs"][0], a * model.fc.weight[1].detach())
    assert_same(relevance[0]["xs"][1], 2 * b * model.fc.weight[1].detach())


def test_the_same_tensor_given_twice() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (2 * x + 3 * y).sum(1)

    x = torch.randn(2, 4).double()
    first, second = relprop.LRP(Product(), "lrp0").attribute((x, x))
    assert_same(first, 2 * x)
    assert_same(second, 3 * x)


class Tokens(nn.Module):
    """Integer tokens with a mask, as in innvestigate#113."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids).masked_fill(~mask[..., None], 0.0)
        return self.fc(F.relu(x).sum(1))


def test_integer_tokens_innvestigate_113() -> None:
    model = Tokens().double()
    ids = torch.tensor([[1, 2, 3, 1], [4, 4, 10, 0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    explanation = relprop.LRP(model, "lrp0").explain({"ids": ids, "mask": mask}, 1)
    relevance = explanation.relevance["ids"]
    assert relevance.shape == ids.shape
    assert explanation.relevance["mask"] is None
    expected = (F.relu(model.embed(ids)) @ model.fc.weight[1] * mask).detach()
    assert_same(relevance, expected, 1e-10)
    assert_balanced(explanation)


# ---------------------------------------------------------------------------------------------- what cannot be exported


class DataDependent(nn.Module):
    """Which layer is used depends on a value."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.high(x).relu()
        steps = int(x.abs().sum()) % 3
        for _ in range(steps):
            x = x + 1
        return self.low(x)


def test_control_flow_that_depends_on_data_is_recorded() -> None:
    """One warning, once; every input gets the branch that the model takes for it."""
    model, x = DataDependent().double(), torch.rand(2, 4).double()
    lrp = relprop.LRP(model, "lrp0")
    with pytest.warns(UserWarning, match="recorded") as caught:
        assert_explains(lrp, model, x, 1)
    (message,) = [str(w.message) for w in caught if "recorded" in str(w.message)]
    assert "DataDependent" in message
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*recorded")
        for other in (-x, x, 2 * x, -5 * x, x[:1]):
            assert_explains(lrp, model, other, 1)
            v = other.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(v)[:, 1].sum(), v)
            assert_same(lrp.attribute(other, 1), gradient * other, 1e-10)
    assert captures(lrp) <= 2, "only the last record of a shape is kept"


def test_recorded_parameters_are_live() -> None:
    model, x = DataDependent().double(), torch.rand(2, 4).double()
    lrp = relprop.LRP(model, "lrp0")
    with pytest.warns(UserWarning, match="recorded"):
        lrp.attribute(x, 1)
    with torch.no_grad():
        model.high.weight.mul_(-2)
    assert_explains(lrp, model, x, 1)
    assert str(lrp.plan(x))


# ----------------------------------------------------------------------------------------------------- what is captured


class WeightDependent(nn.Module):
    """Which way is taken depends on values of weights, and a view is changed in place."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if y.sum() > 0:
            y = y * 2
        y[:, 0].mul_(3)
        return y


def test_record_is_made_anew_when_weights_change() -> None:
    model, x = WeightDependent().double(), torch.rand(2, 4).double()
    lrp = relprop.LRP(model, "lrp0")
    with pytest.warns(UserWarning, match="recorded"):
        assert_explains(lrp, model, x, 0)
    for edit in (lambda p: p.mul_(-1), lambda p: p.data.mul_(-1)):
        with torch.no_grad():
            for parameter in model.parameters():
                edit(parameter)
        assert_explains(lrp, model, x, 0)


class Axes(nn.Module):
    """Numbers of the model, which torch.export does not know, decide: so do those of an ONNX file."""

    def __init__(self, looks: bool = False):
        super().__init__()
        self.fc, self.looks = nn.Linear(3, 3), looks
        self.register_buffer("axes", torch.tensor([2, 3]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x.mean(self.axes.tolist())).relu()
        if self.looks:
            return y * (1 + len(torch.unique(x)))
        return y[:, torch.tensor([2, 0, 1])]


def test_record_that_looked_at_parameters_alone_serves_all_inputs() -> None:
    model, x = Axes().double(), torch.rand(2, 3, 4, 4).double()
    lrp = relprop.LRP(model, "lrp0")
    with pytest.warns(UserWarning, match="recorded .* anew whenever the shapes of the inputs, or parameters, change"):
        assert_explains(lrp, model, x, 0)
    for other in (-x, x - 0.5, x[:1], x):
        assert_explains(lrp, model, other, 0)
    assert captures(lrp) == 2, "one for two samples, one for one"
    model.axes.copy_(torch.tensor([3, 2]))
    assert_explains(lrp, model, x, 0)


def test_sizes_that_depend_on_values_are_values() -> None:
    model, x = Axes(looks=True).double(), torch.rand(2, 3, 4, 4).double()
    lrp = relprop.LRP(model, "lrp0")
    with pytest.warns(UserWarning, match="recorded .* anew whenever the inputs change"):
        assert_explains(lrp, model, x, 0)
    for other in (x.round(decimals=1), torch.ones_like(x)):
        assert_explains(lrp, model, other, 0)


def test_using_shares_the_capture() -> None:
    lrp, x = relprop.LRP(cnn(), "lrp0"), images()
    for composite in ("epsilon", "gamma", "epsilon_plus"):
        other = lrp.using(composite, bias="zero")
        other.attribute(x)
        assert other._capturer is lrp._capturer
        assert other.composite.name == composite
        assert other.bias == "zero"
    assert captures(lrp) == 1
    assert lrp.bias == "absorb"


def test_double_and_single_precision_are_two_captures() -> None:
    model = mlp(4, 3)
    lrp = relprop.LRP(model, "lrp0")
    x = torch.randn(2, 4)
    lrp.attribute(x.double())
    model.float()
    assert lrp.attribute(x).dtype == torch.float32
    assert captures(lrp) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_lxt_27(dtype: torch.dtype) -> None:
    """LXT#27, captum#835: finite, in single precision, and close to what single precision gives."""
    model, x = cnn().float(), images().float()
    single = relprop.LRP(model, "epsilon_plus").attribute(x, 1)
    half = relprop.LRP(copy.deepcopy(model).to(dtype), "epsilon_plus").attribute(x.to(dtype), 1)
    assert half.dtype == torch.float32
    assert torch.isfinite(half).all()
    cosine = F.cosine_similarity(half.flatten(), single.flatten(), dim=0)
    assert cosine > 0.95
    assert half.sum() == pytest.approx(single.sum().item(), rel=0.1)


def test_constants_made_in_forward() -> None:
    class Adds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            table = torch.tensor([1.0, -2.0, 3.0], dtype=x.dtype)
            return x * table + torch.arange(3).to(x)

    x = torch.randn(2, 3).double()
    explanation = relprop.LRP(Adds(), "lrp0").explain(x, 1)
    assert_same(explanation.output, Adds()(x), 1e-12)
    assert_same(explanation.relevance[:, 1], -2 * x[:, 1])
    assert_balanced(explanation)


def test_unused_input_gets_zero() -> None:
    class Ignores(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x.sum(1) + 0 * y.shape[1]

    x = torch.randn(2, 3).double()
    explanation = relprop.LRP(Ignores(), "lrp0").explain((x, x))
    assert_same(explanation.relevance[0], x)
    assert not explanation.relevance[1].any()
    assert_balanced(explanation)


def test_model_without_parameters_or_operations() -> None:
    x = torch.randn(3, 4).double()
    explanation = relprop.LRP(nn.Identity(), "lrp0").explain(x, 2)
    assert torch.equal(explanation.relevance[:, 2], x[:, 2])
    assert explanation.relevance.count_nonzero() == 3
    assert_balanced(explanation)


class Alone(nn.Module):
    """A model that treats a single sample, or a single step, in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) * (10 if x.shape[0] == 1 else 1)
        return y.sum(1) * (100 if x.shape[1] == 1 else 1)


@pytest.mark.parametrize("order", [[1, 2, 1, 3], [2, 1, 3, 1]])
@pytest.mark.parametrize("step", [True, False])
def test_a_branch_for_exactly_one_sample_or_step(order: list[int], step: bool) -> None:
    """Every call is explained by the branch that the model takes for it."""
    model = prepared(Alone())
    lrp = relprop.LRP(model, "lrp0")
    for n in order:
        x = torch.randn(2, n, 3, dtype=torch.float64) if step else torch.randn(n, 2, 3, dtype=torch.float64)
        scale = (10 if len(x) == 1 else 1) * (100 if x.shape[1] == 1 else 1)
        explanation = lrp.explain(x, 1)
        assert_same(explanation.output, model(x).detach())
        assert_same(explanation.relevance, scale * x * model.linear.weight[1].detach())


def test_one_sample_may_be_as_others_where_one_step_is_not() -> None:
    class AloneInTime(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum((1, 2))[:, None] * (100 if x.shape[1] == 1 else 1)

    lrp = relprop.LRP(AloneInTime())
    for samples, steps in ((2, 2), (2, 3), (1, 3), (2, 1)):
        x = torch.rand(samples, steps, 3, dtype=torch.float64)
        assert_same(lrp.attribute(x, 0), x * (100 if steps == 1 else 1))


def test_one_sample_is_captured_once_where_it_takes_no_branch_of_its_own() -> None:
    lrp = relprop.LRP(cnn())
    graphs = {id(lrp.plan(images(n, 16)).graph) for n in (1, 2, 1, 3)}
    assert len(graphs) == 1


def test_comparing_a_single_sample_leaves_the_model_and_chance_alone() -> None:
    """A buffer that the model writes to, and the state of the random numbers."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * 2

    model, before = Counting(), torch.get_rng_state()
    relprop.LRP(model).attribute(torch.rand(1, 3, generator=torch.Generator().manual_seed(0)), 0)
    assert model.calls == 0
    assert torch.equal(torch.get_rng_state(), before)


class Changes(nn.Module):
    """Changes tensors in place, some of which others still look at."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.how == "unseen":
            y = y.relu_().add_(1).mul_(2)
        elif self.how == "seen through a view":
            view = y.view(-1)
            y.relu_()
            y = y + view.view_as(y)
        elif self.how == "seen through an identity":
            kept = y
            y = nn.functional.dropout(y, training=False).relu_() + kept
        elif self.how == "seen later":
            kept = y
            y.add_(self.second(x)).relu_()
            y = y + 2 * kept
        elif self.how == "an input":
            x.mul_(2)
            y = y + x
        elif self.how == "a part":
            y[:, 1:3] = 0
            y[:, 0].mul_(3)
        return self.second(y)


@pytest.mark.parametrize(
    "how", ["unseen", "seen through a view", "seen through an identity", "seen later", "an input", "a part"]
)
def test_what_a_model_changes_in_place_is_seen_by_all_who_look(how: str) -> None:
    torch.manual_seed(0)
    model, x = Changes(how).double(), torch.randn(3, 4, dtype=torch.float64)
    explanation = relprop.LRP(model, composite="lrp0").explain(x.clone(), target=1)
    with torch.no_grad():
        steps = 1e-6 * torch.eye(4, dtype=torch.float64)  # autograd itself refuses some of these
        slopes = [(model(x + step)[:, 1] - model(x - step)[:, 1]) / 2e-6 for step in steps]
        assert_same(explanation.output, model(x.clone()), 1e-12)
    assert_same(explanation.relevance, torch.stack(slopes, 1) * x, 1e-7)


@pytest.mark.parametrize("decomposed", [False, True])
def test_an_exported_program_is_left_as_it_is(decomposed: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU(inplace=True)).eval()
    x = torch.randn(2, 1, 6, 6)
    program = torch.export.export(model, (x,))
    program = program.run_decompositions({}) if decomposed else program
    before = str(program.graph)
    relprop.LRP(program).attribute(x, target=(0, 1, 1))
    assert str(program.graph) == before


class MovesAndCasts(nn.Module):
    """Brings a parameter to the device and precision of something else, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.linear = nn.Parameter(torch.rand(4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.to(x.device, torch.float32) * torch.ones((), dtype=torch.float32)
        return self.linear(x * scale.to(x.device, x.dtype))


def test_a_cast_that_names_a_device_is_left_out_in_double_precision_too() -> None:
    torch.manual_seed(0)
    model, x = MovesAndCasts().double(), torch.randn(2, 4, dtype=torch.float64)
    explanation = relprop.LRP(model).explain(x, target=1)
    assert_same(explanation.output, model(x), 1e-6)  # the model itself rounds to single precision
    assert_balanced(explanation)


# ------------------------------------------------------------------------------- the graph computes what the model does


def wrongly(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Let every capture have a fault."""
    import relprop.capture.record
    import relprop.capture.source

    made = relprop.capture.source.to_graph

    def faulty(*args, **kwargs):
        graph = made(*args, **kwargs)
        for node in graph.nodes:
            change(node)
        return graph

    monkeypatch.setattr(relprop.capture.source, "to_graph", faulty)
    monkeypatch.setattr(relprop.capture.record, "to_graph", faulty)


def negated(node: torch.fx.Node) -> None:
    if node.target is torch.ops.aten.relu.default:
        node.target = torch.ops.aten.neg.default


@pytest.mark.parametrize("model", [cnn, DataDependent], ids=["exported", "recorded"])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.filterwarnings("ignore:.*recorded")
def test_a_graph_that_computes_something_else_is_not_explained(model, samples, monkeypatch) -> None:
    wrongly(monkeypatch, negated)
    x = images(samples) if model is cnn else torch.rand(samples, 4).double()
    lrp = relprop.LRP(model().double())
    for _ in range(2):
        with pytest.raises(relprop.CaptureError, match=r"not compute what the model computes.* differs by"):
            lrp.attribute(x, 1)


def test_a_small_fault_in_double_precision_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """1e-5 of the output; rounding is 1e-15."""

    def scaled(node: torch.fx.Node) -> None:
        if node.target is torch.ops.aten.mul.Tensor:
            node.args = (node.args[0], 2 * (1 + 1e-5))

    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    wrongly(monkeypatch, scaled)
    with pytest.raises(relprop.CaptureError, match="differs by"):
        relprop.LRP(Doubles()).attribute(torch.rand(2, 3).double(), 1)


def test_rounding_is_no_difference() -> None:
    """0.1 + 0.2 - 0.3 in single precision, by way of large numbers that cancel: only rounding is left."""

    class Cancels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(64, 64), nn.BatchNorm1d(64)
            self.norm.running_mean.fill_(100.0)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.first(x * 1000))
            return (y.sum(1) - self.norm(self.first(x * 1000.0001)).sum(1))[:, None]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", relprop.RelevanceWarning)
        relprop.LRP(Cancels().eval(), "lrp0").attribute(torch.rand(2, 64))


class Noisy(nn.Module):
    def __init__(self, how: str):
        super().__init__()
        self.how, self.fc, self.random = how, nn.Linear(3, 2), random.Random()

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if self.how == "torch":
            return y + torch.randn_like(y)
        if self.how == "numpy":
            return y + np.random.rand()  # noqa: NPY002
        if self.how == "its own":
            return y + self.random.random()
        if self.how == "branch" and torch.rand(()) < 0.5:
            return 2 * y
        return y + time.perf_counter_ns() % 1000 if self.how == "time" else y


@pytest.mark.parametrize("how", ["torch", "numpy", "its own", "time", "branch"])
@pytest.mark.filterwarnings("ignore:.*recorded")
def test_a_random_model_is_told_so(how: str) -> None:
    with pytest.raises(relprop.CaptureError, match="random"):
        relprop.LRP(Noisy(how).double()).attribute(torch.rand(2, 3).double(), 1)


def test_random_numbers_that_have_no_say_are_no_matter() -> None:
    """The mean of a variational model can be explained, though it also returns a sample."""

    class Variational(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 2 * x, 2 * x + torch.randn_like(x)

    x, lrp = torch.rand(2, 3).double(), relprop.LRP(Variational(), "lrp0")
    assert_same(lrp.attribute(x, lambda out: out[0][:, 1])[:, 1], 2 * x[:, 1])
    with pytest.raises(relprop.CaptureError, match=r"random.*randn_like.*test_capture\.py"):
        lrp.attribute(x, lambda out: out[1][:, 1])


def test_an_exported_program_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    program = torch.export.export(cnn(), (images(),))
    relprop.LRP(program).attribute(images(), 1)
    wrongly(monkeypatch, negated)
    with pytest.raises(relprop.CaptureError, match="the exported program does not compute"):
        relprop.LRP(program).attribute(images(), 1)


def test_a_number_that_changes_at_every_call() -> None:
    """Captures of numbers are bounded, too."""
    model, image, table = mixed()
    lrp = relprop.LRP(model, "lrp0")
    lrp._capturer.limit = 3
    plain = lrp.attribute((image, table), 1)
    for scale in (2.0, 3.0, 4.0, 5.0, 2.0):
        assert_same(lrp.attribute((image, table, scale), 1)[0], scale * plain[0])
    assert captures(lrp) <= 3


# --------------------------------------------------------------------------------------- gradient modes in the forward


class Blocks(nn.Module):
    """y = relu(a x + b(a x)) with a = 2, b = 3: R = 8 x; every part under a gradient mode of its own."""

    def __init__(self, mode: Any, skip: bool = True):
        super().__init__()
        self.mode, self.skip = mode, skip
        self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.a.weight.data, self.b.weight.data = 2 * torch.eye(2), 3 * torch.eye(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        with self.mode():
            y = self.b(h)
            with torch.no_grad():
                y = y * 1
                with torch.enable_grad():
                    y = y + 0
        return torch.relu(h + y if self.skip else y)


MODES = {
    "enable": torch.enable_grad,
    "no": torch.no_grad,
    "on": lambda: torch.set_grad_enabled(True),
    "off": lambda: torch.set_grad_enabled(False),
    "inference": torch.inference_mode,
    "no inference": lambda: torch.inference_mode(False),
}


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_gradient_modes_in_the_forward_stop_nothing(mode: str, skip: bool, samples: int) -> None:
    """Relevance does not ask whether gradients are on: what is to be held constant is detached."""
    model, x = Blocks(MODES[mode], skip).double().eval(), torch.rand(samples, 2, dtype=torch.float64)
    explanation = relprop.LRP(model, "lrp0").explain(x, 1, record=["a", "b"])
    assert_same(explanation.relevance[:, 1], (8 if skip else 6) * x[:, 1], 1e-12)
    assert_same(explanation.relevances["b"][:, 1], 6 * x[:, 1], 1e-12)
    assert "stopped" not in explanation.ledger.by_kind()


class BranchesInBlock(Blocks):
    """Recorded, as it looks at a value."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:.*recorded")
def test_gradient_modes_of_a_recorded_model(mode: str) -> None:
    model, x = BranchesInBlock(MODES[mode]).double().eval(), torch.rand(2, 2, dtype=torch.float64)
    assert_same(relprop.LRP(model, "lrp0").attribute(x, 1)[:, 1], 8 * x[:, 1], 1e-12)


@pytest.mark.parametrize("mode", ["enable", "no", "on", "off"])
def test_gradient_modes_of_an_exported_program(mode: str) -> None:
    x = torch.rand(2, 2, dtype=torch.float64)
    program = torch.export.export(Blocks(MODES[mode]).double().eval(), (x,))
    assert_same(relprop.LRP(program, "lrp0").attribute(x, 1)[:, 1], 8 * x[:, 1], 1e-12)


# ---------------------------------------------------------------------------------------- operators that call functions


class Cond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.high(x) * 2, self.low, (x,))


class CondOnSizes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.shape[0] > 1, lambda x: x * 2, lambda x: x * 3, (x,))


class While(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x))[1]


class Mapped(nn.Module):
    """Over features, so that samples stay open."""

    def forward(self, x: Tensor) -> Tensor:
        return map_rows(lambda row, factor: row * factor, x.t(), torch.tensor(3.0, dtype=x.dtype)).t()


class Scanned(nn.Module):
    """Sums of the first features, and their total."""

    def forward(self, x: Tensor) -> Tensor:
        total, sums = scan(lambda state, row: (state + row, state + 2 * row), torch.zeros_like(x[:, 0]), x.t())
        return sums.t() + total[:, None]


class ScannedAtOnce(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return associative_scan(lambda a, b: a + b, x, dim=1, combine_mode="generic")


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("kind", [Cond, CondOnSizes, While, Mapped, Scanned, ScannedAtOnce], ids=lambda k: k.__name__)
@pytest.mark.filterwarnings("ignore:.*recorded", "ignore::relprop.RelevanceWarning")
def test_operators_that_call_functions_are_the_python_that_they_stand_for(kind: type, samples: int) -> None:
    """All are linear: relevance is gradient × input."""
    model = kind().double()
    lrp = relprop.LRP(model, "lrp0")
    for sign in (1, -1):
        x = sign * torch.rand(samples, 3, dtype=torch.float64)
        explanation = lrp.explain(x, 1)
        with unrolled(), torch.enable_grad():
            v = x.clone().requires_grad_()
            expected = model(v)
            (gradient,) = torch.autograd.grad(expected[:, 1].sum(), v)
        assert_same(explanation.output, expected.detach(), 1e-12)
        assert_same(explanation.relevance, gradient * x, 1e-12)


def test_an_exported_program_with_branches_is_recorded() -> None:
    model, x = Cond().double(), torch.rand(2, 3, dtype=torch.float64)
    lrp = relprop.LRP(torch.export.export(model, (x,)), "lrp0")
    with pytest.warns(UserWarning, match="program has branches or loops that depend on values.*recorded"):
        assert_same(lrp.attribute(x, 1), 2 * x * model.high.weight[1].detach(), 1e-12)
    assert_same(lrp.attribute(-x, 1), -x * model.low.weight[1].detach(), 1e-12)


@pytest.mark.parametrize("how", ["scores", "mask"])
def test_flex_attention_is_attention(how: str) -> None:
    """The same numbers as attention by softmax(q kᵀ / √d + bias) v, with the bias that its function or mask makes."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    class Flex(nn.Module):
        def __init__(self, flex: bool):
            super().__init__()
            self.flex, self.qkv = flex, nn.Linear(4, 12)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x)[:, None].chunk(3, -1)
            i = torch.arange(5)
            if self.flex and how == "scores":
                y = flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + 0.1 * (i - j))
            elif self.flex:
                mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 5, 5, device="cpu")
                y = flex_attention(q, k, v, block_mask=mask)
            else:
                bias = 0.1 * (i[:, None] - i) if how == "scores" else torch.where(i[:, None] >= i, 0.0, -torch.inf)
                y = torch.softmax(q @ k.transpose(-1, -2) / 2 + bias, -1) @ v
            return y[:, 0].sum(1)

    torch.manual_seed(0)
    flex, plain = Flex(True).double(), Flex(False).double()
    plain.load_state_dict(flex.state_dict())
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    found, expected = (relprop.LRP(m, "attnlrp").explain(x, 1) for m in (flex, plain))
    assert_same(found.output, expected.output, 1e-12)
    assert_same(found.relevance, expected.relevance, 1e-10)


def test_refusals_of_torch_are_not_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="recorded"):
        relprop.LRP(DataDependent().double()).attribute(torch.rand(2, 4).double(), 1)
    assert "".join(capfd.readouterr()) == ""


# ------------------------------------------------------------------------------------ weights that a forward writes to


class Constrained(nn.Linear):
    """w = (3, 4) is brought to the norm 1: (0.6, 0.8)."""

    how = "data"

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "data":
            self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=1.0)
        elif self.how == "copy":
            with torch.no_grad():
                self.weight.copy_(torch.renorm(self.weight, p=2, dim=0, maxnorm=1.0))
        else:
            self.weight.data.renorm_(p=2, dim=0, maxnorm=1.0)
        return x if self.how == "branch" and x.sum() > 1e9 else super().forward(x)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("how", ["data", "copy", "in place", "branch"])
@pytest.mark.filterwarnings("ignore:.*recorded")
def test_weights_that_the_forward_assigns_are_those_that_are_explained(how: str, samples: int) -> None:
    """As EEGNet keeps them below a norm. The user's own are as they were."""
    model = Constrained(2, 1, bias=False).double().eval()
    model.how, model.weight.data = how, torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    before = model.weight.data_ptr(), model.weight._version
    x = torch.tensor([[1.0, 2.0], [5.0, 5.0]], dtype=torch.float64)[:samples]
    lrp = relprop.LRP(model, "lrp0")
    for _ in range(2):
        explanation = lrp.explain(x)
        assert_same(explanation.output, x @ torch.tensor([[0.6], [0.8]], dtype=torch.float64), 1e-6)
        assert_same(explanation.relevance, x * torch.tensor([0.6, 0.8], dtype=torch.float64), 1e-6)
    assert model.weight.tolist() == [[3.0, 4.0]]
    assert before == (model.weight.data_ptr(), model.weight._version)
