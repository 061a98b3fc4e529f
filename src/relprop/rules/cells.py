"""Inside of one recurrent layer: its equations, and the way back through time.

Forward, torch's own kernel runs the layer; what happens inside of a step is computed from its outputs, for all steps at
once. With R = a c the way back is a linear recursion, whose factors are known before it starts: one step is a few
products, cheaper than the gradient's, and without any division by an activation where ε = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kernels import linear
from ..message import Message, sign, stabilise, stabiliser
from .base import Step
from .steps import Packed, Together


class Weights(NamedTuple):
    """The parameters of one layer in one direction."""

    ih: Tensor
    hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    projection: Tensor | None = None


class Unrolled:
    """One layer in one direction in one run, in the order in which its steps are taken.

    Sequences are [T, B, ...], or [rows, ...] if they are packed: ``steps`` knows which.
    """

    def __init__(
        self,
        kernel: Callable[..., Any],
        x: Tensor,
        states: list[Tensor],
        weights: Weights,
        accumulate: Callable[[Tensor], Tensor],
        steps: Together | Packed,
    ):
        self.kernel, self.weights, self.steps = kernel, weights, steps
        hidden: Any = [s[None] for s in states] if kernel is torch.lstm else states[0][None]
        parameters = [w for w in weights if w is not None]
        self.h, *final = steps.run(kernel, x, hidden, parameters, weights.b_ih is not None, 1, 0.0, False, False)
        self.final = [s[0] for s in final]
        self._x, self._states, self._accumulate = x, states, accumulate
        self._factors: Factors | None = None

    def weight(self, name: str, rows: slice = slice(None)) -> Tensor | None:
        """A parameter in the precision of relevance, or rows of it."""
        w = getattr(self.weights, name)
        return None if w is None else self._accumulate(w[rows])

    def chunks(self, name: str, count: int) -> Any:
        """A bias, gate by gate."""
        b = self.weight(name)
        return [None] * count if b is None else b.chunk(count)

    @property
    def hidden(self) -> Tensor:
        """h_t"""
        return self._accumulate(self.h)

    @property
    def hidden_before(self) -> Tensor:
        """h_t-1"""
        return self.steps.before(self._accumulate(self._states[0]), self.hidden)

    @property
    def from_x(self) -> Tensor:
        """W x_t + b, of all gates"""
        return linear(self._accumulate(self._x), self.weight("ih"), self.weight("b_ih"))  # type: ignore[arg-type]

    @property
    def from_h(self) -> Tensor:
        """U h_t-1 + b', of all gates"""
        return linear(self.hidden_before, self.weight("hh"), self.weight("b_hh"))  # type: ignore[arg-type]

    def cells(self, f: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """c_t-1 and c_t"""
        steps, initial = self.steps, self._accumulate(self._states[1])
        after: list[Tensor] = []
        for f_t, new_t in zip(steps.apart(f), steps.apart(new), strict=True):
            after.append(torch.addcmul(new_t, f_t, steps.onward(after[-1] if after else initial, f_t)))
        c = steps.joined(after)
        return steps.before(initial, c), c

    def factors(self, epsilon: float, gates: str, step: Step) -> Factors:
        """The same for every target that is explained."""
        if self._factors is None:
            equations = {torch.lstm: lstm, torch.gru: gru}.get(self.kernel, rnn)
            self._factors = equations(self, Shares(epsilon, gates, step, stabiliser(self.hidden.dtype)))
        return self._factors


# ---------------------------------------------------------------------------------------------------------------------
# The equations: what the recursion back through a layer multiplies by, for all steps at once
# ---------------------------------------------------------------------------------------------------------------------


def lstm(run: Unrolled, shares: Shares) -> Factors:
    a_i, a_f, a_g, a_o = (run.from_x + run.from_h).chunk(4, -1)
    b_i, b_f, b_g, b_o = (_plus(*b) for b in zip(run.chunks("b_ih", 4), run.chunks("b_hh", 4), strict=True))
    i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
    before, c = run.cells(f, i * g)
    i_takes, f_takes, o_takes = shares.gate(a_i, a_g), shares.gate(a_f, before), shares.gate(a_o, c)
    total = shares.total(c)
    new, old = i * g + total.half, f * before + total.half
    neurons = [shares.neurons(a_g, b_g, (1 - i_takes) * new, limit=(1 - i_takes) * i)]
    output = None
    if shares.gated:
        neurons = [shares.neurons(a_i, b_i, i_takes * new), shares.neurons(a_f, b_f, f_takes * old), *neurons]
        output = shares.neurons(a_o, b_o, o_takes)
    return Factors(
        total,
        neurons,
        rows=slice(None) if shares.gated else slice(2 * i.shape[-1], 3 * i.shape[-1]),
        keep=(1 - f_takes) * f,
        keep_r=(1 - f_takes) * total.half,
        into_c=(1 - o_takes) * o * ratio(c.tanh(), c, limit=1.0),
        into_c_r=1 - o_takes,
        output=output,
        h=o * c.tanh(),
        projection=None if run.weights.projection is None else shares.total(run.hidden),
    )


def gru(run: Unrolled, shares: Shares) -> Factors:
    before, h = run.hidden_before, run.hidden
    (x_r, x_z, x_n), (h_r, h_z, h_n) = run.from_x.chunk(3, -1), run.from_h.chunk(3, -1)
    (b_r, b_z, b_n), (d_r, d_z, d_n) = run.chunks("b_ih", 3), run.chunks("b_hh", 3)
    a_r, a_z = x_r + h_r, x_z + h_z
    r, z = a_r.sigmoid(), a_z.sigmoid()
    a_n = x_n + r * h_n
    r_takes, z_takes, z_keeps = shares.gate(a_r, h_n), shares.gate(-a_z, a_n), shares.gate(a_z, before)
    total = shares.total(h)
    new, old = (1 - z) * a_n.tanh() + total.half, z * before + total.half
    inner = (1 - r_takes) * r
    b = None if b_n is None else b_n + (r if shares.without_bias else inner) * d_n
    neurons = [shares.neurons(a_n, b, (1 - z_takes) * new, limit=(1 - z_takes) * (1 - z))]
    reset = inner
    if shares.gated:
        signal = h_n if d_n is None or not shares.without_bias else h_n - d_n
        neurons = [
            shares.neurons(a_r, _plus(b_r, d_r), r_takes * r * signal * neurons[0].share),
            shares.neurons(a_z, _plus(b_z, d_z), z_takes * new + z_keeps * old),
            *neurons,
        ]
        reset = torch.cat([torch.ones_like(r), torch.ones_like(z), inner], -1)
    return Factors(
        total,
        neurons,
        rows=slice(None) if shares.gated else slice(2 * r.shape[-1], 3 * r.shape[-1]),
        keep=(1 - z_keeps) * z,
        keep_r=(1 - z_keeps) * total.half,
        reset=reset,
    )


def rnn(run: Unrolled, shares: Shares) -> Factors:
    a, h = run.from_x + run.from_h, run.hidden
    slope = 1.0 if run.kernel is torch.rnn_tanh else 0.0
    b = _plus(run.weight("b_ih"), run.weight("b_hh"))
    neurons = shares.neurons(a, b, h, limit=None if shares.relevance else slope)
    slack = torch.zeros_like(a) if neurons.slack is None else neurons.slack
    inverse = 1 / (a - b + slack if shares.without_bias and b is not None else a + slack)
    return Factors(Total(neurons.share, inverse), [neurons._replace(share=None)])


class Total(NamedTuple):
    """A sum z: s = R / (z + ε sign z) is c ⊙ damp + r ⊙ inverse for R = z c + r."""

    damp: Tensor | None
    inverse: Tensor
    slack: Tensor | None = None
    """ε sign z"""
    half: Tensor | float = 0.0
    """What either of its two summands gets back of ε sign z, where it is redistributed."""


class Neurons(NamedTuple):
    """The neurons of one gate, or of the signal."""

    share: Tensor | None
    """s = R / (z + ε sign z) of these neurons, from that of the sum."""
    bias: Tensor | None
    slack: Tensor | None
    """ε sign z"""


@dataclass
class Shares:
    """How relevance is shared, by a rule under a bias policy."""

    epsilon: float
    gates: str
    step: Step
    tiny: float

    @property
    def gated(self) -> bool:
        """Whether gates get relevance."""
        return self.gates != "all"

    @property
    def without_bias(self) -> bool:
        return self.step.bias == "zero"

    @property
    def redistributed(self) -> bool:
        return self.step.bias == "redistribute"

    @property
    def relevance(self) -> bool:
        """Whether relevance arrives that is no coefficient, so that a division is needed even where ε = 0."""
        return self.redistributed or self.step.form.r

    def gate(self, z_gate: Tensor, z_signal: Tensor) -> Any:
        """The gate's part in the relevance of gate ⊙ signal."""
        match self.gates:
            case "all":
                return 0.0
            case "half":
                return torch.full_like(z_gate, 0.5)
            case "abs":
                return z_gate.abs() / (z_gate.abs() + z_signal.abs() + self.tiny)
            case _:
                return z_gate / stabilise(z_gate + z_signal, self.tiny)

    def total(self, z: Tensor) -> Total:
        """A sum that relevance is shared among in proportion."""
        epsilon = self.epsilon or (self.tiny if self.relevance else 0.0)
        if not epsilon:
            return Total(None, torch.zeros_like(z))
        slack = epsilon * sign(z)
        inverse = 1 / (z + slack)
        return Total(z * inverse, inverse, slack, slack / 2 if self.redistributed else 0.0)

    def neurons(self, a: Tensor, b: Tensor | None, relevance: Tensor, limit: Tensor | float | None = None) -> Neurons:
        """Neurons of a linear layer with output a and bias b.

        Args:
            relevance: theirs, from s of the sum.
            limit: of relevance / a where a is zero; None if there is none.
        """
        if self.without_bias and b is not None:
            a, b, limit = a - b, None, None
        epsilon = self.epsilon or (self.tiny if limit is None else 0.0)
        if not epsilon:
            return Neurons(ratio(relevance, a, limit), b, None)  # type: ignore[arg-type]
        slack = epsilon * sign(a)
        return Neurons(relevance / (a + slack), b, slack)


def ratio(x: Tensor, z: Tensor, limit: Tensor | float) -> Tensor:
    """x / z, with its limit where z is zero."""
    zero = z == 0
    return torch.where(zero, limit, x / torch.where(zero, 1, z))


# ---------------------------------------------------------------------------------------------------------------------
# The way back
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Factors:
    """What the recursion back through a layer multiplies by. None stands for one."""

    total: Total
    """The sum of a cell: c_t of an LSTM, h_t of a GRU; the linear layer itself in an RNN."""
    blocks: list[Neurons]
    rows: slice = field(default_factory=lambda: slice(None))
    """The neurons of the linear layer that get relevance: those of the signal alone, or the gates' too."""
    keep: Tensor | None = None
    """The state before: its coefficient from s of the sum, and its part of the stabiliser."""
    keep_r: Tensor | float = 0.0
    into_c: Tensor | None = None
    """LSTM: the coefficient of c_t from that of h_t, and the relevance."""
    into_c_r: Tensor | float = 1.0
    output: Neurons | None = None
    """LSTM: s of the output gate's neurons from the relevance of h_t."""
    h: Tensor | None = None
    """LSTM: o ⊙ tanh(c_t)"""
    projection: Total | None = None
    """LSTM: the projection of the output."""
    reset: Tensor | None = None
    """GRU: what the part of h_t-1 in the linear layer is multiplied by."""


class Sweep:
    """The recursion back through one layer in one direction. A state's relevance is ``a * c + r``, as in a message."""

    def __init__(self, run: Unrolled, epsilon: float, gates: str, step: Step):
        self.run, self.k = run, run.factors(epsilon, gates, step)
        self.redistributed = step.bias == "redistribute"
        self.sinks: list[tuple[str, Callable[[], Tensor]]] = []
        blocks = [*self.k.blocks, *([] if self.k.output is None else [self.k.output])]
        self.bias = _side_by_side([b.bias for b in blocks], run.hidden)
        self.slack = _side_by_side([b.slack for b in blocks], run.hidden)

    def back(self, above: Message, finals: list[Message]) -> tuple[Message, list[Message]]:
        """Messages to the input and the initial states, from those to the outputs and the final states."""
        k, run, redistributed = self.k, self.run, self.redistributed
        w_x, w_h, w_out = run.weight("ih", k.rows), run.weight("hh", k.rows), run.weight("projection")
        assert w_x is not None
        assert w_h is not None
        evenly = self._evenly(w_x.shape[1] + w_h.shape[1])
        blocks = None if k.blocks[0].share is None else torch.stack([b.share for b in k.blocks], -2)  # type: ignore[misc]
        is_lstm, steps = len(finals) == 2, run.steps

        def at(x: Any) -> Any:
            return steps.apart(x) if isinstance(x, Tensor) else [x] * steps.number

        c_above, r_above, damp, inverse = at(above.c), at(above.r), at(k.total.damp), at(k.total.inverse)
        into_c, into_c_r, keep, keep_r = at(k.into_c), at(k.into_c_r), at(k.keep), at(k.keep_r)
        share, reset, h, spread = at(blocks), at(k.reset), at(k.h), at(evenly)
        output = at(None if k.output is None else k.output.share)
        p_damp, p_inverse, p_slack, _ = (at(x) for x in k.projection or (None,) * 4)
        all_s: list[Tensor] = []
        all_neurons: list[Tensor] = []
        all_projected: list[Tensor] = []

        ends = [*finals[0], *(finals[1] if is_lstm else Message())]
        ends[0] = run.hidden.new_zeros(run.final[0].shape) if ends[0] is None else ends[0]
        c: Any = None
        r = c_cell = r_cell = None
        for t in reversed(range(steps.number)):
            c, r, c_cell, r_cell = steps.ending(t, [c, r, c_cell, r_cell], ends)
            c, r = _plus(c, c_above[t]), _plus(r, r_above[t])
            if w_out is not None:  # h_t = P m_t with m_t = o ⊙ tanh(c_t)
                s = _plus(_times(c, p_damp[t]), _times(r, p_inverse[t]))
                all_projected.append(s)
                c = s @ w_out
                r = (s * p_slack[t]).sum(1, keepdim=True) / w_out.shape[1] if redistributed else None
            if is_lstm:
                c_cell, r_cell = _plus(c_cell, _times(c, into_c[t])), _plus(r_cell, _times(r, into_c_r[t]))
                s = _plus(_times(c_cell, damp[t]), _times(r_cell, inverse[t]))
            else:
                s = _plus(_times(c, damp[t]), _times(r, inverse[t]))
            neurons = s if share[t] is None else (s[:, None] * share[t]).flatten(1)
            if output[t] is not None:
                neurons = torch.cat([neurons, output[t] * _plus(c * h[t], r)], 1)
            all_s.append(s)
            all_neurons.append(neurons)
            c = _times(neurons, reset[t]) @ w_h
            r = None if evenly is None else (neurons * spread[t]).sum(1, keepdim=True)
            if is_lstm:
                c_cell, r_cell = s * keep[t], s * keep_r[t] if redistributed else None
            elif keep[t] is not None:
                c, r = c + s * keep[t], _plus(r, s * keep_r[t]) if redistributed else None

        neurons = steps.joined(all_neurons[::-1])
        self._absorb("bias", neurons, self.bias)
        self._absorb("stabiliser", neurons, self.slack)
        self._absorb("stabiliser", all_s, k.total.slack)
        self._absorb("stabiliser", all_projected, k.projection and k.projection.slack)
        to_x = Message(linear(neurons, w_x.mT))
        if evenly is not None:
            even = (neurons * evenly).sum(-1, keepdim=True)
            to_x = Message(to_x.c, even.expand(*even.shape[:-1], w_x.shape[1]))
        if r is not None:
            r = r.expand(c.shape)
        states = [Message(c, r), Message(c_cell, r_cell)]
        return to_x, states[: len(finals)]

    def _evenly(self, inputs: int) -> Tensor | None:
        """(b + ε sign z) / N of the linear layer: the part of each of its inputs, where that is redistributed."""
        absorbed = _plus(self.bias, self.slack)
        return absorbed / inputs if self.redistributed and absorbed is not None else None

    def _absorb(self, kind: str, s: Any, amount: Tensor | None) -> None:
        """What a bias or stabiliser takes, unless it is redistributed: s times its value."""
        if amount is not None and not self.redistributed:
            self.sinks.append((kind, lambda: (self.run.steps.joined(s[::-1]) if isinstance(s, list) else s) * amount))


def _side_by_side(parts: list[Any], like: Tensor) -> Tensor | None:
    """The values of all gates' neurons, zero where a gate has none."""
    if all(part is None for part in parts):
        return None
    size = next(p.shape[-1] for p in parts if p is not None)
    shape = (*like.shape[:-1], size)
    return torch.cat([like.new_zeros(shape) if p is None else p.expand(shape) for p in parts], -1)


def _plus(x: Any, y: Any) -> Any:
    return y if x is None else x if y is None else x + y


def _times(x: Any, factor: Any) -> Any:
    return x if x is None or factor is None else x * factor
