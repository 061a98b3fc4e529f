"""LSTM, GRU and RNN: the recursion that takes relevance back through time, and the equations of its factors.

An LSTM in the letters of Hochreiter and of Arras et al. (2017, 2019). Sums share relevance in proportion (LRP-ε),
nonlinearities pass it on, and of a product gate ⊙ signal the signal takes all (LRP-all). In step t:

    a   = W x_t + U h_t-1 + b            R(x_t) and R(h_t-1) from R(a_g), by LRP-ε
    i, f, o = σ(a_i), σ(a_f), σ(a_o);  g = tanh(a_g)
    c_t = f ⊙ c_t-1 + i ⊙ g              R(c_t-1) = f ⊙ c_t-1 ⊙ s_t  and  R(a_g) = i ⊙ g ⊙ s_t
                                         with s_t = R(c_t) / (c_t + ε sign c_t)
    h_t = o ⊙ tanh(c_t)                  R(c_t) += R(h_t)

Every line is linear in relevance, so the way back is a recursion of s whose factors are known before it starts. Where
R(h_t) = h_t ⊙ c, as in every message (this c is a coefficient, c_t a cell state), it is

    s_t = c_to_s_t ⊙ c + s_to_s_before_t+1 ⊙ s_t+1         c is that of h_t: from above, and from step t + 1
    s_a = s_to_a_t ⊙ s_t                                   R(a_g) / (a_g + ε sign a_g)
    c   = s_a U                                            that of h_t-1; with W for U, that of x_t

The sum of a GRU is h_t itself; an RNN has none. Gates that get relevance (gates.py) are more rows of U and W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..graph.kernels import linear
from .gates import Denominator, Gate, GatePolicy
from .message import Message, add
from .unrolled import Unrolled

__all__ = ["EQUATIONS", "Projection", "Recursion", "gru", "lstm", "rnn"]


@dataclass
class Recursion:
    """The way back through one layer in one direction. Factors are for all steps at once."""

    run: Unrolled
    policy: GatePolicy
    gates: list[Gate]
    """The signal alone, or the gates as well, in the order of their rows in W and U."""
    c_to_s: Tensor
    r_to_s: Tensor | None
    """From relevance r that is no multiple of h_t; None if there is none."""
    s_to_s_before: Tensor | None = None
    s_to_c_initial: Tensor | None = None
    s_to_r_initial: Tensor | None = None
    sum: Denominator | None = None
    """What s belongs to: c_t of an LSTM, h_t of a GRU. An RNN has no sum; its s is that of the linear layer."""
    reset: Tensor | None = None
    """GRU: what U h_t-1 is multiplied by."""
    output: Gate | None = None
    """LSTM: the gate o. Its part comes from c and r, not by way of s; its rows are the last."""
    projection: Projection | None = None

    def back(self, above: Message, finals: list[Message]) -> tuple[Message, list[Message]]:
        """Messages to the input and the initial states, from those to the outputs and the final states."""
        run, steps, u = self.run, self.run.steps, self.run.u(self.rows)
        above = above.each(run.in_time).plus(finals[0].each(steps.at_last))  # the final h is that of the last step
        c_above, r_above = run.apart(torch.zeros_like(run.h) if above.c is None else above.c), run.apart(above.r)
        c_to_s, r_to_s, s_to_s_before = run.apart(self.c_to_s), run.apart(self.r_to_s), run.apart(self.s_to_s_before)
        evenly, reset, linear_layer = run.apart(self.evenly), run.apart(self.reset), self._linear_layer()
        s_final = self._s_of(finals[1]) if len(finals) == 2 and finals[1] else None
        self.s, self.s_a = [run.h] * steps.number, [run.h] * steps.number
        s: Any = None
        r = s_u = None
        for t in reversed(range(steps.number)):
            s, r, s_u = steps.widened(t, s, s_final), steps.widened(t, r), steps.widened(t, s_u)
            c = c_above[t] if s_u is None else torch.addmm(c_above[t], s_u, u)
            r = add(r, r_above[t])
            if self.projection is not None:
                c, r = self.projection.back(t, c, r)
            s = _plus_times(_plus_times(s, c, c_to_s[t]), r, r_to_s[t])  # R(c_t) += R(h_t)
            s_a = linear_layer(t, s, c, r)
            self.s[t], self.s_a[t] = s, s_a
            s = None if s_to_s_before[t] is None else s * s_to_s_before[t]  # R(c_t-1) = f ⊙ c_t-1 ⊙ s_t
            s_u = s_a if reset[t] is None else s_a * reset[t]
            r = None if evenly[t] is None else (s_a * evenly[t]).sum(1, keepdim=True)
        assert s_u is not None
        return self._to_input(), self._to_initial(s_u @ u, r)

    @property
    def rows(self) -> slice:
        """Rows of W and U that relevance goes through. The signal's are the third: i, f, g, o and r, z, n."""
        size = self.c_to_s.shape[-1]
        return slice(None) if self.policy.gated or self.sum is None else slice(2 * size, 3 * size)

    def _linear_layer(self) -> Callable[..., Tensor]:
        """The function of t, s, c and r that gives s of the linear layer, R(a) / (a + ε sign a)."""
        if self.sum is None:
            return lambda t, s, c, r: s
        several = len(self.gates)
        s_to_a = self.run.apart(torch.cat([gate.share for gate in self.gates], -1))
        if several == 1:
            return lambda t, s, c, r: s * s_to_a[t]
        if self.output is None:
            return lambda t, s, c, r: s.repeat(1, several) * s_to_a[t]
        c_to_o, r_to_o = self.run.apart(self.output.share), self.run.apart(self.output.r_share)
        return lambda t, s, c, r: torch.cat(
            [s.repeat(1, several) * s_to_a[t], _plus_times(c * c_to_o[t], r, r_to_o[t])], 1
        )

    def _s_of(self, final: Message) -> Tensor | None:
        """s of the last step, from the message to the final c."""
        assert self.sum is not None
        last, inverse = self.run.steps.last, self.policy.inverse(self.sum)
        s = None if final.c is None else final.c * last(self.sum.under(self.sum.z))
        return s if final.r is None or inverse is None else _plus_times(s, final.r, last(inverse))

    def _to_input(self) -> Message:
        w, s_a = self.run.w(self.rows), self.run.steps.joined(self.s_a)
        c = linear(s_a, w.mT)
        r = None if self.evenly is None else (s_a * self.evenly).sum(-1, keepdim=True).expand_as(c)
        return Message(c, r).each(self.run.in_time)

    def _to_initial(self, c: Tensor, r: Tensor | None) -> list[Message]:
        """To the first h as an input of the linear layer, and to what is a summand in the first step."""
        hidden = Message(c, None if r is None else r.expand_as(c))
        if self.s_to_c_initial is None:
            return [hidden]
        factors = Message(self.s_to_c_initial, self.s_to_r_initial)
        summand = factors.each(lambda factor: self.s[0] * self.run.steps.first(factor))
        return [hidden, summand] if len(self.run.final) == 2 else [hidden.plus(summand)]

    # -- what biases and stabilisers take -----------------------------------------------------------------------------

    @cached_property
    def evenly(self) -> Tensor | None:
        """(b + ε sign a) / N for each of a neuron's N inputs, where that is redistributed."""
        absorbed = add(self._of_all("bias"), self._of_all("slack")) if self.policy.redistributes else None
        inputs = self.run.parameters.w.shape[1] + self.run.parameters.u.shape[1]
        return None if absorbed is None else absorbed / inputs

    def absorbed(self) -> Iterator[tuple[str, Tensor]]:
        """What biases and stabilisers took in the last sweep, unless it is redistributed: s times their value."""
        if self.policy.redistributes:
            return
        taken = [("bias", self.s_a, self._of_all("bias")), ("stabiliser", self.s_a, self._of_all("slack"))]
        if self.sum is not None:
            taken.append(("stabiliser", self.s, self.sum.slack))
        if self.projection is not None:
            taken.append(("stabiliser", self.projection.s, self.projection.h.slack))
        for kind, s, value in taken:
            if value is not None:
                yield kind, value * self.run.steps.joined(s)

    def _of_all(self, name: str) -> Tensor | None:
        """The bias or slack of all neurons, zero for gates without; None if no gate has one."""
        gates = self.gates if self.output is None else [*self.gates, self.output]
        values = [(gate.a.z, getattr(gate, name)) for gate in gates]
        if all(value is None for _, value in values):
            return None
        return torch.cat([torch.zeros_like(a) if value is None else value.expand_as(a) for a, value in values], -1)


class Projection:
    """h_t = P m_t of an LSTM, where m_t = o ⊙ tanh(c_t): a linear layer without a bias, by LRP-ε."""

    def __init__(self, run: Unrolled, p: Tensor, policy: GatePolicy):
        self.p, self.h, self.s = run.accumulate(p), policy.sum(run.h), [run.h] * run.steps.number
        self._c_to_s, self._r_to_s = run.apart(self.h.under(run.h)), run.apart(policy.inverse(self.h))
        slack = self.h.slack if policy.redistributes else None
        self._evenly = run.apart(None if slack is None else slack / p.shape[1])

    def back(self, t: int, c: Tensor, r: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The message to m_t from that to h_t."""
        s, evenly = _plus_times(c * self._c_to_s[t], r, self._r_to_s[t]), self._evenly[t]
        self.s[t] = s
        return s @ self.p, None if evenly is None else (s * evenly).sum(1, keepdim=True)


def _plus_times(x: Any, y: Any, factor: Any) -> Any:
    """``x + y * factor``; None stands for zero"""
    if x is None or y is None:
        return x if y is None else y * factor
    return torch.addcmul(x, y, factor)


# ---------------------------------------------------------------------------------------------------------------------
# The equations, for all steps at once
# ---------------------------------------------------------------------------------------------------------------------


def lstm(run: Unrolled, policy: GatePolicy) -> Recursion:
    """c_t = f ⊙ c_t-1 + i ⊙ g,  h_t = o ⊙ tanh(c_t)"""
    a_i, a_f, a_g, a_o = (run.from_x + run.from_h).chunk(4, -1)
    b_i, b_f, b_g, b_o = (add(b, d) for b, d in run.biases(4))
    i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
    c_before, c = run.cell_states(f, i * g)
    h = o * c.tanh()
    total = policy.sum(c)
    half = policy.half(total)
    keep, enter = add(f * c_before, half), add(i * g, half)
    i_g, f_c, o_h = policy.product(a_i, a_g), policy.product(a_f, c_before), policy.product(a_o, c)
    gates, output = [policy.gate(a_g, b_g, i_g.signal(enter), limit=i_g.signal(i))], None
    if policy.gated:
        gates = [policy.gate(a_i, b_i, i_g.gate(enter)), policy.gate(a_f, b_f, f_c.gate(keep)), *gates]
        output = policy.gate(a_o, b_o, o_h.gate(h))
        output = output._replace(r_share=o_h.gate(policy.inverse(output.a)))
    return Recursion(
        run,
        policy,
        gates,
        c_to_s=total.under(o_h.signal(h), limit=o_h.signal(o)),
        r_to_s=o_h.signal(policy.inverse(total)),
        s_to_s_before=policy.sum(c_before).under(f_c.signal(keep), limit=f_c.signal(f)),
        s_to_c_initial=f_c.signal(f),
        s_to_r_initial=f_c.signal(half),
        sum=total,
        output=output,
        projection=None if run.parameters.p is None else Projection(run, run.parameters.p, policy),
    )


def gru(run: Unrolled, policy: GatePolicy) -> Recursion:
    """h_t = (1 - z) ⊙ n + z ⊙ h_t-1,  n = tanh(W x_t + b + r ⊙ (U h_t-1 + d))"""
    h_before, h = run.h_before, run.h
    (x_r, x_z, x_n), (h_r, h_z, h_n) = run.from_x.chunk(3, -1), run.from_h.chunk(3, -1)
    (b_r, d_r), (b_z, d_z), (b_n, d_n) = run.biases(3)
    a_r, a_z = x_r + h_r, x_z + h_z
    r, z = a_r.sigmoid(), a_z.sigmoid()
    a_n = x_n + r * h_n
    total = policy.sum(h)
    half = policy.half(total)
    keep, enter = add(z * h_before, half), add((1 - z) * a_n.tanh(), half)
    r_h, z_n, z_h = policy.product(a_r, h_n), policy.product(-a_z, a_n), policy.product(a_z, h_before)
    reset = r_h.signal(r)
    b = None if d_n is None else add(b_n, (r if policy.bias == "zero" else reset) * d_n)
    gates = [policy.gate(a_n, b, z_n.signal(enter), limit=z_n.signal(1 - z))]
    if policy.gated:
        signal = h_n - d_n if policy.bias == "zero" and d_n is not None else h_n
        gates = [
            policy.gate(a_r, add(b_r, d_r), r_h.gate(r * signal * gates[0].share)),
            policy.gate(a_z, add(b_z, d_z), z_n.gate(enter) + z_h.gate(keep)),
            *gates,
        ]
        reset = torch.cat([torch.ones_like(r), torch.ones_like(z), reset], -1)
    return Recursion(
        run,
        policy,
        gates,
        c_to_s=total.under(h),
        r_to_s=policy.inverse(total),
        s_to_s_before=policy.sum(h_before).under(z_h.signal(keep), limit=z_h.signal(z)),
        s_to_c_initial=z_h.signal(z),
        s_to_r_initial=z_h.signal(half),
        sum=total,
        reset=reset,
    )


def rnn(run: Unrolled, policy: GatePolicy) -> Recursion:
    """h_t = tanh(W x_t + U h_t-1 + b), or max(0, W x_t + U h_t-1 + b): its s is that of the linear layer"""
    a, b = run.from_x + run.from_h, add(*run.biases(1)[0])
    slope = 1.0 if run.kernel is torch.rnn_tanh else 0.0
    layer = policy.gate(a, b, run.h, limit=None if policy.relevance else slope)
    return Recursion(run, policy, [layer], layer.share, policy.inverse(layer.a))


EQUATIONS = {torch.lstm: lstm, torch.gru: gru, torch.rnn_tanh: rnn, torch.rnn_relu: rnn}
