"""Inside of one recurrent layer: its equations, and the way back through time.

Forward, torch's own kernel runs the layer; what happens inside of a step is computed from its outputs, for all steps at
once. With R = a c the way back is a linear recursion, whose factors are known before it starts: one step is a few
products, cheaper than the gradient's, and without any division by an activation where ε = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..graph.kernels import linear
from .base import Step
from .message import Message, add, plus, quotient, reciprocal, sign, stabilise, stabiliser, times
from .time import Packed, Together


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

    def before(self, x: Tensor) -> Tensor:
        """x of the step before; in the first step, which has none, its own."""
        return self.steps.before(self.steps.first(x), x)

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
    a_i, a_f, a_g, a_o = plus(run.from_x, run.from_h).chunk(4, -1)
    b_i, b_f, b_g, b_o = (add(*b) for b in zip(run.chunks("b_ih", 4), run.chunks("b_hh", 4), strict=True))
    i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
    new = i * g
    before, c = run.cells(f, new)
    h = times(c.tanh(), o)
    i_takes, f_takes, o_takes = shares.gate(a_i, a_g), shares.gate(a_f, before), shares.gate(a_o, c)
    total = shares.total(c)
    new, old = add(new, total.half), add(f * before, total.half)
    neurons = [shares.neurons(a_g, b_g, _left(i_takes, new), limit=_left(i_takes, i))]
    output = None
    if shares.gated:
        neurons = [shares.neurons(a_i, b_i, i_takes * new), shares.neurons(a_f, b_f, f_takes * old), *neurons]
        output = shares.neurons(a_o, b_o, o_takes)
    return Factors(
        neurons,
        rows=slice(None) if shares.gated else slice(2 * i.shape[-1], 3 * i.shape[-1]),
        into=_left(o_takes, ratio(h, c, limit=o) if total.inverse is None else h * total.inverse),
        into_r=_left(o_takes, total.inverse),
        on=_left(f_takes, f if total.inverse is None else times(run.before(total.inverse), old)),
        keep=_left(f_takes, f),
        keep_r=_left(f_takes, total.half),
        total=total,
        output=output,
        h=h if shares.gated else None,
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
    new, old = add((1 - z) * a_n.tanh(), total.half), add(z * before, total.half)
    inner = _left(r_takes, r)
    b = None if b_n is None else b_n + (r if shares.without_bias else inner) * d_n
    neurons = [shares.neurons(a_n, b, _left(z_takes, new), limit=_left(z_takes, 1 - z))]
    reset = inner
    if shares.gated:
        signal = h_n if d_n is None or not shares.without_bias else h_n - d_n
        neurons = [
            shares.neurons(a_r, add(b_r, d_r), r_takes * r * signal * neurons[0].share),
            shares.neurons(a_z, add(b_z, d_z), z_takes * new + z_keeps * old),
            *neurons,
        ]
        reset = torch.cat([torch.ones_like(r), torch.ones_like(z), inner], -1)
    return Factors(
        neurons,
        rows=slice(None) if shares.gated else slice(2 * r.shape[-1], 3 * r.shape[-1]),
        into=total.damp,
        into_r=total.inverse,
        on=_left(z_keeps, z if total.inverse is None else times(run.before(total.inverse), old)),
        keep=_left(z_keeps, z),
        keep_r=_left(z_keeps, total.half),
        total=total,
        reset=reset,
    )


def rnn(run: Unrolled, shares: Shares) -> Factors:
    a, b = run.from_x + run.from_h, add(run.weight("b_ih"), run.weight("b_hh"))
    slope = 1.0 if run.kernel is torch.rnn_tanh else 0.0
    neurons = shares.neurons(a, b, run.hidden, limit=None if shares.relevance else slope)
    inverse = reciprocal(stabilise(neurons.a, neurons.epsilon)) if shares.relevance else None
    return Factors([neurons._replace(share=None)], into=neurons.share, into_r=inverse)


class Total(NamedTuple):
    """A sum z that relevance is shared among in proportion, from s = R / (z + ε sign z)."""

    z: Tensor
    epsilon: float
    inverse: Tensor | None
    """1 / (z + ε sign z); None where ε = 0, and s is the coefficient of z."""
    half: Tensor | None
    """What either of its two summands gets back of ε sign z, where it is redistributed."""

    @property
    def damp(self) -> Tensor | None:
        """s from the coefficient of z."""
        return None if self.inverse is None else self.z * self.inverse

    @property
    def slack(self) -> Tensor | None:
        """ε sign z"""
        return self.epsilon * sign(self.z) if self.epsilon else None


class Neurons(NamedTuple):
    """The neurons of one gate, or of the signal: a linear layer with output a."""

    share: Tensor | None
    """s = R / (a + ε sign a) of these neurons, from that of the sum."""
    bias: Tensor | None
    a: Tensor
    epsilon: float

    @property
    def slack(self) -> Tensor | None:
        """ε sign a"""
        return self.epsilon * sign(self.a) if self.epsilon else None


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
        """The gate's part in the relevance of gate ⊙ signal; None if it takes nothing."""
        match self.gates:
            case "all":
                return None
            case "half":
                return torch.full_like(z_gate, 0.5)
            case "abs":
                return z_gate.abs() / (z_gate.abs() + z_signal.abs() + self.tiny)
            case _:
                return z_gate / stabilise(z_gate + z_signal, self.tiny)

    def total(self, z: Tensor) -> Total:
        """A sum that relevance is shared among in proportion."""
        epsilon = self.epsilon or (self.tiny if self.relevance else 0.0)
        inverse = reciprocal(stabilise(z, epsilon)) if epsilon else None
        return Total(z, epsilon, inverse, epsilon / 2 * sign(z) if self.redistributed else None)

    def neurons(self, a: Tensor, b: Tensor | None, relevance: Tensor, limit: Tensor | float | None = None) -> Neurons:
        """Neurons of a linear layer with output a and bias b.

        Args:
            relevance: theirs, from s of the sum.
            limit: of relevance / a where a is zero; None if there is none.
        """
        if self.without_bias and b is not None:
            a, b, limit = a - b, None, None
        epsilon = self.epsilon or (self.tiny if limit is None else 0.0)
        share = quotient(relevance, stabilise(a, epsilon)) if epsilon else ratio(relevance, a, limit)  # type: ignore[arg-type]
        return Neurons(share, b, a, epsilon)


def ratio(x: Tensor, z: Tensor, limit: Tensor | float) -> Tensor:
    """x / z, with its limit where z is zero."""
    zero = z == 0
    return torch.where(zero, limit, x / torch.where(zero, 1, z))


# ---------------------------------------------------------------------------------------------------------------------
# The way back
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Factors:
    """What the recursion back through a layer multiplies by. None stands for one.

    s is that of the cell's sum: c_t of an LSTM, h_t of a GRU, the linear layer itself in an RNN.
    """

    blocks: list[Neurons]
    rows: slice = field(default_factory=lambda: slice(None))
    """The neurons of the linear layer that get relevance: those of the signal alone, or the gates' too."""
    into: Tensor | None = None
    """s from the coefficient of h_t."""
    into_r: Tensor | None = None
    """s from the relevance of h_t."""
    on: Tensor | None = None
    """s of step t-1 from that of step t; None if the state before is no summand."""
    keep: Tensor | None = None
    """The initial state, a summand in the first step: its coefficient from s, and its part of the stabiliser."""
    keep_r: Tensor | None = None
    total: Total | None = None
    output: Neurons | None = None
    """LSTM: s of the output gate's neurons from the relevance of h_t."""
    h: Tensor | None = None
    """LSTM: o ⊙ tanh(c_t)"""
    projection: Total | None = None
    """LSTM: the output, which is projected."""
    reset: Tensor | None = None
    """GRU: what the part of h_t-1 in the linear layer is multiplied by."""


class Sweep:
    """The recursion back through one layer in one direction. A state's relevance is ``a * c + r``, as in a message.

    A step is as few operations as can be, where no relevance r is on its way:

        s_t   = on_t+1 ⊙ s_t+1 + into_t ⊙ c_t      c_t: the coefficient of h_t, from above and from step t+1
        c_t-1 = (share_t ⊙ s_t) U
    """

    def __init__(self, run: Unrolled, epsilon: float, gates: str, step: Step):
        self.run, self.k = run, run.factors(epsilon, gates, step)
        self.redistributed = step.bias == "redistribute"

    def back(self, above: Message, finals: list[Message]) -> tuple[Message, list[Message]]:
        """Messages to the input and the initial states, from those to the outputs and the final states."""
        k, run, steps, redistributed = self.k, self.run, self.run.steps, self.redistributed
        p, gates = k.projection, len(k.blocks)
        w_x, w_h, w_out = run.weight("ih", k.rows), run.weight("hh", k.rows), run.weight("projection")
        assert w_x is not None
        assert w_h is not None
        evenly = self._evenly(w_x.shape[1] + w_h.shape[1])

        def at(x: Any) -> Any:
            return [None] * steps.number if x is None else steps.apart(x)

        c_above, r_above, into, into_r, on = at(above.c), at(above.r), at(k.into), at(k.into_r), at(k.on)
        share = at(k.blocks[0].share if gates == 1 else torch.cat([b.share for b in k.blocks], -1))  # type: ignore[misc]
        output, h = at(k.output and k.output.share), at(k.h)
        reset, spread = at(k.reset), at(evenly)
        p_damp, p_inverse, p_slack = at(p and p.damp), at(p and p.inverse), at(p and p.slack)
        all_neurons: list[Tensor] = []
        all_s: list[Tensor] = []
        all_projected: list[Tensor] = []

        ends = [*finals[0], None]
        if len(finals) == 2 and k.total is not None:  # the message to the last cell state, as s of the last step
            damp, inverse = steps.last(k.total.damp), steps.last(k.total.inverse)
            ends[2] = add(_times(finals[1].c, damp), _times(finals[1].r, inverse))
        ends[0] = run.hidden.new_zeros(run.final[0].shape) if ends[0] is None else ends[0]
        c: Any = None
        s = r = None
        for t in reversed(range(steps.number)):
            c, r, s = steps.ending(t, [c, r, s], ends)
            c, r = add(c, c_above[t]), add(r, r_above[t])
            if w_out is not None:  # h_t = P m_t with m_t = o ⊙ tanh(c_t)
                projected = add(_times(c, p_damp[t]), _times(r, p_inverse[t]))
                all_projected.append(projected)
                c = projected @ w_out
                r = (projected * p_slack[t]).sum(1, keepdim=True) / w_out.shape[1] if redistributed else None
            s = add(_plus_times(s, c, into[t]), _times(r, into_r[t]))
            neurons = _times(s if gates == 1 else s.repeat(1, gates), share[t])
            if output[t] is not None:
                neurons = torch.cat([neurons, output[t] * add(c * h[t], r)], 1)
            all_s.append(s)
            all_neurons.append(neurons)
            c = _times(neurons, reset[t]) @ w_h
            r = None if evenly is None else (neurons * spread[t]).sum(1, keepdim=True)
            s = None if k.on is None else s * on[t]

        neurons = steps.joined(all_neurons[::-1])
        self._s = neurons, all_s, all_projected
        to_x = Message(linear(neurons, w_x.mT))
        if evenly is not None:
            even = (neurons * evenly).sum(-1, keepdim=True)
            to_x = Message(to_x.c, even.expand(*even.shape[:-1], w_x.shape[1]))
        hidden = Message(c, r if r is None else r.expand(c.shape))
        if k.keep is None:
            return to_x, [hidden]
        first, r_kept = all_s[-1], k.keep_r
        summand = Message(first * steps.first(k.keep), None if r_kept is None else first * steps.first(r_kept))
        return to_x, [hidden, summand] if len(finals) == 2 else [hidden.plus(summand)]

    def absorbed(self) -> Iterator[tuple[str, Tensor]]:
        """What biases and stabilisers took, unless it is redistributed: s times their value."""
        if self.redistributed:
            return
        neurons, sums, projected = self._s
        taken: list[tuple[str, Any, Tensor | None]] = [
            ("bias", neurons, self._bias()),
            ("stabiliser", neurons, self._slack()),
            ("stabiliser", sums, self.k.total and self.k.total.slack),
            ("stabiliser", projected, self.k.projection and self.k.projection.slack),
        ]
        for kind, s, value in taken:
            if value is not None:
                yield kind, value * (self.run.steps.joined(s[::-1]) if isinstance(s, list) else s)

    def _evenly(self, inputs: int) -> Tensor | None:
        """(b + ε sign z) / N of the linear layer: the part of each of its inputs, where that is redistributed."""
        absorbed = add(self._bias(), self._slack()) if self.redistributed else None
        return absorbed if absorbed is None else absorbed / inputs

    def _bias(self) -> Tensor | None:
        return _side_by_side([b.bias for b in self._blocks], self.run.hidden)

    def _slack(self) -> Tensor | None:
        return _side_by_side([b.slack for b in self._blocks], self.run.hidden)

    @property
    def _blocks(self) -> list[Neurons]:
        return [*self.k.blocks, *([] if self.k.output is None else [self.k.output])]


def _side_by_side(parts: list[Any], like: Tensor) -> Tensor | None:
    """The values of all gates' neurons, zero where a gate has none."""
    if all(part is None for part in parts):
        return None
    size = next(p.shape[-1] for p in parts if p is not None)
    shape = (*like.shape[:-1], size)
    return torch.cat([like.new_zeros(shape) if p is None else p.expand(shape) for p in parts], -1)


def _left(takes: Tensor | None, x: Any) -> Any:
    """What a gate leaves of x to its signal."""
    return x if takes is None or x is None else (1 - takes) * x


def _times(x: Any, factor: Any) -> Any:
    return x if x is None or factor is None else x * factor


def _plus_times(x: Any, y: Any, factor: Any) -> Any:
    return add(x, _times(y, factor)) if x is None or factor is None else torch.addcmul(x, y, factor)
