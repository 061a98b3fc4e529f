"""Rounded numbers are explained as they are; integers that are packed away are refused with the reason."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import CaptureError

from . import _torchvision  # noqa: F401  (before torchao is imported)
from .models import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:.*quant", "ignore:Please use quant_min", "ignore:.*TypedStorage")
x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


class Rounded(nn.Module):
    """W f(x), f(x) rounded to multiples of ½ between -1 and ¾: the relevance of f(x) is that of x."""

    def __init__(self, how: str):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(4, 3, bias=False).double(), how

    def forward(self, x: Tensor) -> Tensor:
        scale, zero = torch.tensor(0.5), torch.tensor(1)
        if self.how == "numbers":
            return self.layer(torch.fake_quantize_per_tensor_affine(x, 0.5, 1, -1, 2))
        if self.how == "tensors":
            return self.layer(torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), -1, 2))
        rounded = torch.fake_quantize_per_channel_affine(x, scale.expand(4), zero.int().expand(4), 1, -1, 2)
        return self.layer(rounded)


@pytest.mark.parametrize("how", ["numbers", "tensors", "channels"])
def test_fake_quantisation_is_the_identity_for_relevance(how: str) -> None:
    given = torch.tensor([[0.1, 0.3, -0.6, 2.0], [0.0, -3.0, 0.7, -0.2]]).double()
    rounded = torch.tensor([[0.0, 0.5, -0.5, 0.5], [0.0, -1.0, 0.5, 0.0]]).double()
    model = Rounded(how)
    found = relprop.LRP(model, "lrp0").explain(given, 1)
    assert_same(found.relevance, rounded * model.layer.weight[1].detach(), 1e-12)
    assert found.ledger.residual.abs().max() < 1e-12


def prepared(observing: bool) -> nn.Module:
    torch.manual_seed(0)
    quantisation = torch.ao.quantization
    model = nn.Sequential(quantisation.QuantStub(), nn.Linear(64, 4), nn.ReLU(), quantisation.DeQuantStub()).train()
    model.qconfig = quantisation.get_default_qat_qconfig("fbgemm")
    quantisation.prepare_qat(model, inplace=True)
    model(x)
    if not observing:
        model.apply(quantisation.disable_observer)
    return model.eval()


def test_training_for_quantisation() -> None:
    """The same as of the weights rounded by hand, with the inputs rounded by hand."""
    model = prepared(observing=False)
    of_inputs, layer = model[0].activation_post_process, model[1]
    rounded = of_inputs(x).detach()
    plain = nn.Linear(64, 4)
    plain.weight.data, plain.bias.data = layer.weight_fake_quant(layer.weight).detach(), layer.bias.detach()
    expected = relprop.LRP(nn.Sequential(plain, nn.ReLU()), "epsilon").explain(rounded, lambda y: y.sum(1))
    found = relprop.LRP(model, "epsilon").explain(x, lambda y: y.sum(1))
    share = found.relevance.sum(1) / expected.relevance.sum(1)  # of outputs that are rounded, too
    assert_same(share, torch.ones(3), 0.05)
    assert found.ledger.residual.abs().max() < 1e-5


def test_observers_are_told() -> None:
    with pytest.raises(CaptureError, match=r"activation_post_process.*rounds in another way.*disable_observer"):
        relprop.LRP(prepared(observing=True)).attribute(x, 1)


def test_packed_weights_are_refused() -> None:
    model = torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(CaptureError, match=r"the weights of '0' \(Linear\) are packed for integer kernels.*made of"):
        relprop.LRP(model).attribute(x, 1)


def with_torchao(config: str, **given: Any) -> nn.Module:
    torchao = pytest.importorskip("torchao.quantization")
    model = net()
    torchao.quantize_(model, getattr(torchao, config)(**given))
    return model


@pytest.mark.parametrize(
    "given",
    [{"config": "Int8WeightOnlyConfig"}, {"config": "IntxWeightOnlyConfig", "weight_dtype": torch.int4}],
    ids=["int8", "int4"],
)
@pytest.mark.parametrize("composite", ["lrp0", "epsilon_plus"])
def test_weights_of_torchao(given: dict[str, Any], composite: str) -> None:
    """The same as of the weights that the integers stand for."""
    model = with_torchao(**given)
    plain, kinds = deepcopy(net()), [type(layer.weight) for layer in (model[0], model[2])]
    for layer, own in ((plain[0], model[0]), (plain[2], model[2])):
        layer.weight.data, layer.bias.data = own.weight.dequantize().detach(), own.bias.detach()
    found, expected = (relprop.LRP(m, composite).explain(x, 1) for m in (model, plain))
    assert_same(found.relevance, expected.relevance, 1e-4)
    assert found.ledger.residual.abs().max() < 1e-5
    assert [type(layer.weight) for layer in (model[0], model[2])] == kinds


def test_activations_that_become_integers_are_refused() -> None:
    model = with_torchao("Int8DynamicActivationInt8WeightConfig")
    with pytest.raises(CaptureError, match=r"'0' \(Linear\) turns its inputs into integers.*weight-only"):
        relprop.LRP(model).attribute(x, 1)
