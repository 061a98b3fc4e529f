"""Rules that a user writes as CONTRIBUTING.md teaches: right without knowing any of the engine's optimisations."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.rules import LinearRule, Message, stabilise
from relprop.rules.neurons import Neurons

from . import reference as ref


def scale(z: Tensor) -> Tensor:
    """A quarter of the root mean square of every sample."""
    return 0.25 * z.square().mean(dim=tuple(range(1, z.ndim)), keepdim=True).sqrt()


@dataclass(frozen=True)
class OwnScale(LinearRule):
    """LRP-ε with ε = 0.25 rms(z) (Montavon et al. 2019): it needs z also where a ReLU follows and z is negative."""

    def propagate(self, n: Neurons) -> Message:
        epsilon = scale(n.z)
        s = n.relevance / stabilise(n.z, epsilon)
        n.absorb_bias(s, n.b)
        n.absorb("stabiliser", lambda: s * torch.where(n.z >= 0, epsilon, -epsilon))
        return Message(c=n.transpose(s, n.w))


@dataclass(frozen=True)
class OwnCoefficient(LinearRule):
    """LRP-0 in the form of coefficients, the plain gradient: it never looks at z, so that a ReLU must mask c itself."""

    def propagate(self, n: Neurons) -> Message:
        return Message(c=n.transpose(n.message.c, n.w))


def dense_net() -> tuple[nn.Sequential, Tensor]:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(2, 4)


def convolutional_net() -> tuple[nn.Sequential, Tensor]:
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)]
    return nn.Sequential(*layers), torch.randn(2, 2, 4, 4)


def ends_in_relu() -> tuple[nn.Sequential, Tensor]:
    return nn.Sequential(nn.ReLU(), nn.Linear(4, 6), nn.ReLU()), torch.randn(2, 4)


NETWORKS = (dense_net, convolutional_net, ends_in_relu)


def made(make) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    net, x = make()
    return net.double(), x.double()


@pytest.mark.parametrize("bias", ref.POLICIES)
@pytest.mark.parametrize("make", NETWORKS)
def test_scale_of_its_own(make, bias: str) -> None:
    net, x = made(make)
    v = torch.tensor([1.0, -2.0, 0.5, 1.0, 1.0, -1.0], dtype=torch.float64)[: net(x).shape[1]]
    expected = ref.lrp_network(list(net), x, v, ref.Epsilon(0.25, relative=True), bias)
    explanation = relprop.LRP(net, OwnScale(), bias=bias).explain(x, target=lambda y: y @ v)
    torch.testing.assert_close(explanation.relevance, expected.relevance, rtol=0, atol=1e-12)
    assert explanation.ledger.residual.abs().max() < 1e-12


@pytest.mark.parametrize("bias", ref.POLICIES)
@pytest.mark.parametrize("make", NETWORKS)
def test_coefficients_alone(make, bias: str) -> None:
    """The gradient times the input, whatever the policy: this rule leaves biases alone."""
    net, x = made(make)
    (gradient,) = torch.autograd.grad(net(x.requires_grad_())[:, 0].sum(), x)
    x = x.detach()
    relevance = relprop.LRP(net, OwnCoefficient(), bias=bias).attribute(x, target=0)
    torch.testing.assert_close(relevance, x * gradient, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:the ledger does not balance")  # OwnCoefficient books nothing
@pytest.mark.parametrize("rule", [OwnScale(), OwnCoefficient()])
def test_recorded_or_not(rule: LinearRule) -> None:
    """What is looked at on the way, in front of the ReLU and behind it, changes nothing."""
    net, x = made(dense_net)
    lrp = relprop.LRP(net, rule)
    explanation = lrp.explain(x, target=0, record=["0", "1", "2", "3"])
    assert torch.equal(explanation.relevance, lrp.attribute(x, target=0))
    hidden = explanation.relevances
    torch.testing.assert_close(hidden["0"], hidden["1"], rtol=0, atol=1e-15)  # a ReLU passes relevance on


@pytest.mark.parametrize("rule", [relprop.rules.Gamma(), relprop.rules.AlphaBeta(), relprop.rules.Epsilon(0.1)])
def test_recorded_in_front_of_a_relu(rule: LinearRule) -> None:
    """Also rules for which relu(z) stands for z: what is recorded there is zero where z is negative."""
    net, x = made(dense_net)
    lrp = relprop.LRP(net, rule)
    explanation = lrp.explain(x, target=0, record=["0", "1"])
    assert torch.equal(explanation.relevance, lrp.attribute(x, target=0))
    assert not explanation.relevances["0"][net[0](x) < 0].any()
    torch.testing.assert_close(explanation.relevances["0"], explanation.relevances["1"], rtol=0, atol=1e-15)


def test_a_rule_that_promises_nothing_is_right_with_weights_that_change() -> None:
    """It takes modified weights from the store without having said so: they are made anew in every call."""

    @dataclass(frozen=True)
    class Positive(LinearRule):
        def propagate(self, n: Neurons) -> Message:
            w = n.weight("mine", lambda w: w.clamp(min=0))
            return Message(c=n.transpose(n.relevance / n.forward(n.a, w), w))

    layer = nn.Linear(2, 1, bias=False).double()
    lrp = relprop.LRP(layer, Positive())
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    for weight, shares in (([1.0, 1.0], [1 / 3, 2 / 3]), ([2.0, -1.0], [1.0, 0.0])):
        layer.weight.data.copy_(torch.tensor([weight]))
        z = layer(x).detach()
        expected = z * torch.tensor([shares], dtype=torch.float64)
        torch.testing.assert_close(lrp.attribute(x, target=0), expected, rtol=0, atol=1e-15)
