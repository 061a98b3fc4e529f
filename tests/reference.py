"""Dense, explicit LRP: the reference that the engine is held to.

Nothing here is fast or clever, and nothing is taken from the engine. Every affine layer becomes an explicit matrix by
pushing unit vectors through it; every rule is its textbook formula over the contributions z_kj = W_kj a_j, without
autograd; what biases and stabilisers absorb is written down next to what the inputs receive.

A rule is a list of *parts*. A part hands on the share ``factor`` of R_k in proportion to some numerators n_kj:

    d_k  = sum_j n_kj + bias_k + stabiliser_k
    R_kj = factor_k * n_kj / d_k * R_k                      what input j receives from output k
           factor_k * bias_k / d_k * R_k                    what the bias absorbs
           factor_k * stabiliser_k / d_k * R_k              what the stabiliser absorbs

The factors of a rule add up to one, so the three lines add up to R_k, whatever the rule. Under the bias policy "zero"
there is no bias from the start; under "redistribute" the last two lines are paid out in equal shares to the inputs
that output k is connected to (where there is none, they stay where they are).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

POLICIES = ("absorb", "zero", "redistribute")

# -------------------------------------------------------------------------------- rules: names, defaults


@dataclass(frozen=True)
class LRP0:
    pass


@dataclass(frozen=True)
class Epsilon:
    epsilon: float = 1e-6
    relative: bool = False


@dataclass(frozen=True)
class Gamma:
    gamma: float = 0.25
    stabilizer: float = 1e-6


@dataclass(frozen=True)
class AlphaBeta:
    alpha: float = 2.0
    beta: float = 1.0
    stabilizer: float = 1e-6


@dataclass(frozen=True)
class ZPlus:
    stabilizer: float = 1e-6


@dataclass(frozen=True, eq=False)
class ZBox:
    low: float | Tensor
    high: float | Tensor
    stabilizer: float = 1e-6


@dataclass(frozen=True)
class WSquare:
    stabilizer: float = 1e-6


@dataclass(frozen=True)
class Flat:
    stabilizer: float = 1e-6


@dataclass(frozen=True)
class Norm:
    stabilizer: float = 1e-6


Rule = LRP0 | Epsilon | Gamma | AlphaBeta | ZPlus | ZBox | WSquare | Flat | Norm

# -------------------------------------------------------------------------------- affine layers, densely


class Affine(NamedTuple):
    """An affine layer for one input shape: ``a -> matrix @ a + bias`` on flattened samples."""

    matrix: Tensor
    """[out, in]"""
    connected: Tensor
    """[out, in], one where output and input are connected by a weight (also if that weight is zero), else zero"""
    bias: Tensor
    """[out], zeros if the layer has none"""
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]

    def forward(self, a: Tensor) -> Tensor:
        return (a.flatten(1) @ self.matrix.T + self.bias).unflatten(1, self.shape_out)


def dense(layer: nn.Module, shape_in: Sequence[int]) -> Affine:
    """The explicit matrix and bias of Linear, Conv1d-3d or ConvTranspose1d-3d for samples of ``shape_in``."""
    size = math.prod(shape_in)
    with torch.no_grad():
        linear = copy.deepcopy(layer).double()
        linear.bias = None
        ones = copy.deepcopy(linear)
        ones.weight.fill_(1.0)
        unit_vectors = torch.eye(size, dtype=torch.float64).unflatten(1, tuple(shape_in))
        columns = linear(unit_vectors)
        shape_out = tuple(columns.shape[1:])
        matrix = columns.flatten(1).T.clone()
        # An input sees every output through at most one weight, so the ones count to one.
        connected = ones(unit_vectors).flatten(1).T.clone()
        assert ((connected == 0) | (connected == 1)).all(), "an input is connected to an output by more than one weight"
        bias = torch.zeros(shape_out, dtype=torch.float64)
        if layer.bias is not None:
            channel_axis = -1 if isinstance(layer, nn.Linear) else 0
            per_axis = [1] * len(shape_out)
            per_axis[channel_axis] = -1
            bias = bias + layer.bias.double().reshape(per_axis)
    return Affine(matrix, connected, bias.flatten(), tuple(shape_in), shape_out)


# -------------------------------------------------------------------------------- rules: the formulas


class Part(NamedTuple):
    numerators: Tensor
    """[B, out, in]"""
    bias: Tensor
    """[B, out]"""
    epsilon: float | Tensor
    """the stabiliser, a number or [B, 1]; it takes the sign of what it stabilises"""
    factor: Tensor
    """[B, out]"""


class Result(NamedTuple):
    relevance: Tensor
    """like the input of the layer or network"""
    sinks: dict[str, Tensor]
    """"bias" and "stabiliser" -> [B]"""


def sign(z: Tensor) -> Tensor:
    return torch.where(z >= 0, torch.ones_like(z), -torch.ones_like(z))


def positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def negative(x: Tensor) -> Tensor:
    return torch.where(x < 0, x, torch.zeros_like(x))


def bounds(value: float | Tensor, shape_in: tuple[int, ...], batch: int) -> Tensor:
    """A scalar or a tensor that broadcasts against the input, as [B, 1, in]."""
    full = torch.as_tensor(value, dtype=torch.float64).expand(batch, *shape_in)
    return full.flatten(1)[:, None, :]


def parts(rule: Rule, layer: Affine, a: Tensor, bias: Tensor) -> list[Part]:
    """How ``rule`` splits the relevance of every output of ``layer``; ``a`` is [B, in] and ``bias`` is [out]."""
    batch, w = len(a), layer.matrix[None]
    z_kj = w * a[:, None, :]
    b = bias.expand(batch, -1)
    no_bias = torch.zeros_like(b)
    one = torch.ones_like(b)
    match rule:
        case LRP0():
            return [Part(z_kj, b, 0.0, one)]
        case Epsilon(epsilon, relative):
            if relative:
                z = z_kj.sum(2) + b
                epsilon = epsilon * z.pow(2).mean(1, keepdim=True).sqrt()
            return [Part(z_kj, b, epsilon, one)]
        case Norm(stabilizer):
            return [Part(z_kj, b, stabilizer, one)]
        case Gamma(gamma, stabilizer):
            z = z_kj.sum(2) + b
            up = z >= 0
            numerators = z_kj + gamma * torch.where(up[..., None], positive(z_kj), negative(z_kj))
            return [Part(numerators, b + gamma * torch.where(up, positive(b), negative(b)), stabilizer, one)]
        case AlphaBeta(alpha, beta, stabilizer):
            return _alpha_beta(alpha, beta, stabilizer, z_kj, b)
        case ZPlus(stabilizer):
            # A neuron that nothing speaks for keeps its relevance, as in zennit: not so for alpha 1, beta 0.
            return [Part(positive(z_kj), positive(b), stabilizer, one)]
        case ZBox(low, high, stabilizer):
            lowest, highest = bounds(low, layer.shape_in, batch), bounds(high, layer.shape_in, batch)
            # The bias b minus its positive part minus its negative part: nothing is left of it.
            return [Part(z_kj - lowest * positive(w) - highest * negative(w), no_bias, stabilizer, one)]
        case WSquare(stabilizer):
            return [Part((w * w).expand(batch, -1, -1), no_bias, stabilizer, one)]
        case Flat(stabilizer):
            return [Part(layer.connected.expand(batch, -1, -1), no_bias, stabilizer, one)]
    raise TypeError(f"the reference has no rule {rule!r}")


def _alpha_beta(alpha: float, beta: float, stabilizer: float, z_kj: Tensor, b: Tensor) -> list[Part]:
    """Where one part is empty the other has all of the relevance, for alpha 1, beta 0, too; if both are, the first."""
    z_plus, z_minus = positive(z_kj).sum(2) + positive(b), negative(z_kj).sum(2) + negative(b)
    nothing, everything = torch.zeros_like(b), torch.ones_like(b)
    factor_plus = torch.where(z_minus == 0, everything, torch.where(z_plus == 0, nothing, alpha * everything))
    factor_minus = torch.where(z_minus == 0, nothing, torch.where(z_plus == 0, everything, -beta * everything))
    assert torch.allclose(factor_plus + factor_minus, everything)
    # The negative part is below zero and so is its stabiliser, or it is empty and has no share.
    return [
        Part(positive(z_kj), positive(b), stabilizer, factor_plus),
        Part(negative(z_kj), negative(b), stabilizer, factor_minus),
    ]


def lrp_layer(layer: Affine, a: Tensor, relevance: Tensor, rule: Rule, policy: str = "absorb") -> Result:
    """Step 1 to 4 for one affine layer: the relevance of its output becomes that of its input ``a``."""
    assert policy in POLICIES
    a, r_k = a.double().flatten(1), relevance.double().flatten(1)
    bias = torch.zeros_like(layer.bias) if policy == "zero" else layer.bias
    r_j = torch.zeros_like(a)
    by_bias, by_stabiliser = torch.zeros_like(r_k), torch.zeros_like(r_k)
    for part in parts(rule, layer, a, bias):
        z = part.numerators.sum(2) + part.bias
        stabiliser = part.epsilon * sign(z)
        d = z + stabiliser
        # LRP-0 of a neuron with z = 0 has nothing to be proportional to: what arrives there goes no further.
        lost = d == 0
        s = part.factor * r_k / torch.where(lost, torch.ones_like(d), d)
        s = torch.where(lost, torch.zeros_like(s), s)
        r_j += (part.numerators * s[..., None]).sum(1)
        by_bias += part.bias * s
        by_stabiliser += torch.where(lost, part.factor * r_k, stabiliser * s)
    if policy == "redistribute":
        count = layer.connected.sum(1)
        share = layer.connected / torch.where(count == 0, torch.ones_like(count), count)[:, None]
        r_j += (by_bias + by_stabiliser) @ share
        by_bias, by_stabiliser = by_bias * (count == 0), by_stabiliser * (count == 0)
    sinks = {"bias": by_bias.sum(1), "stabiliser": by_stabiliser.sum(1)}
    return Result(r_j.unflatten(1, layer.shape_in), sinks)


def parts_filled(layer: Affine, a: Tensor, policy: str = "absorb") -> tuple[Tensor, Tensor]:
    """Where the sum of positive contributions and where that of negative ones (bias included) is not empty."""
    z_kj = layer.matrix[None] * a.double().flatten(1)[:, None, :]
    b = torch.zeros_like(layer.bias) if policy == "zero" else layer.bias
    z_plus, z_minus = positive(z_kj).sum(2) + positive(b), negative(z_kj).sum(2) + negative(b)
    return (z_plus != 0).unflatten(1, layer.shape_out), (z_minus != 0).unflatten(1, layer.shape_out)


# -------------------------------------------------------------------------------- sequential networks


def lrp_network(
    layers: Sequence[nn.Module],
    x: Tensor,
    output_weight: Tensor,
    rules: Rule | Sequence[Rule],
    policy: str = "absorb",
) -> Result:
    """LRP through affine layers, ReLU and Flatten; the seed is R = output * output_weight.

    ``rules`` is one rule for all affine layers, or one for each of them in order. ReLU passes relevance on.
    """
    activations, affine, a = [], [], x.double()
    for layer in layers:
        activations.append(a)
        match layer:
            case nn.ReLU():
                affine.append(None)
                a = positive(a)
            case nn.Flatten():
                affine.append(None)
                a = a.flatten(1)
            case _:
                affine.append(dense(layer, a.shape[1:]))
                a = affine[-1].forward(a)
    count = sum(entry is not None for entry in affine)
    each: list[Any] = list(rules) if isinstance(rules, Sequence) else [rules] * count
    assert len(each) == count
    relevance = a * output_weight
    sinks = {"bias": torch.zeros(len(x)).double(), "stabiliser": torch.zeros(len(x)).double()}
    for entry, a in zip(reversed(affine), reversed(activations), strict=True):
        if entry is None:
            relevance = relevance.reshape(a.shape)
        else:
            relevance, lost = lrp_layer(entry, a, relevance, each.pop(), policy)
            sinks = {kind: sinks[kind] + lost[kind] for kind in sinks}
    return Result(relevance, sinks)
