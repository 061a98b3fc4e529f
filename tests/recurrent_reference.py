"""LRP of LSTM, GRU and RNN, unrolled: the reference that relprop.rules.Recurrent is held to.

Written from the papers (Arras et al. 2017 and 2019; Ding et al. 2017; Arjona-Medina et al. 2019), one sample and one
step at a time. Nothing is fast or clever here: relevance itself is what flows, every linear layer is the matrix of its
contributions z_kj = w_kj a_j, and nothing is taken from the engine.

    linear layer   R_j = sum_k (z_kj + u_k / N) / (z_k + s_k) R_k    z_k = sum_j z_kj + b_k,  s_k = epsilon sign z_k
    sum of two     the same with weights one and N = 2
    gate * signal  "all": the signal takes R; otherwise the gate takes a part p, by what enters the nonlinearities:
                   "prop" p = z_g / (z_g + z_s), "abs" p = |z_g| / (|z_g| + |z_s|), "half" p = 1/2
    nonlinearity   R passes

What is handed out evenly is u = 0 where biases and stabilisers keep their share ("absorb"), u = b + s under
"redistribute", and u = s, b = 0 under "zero".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Rules:
    """One choice of rules, and what biases and stabilisers have absorbed under it."""

    epsilon: float = 0.0
    gates: str = "all"
    policy: str = "absorb"
    absorbed: dict[str, float] = field(default_factory=lambda: {"bias": 0.0, "stabiliser": 0.0})

    def share(self, contributions: Tensor, bias: Tensor, relevance: Tensor) -> Tensor:
        """R_kj of the contributions [K, J] to neurons k."""
        if self.policy == "zero":
            bias = torch.zeros_like(bias)
        z = contributions.sum(1) + bias
        stabiliser = self.epsilon * torch.where(z < 0, -1.0, 1.0).to(z)
        s = relevance / (z + stabiliser)
        if self.policy == "redistribute":
            contributions = contributions + ((bias + stabiliser) / contributions.shape[1])[:, None]
        else:
            self.absorbed["bias"] += float((s * bias).sum())
            self.absorbed["stabiliser"] += float((s * stabiliser).sum())
        return contributions * s[:, None]

    def sum_of_two(self, x: Tensor, y: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        shared = self.share(torch.stack([x, y], 1), torch.zeros_like(x), relevance)
        return shared[:, 0], shared[:, 1]

    def product(self, z_gate: Tensor, z_signal: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance of the gate, and of the signal."""
        part = {
            "all": lambda: torch.zeros_like(z_gate),
            "prop": lambda: z_gate / (z_gate + z_signal),
            "abs": lambda: z_gate.abs() / (z_gate.abs() + z_signal.abs()),
            "half": lambda: torch.full_like(z_gate, 0.5),
        }[self.gates]()
        return part * relevance, (1 - part) * relevance


def split(relevance: Tensor, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Relevance of contributions [K, J] -> of the inputs, which are two vectors side by side."""
    x, h = relevance.sum(0).split(sizes)
    return x, h


@dataclass
class Layer:
    """One layer in one direction."""

    w: Tensor
    u: Tensor
    b: Tensor
    d: Tensor
    projection: Tensor | None = None
    nonlinearity: str = "tanh"

    @property
    def both(self) -> Tensor:
        return torch.cat([self.w, self.u], 1)


class LSTM(Layer):
    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        h, c = state
        a_i, a_f, a_g, a_o = (self.w @ x + self.b + self.u @ h + self.d).chunk(4)
        i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
        new = f * c + i * g
        m = o * new.tanh()
        kept = {"a_i": a_i, "a_f": a_f, "a_g": a_g, "a_o": a_o, "keep": f * c, "enter": i * g, "c": c, "new": new}
        kept |= {"m": m, "x": x, "h": h}
        return [m if self.projection is None else self.projection @ m, new], kept

    def back(self, rules: Rules, k: dict[str, Tensor], relevance: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        r_h, r_c = relevance
        if self.projection is not None:
            r_h = rules.share(self.projection * k["m"], torch.zeros_like(r_h), r_h).sum(0)
        r_o, r_tanh = rules.product(k["a_o"], k["new"], r_h)
        r_keep, r_enter = rules.sum_of_two(k["keep"], k["enter"], r_c + r_tanh)
        r_f, r_before = rules.product(k["a_f"], k["c"], r_keep)
        r_i, r_g = rules.product(k["a_i"], k["a_g"], r_enter)
        inputs = torch.cat([k["x"], k["h"]])
        shared = rules.share(self.both * inputs, self.b + self.d, torch.cat([r_i, r_f, r_g, r_o]))
        r_x, r_h = split(shared, (len(k["x"]), len(k["h"])))
        return r_x, [r_h, r_before]


class GRU(Layer):
    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        (h,) = state
        (x_r, x_z, x_n), (h_r, h_z, h_n) = (self.w @ x + self.b).chunk(3), (self.u @ h + self.d).chunk(3)
        a_r, a_z = x_r + h_r, x_z + h_z
        r, z = a_r.sigmoid(), a_z.sigmoid()
        a_n = x_n + r * h_n
        kept = {"a_r": a_r, "a_z": a_z, "a_n": a_n, "r": r, "h_n": h_n, "x": x, "h": h}
        kept |= {"enter": (1 - z) * a_n.tanh(), "keep": z * h}
        return [kept["enter"] + kept["keep"]], kept

    def back(self, rules: Rules, k: dict[str, Tensor], relevance: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        hidden, sizes = len(k["h"]), (len(k["x"]), len(k["h"]))
        b_n, d_n = self.b[2 * hidden :], self.d[2 * hidden :]
        r_enter, r_keep = rules.sum_of_two(k["enter"], k["keep"], relevance[0])
        r_z1, r_n = rules.product(-k["a_z"], k["a_n"], r_enter)  # 1 - sigmoid(a) = sigmoid(-a)
        r_z2, r_before = rules.product(k["a_z"], k["h"], r_keep)
        # The neuron a_n = W x + b + r * (U h + d): of each r * u_j h_j, and of r * d, the gate takes a part.
        part, _ = rules.product(k["a_r"], k["h_n"], torch.ones_like(r_n))
        from_x = self.w[2 * hidden :] * k["x"]
        from_h = self.u[2 * hidden :] * k["h"] * k["r"][:, None]
        taken = part * k["r"] * (k["h_n"] - d_n if rules.policy == "zero" else k["h_n"])
        bias = b_n + k["r"] * d_n
        if rules.policy == "zero":
            bias = torch.zeros_like(bias)
        z = from_x.sum(1) + from_h.sum(1) + bias
        stabiliser = rules.epsilon * torch.where(z < 0, -1.0, 1.0).to(z)
        s = r_n / (z + stabiliser)
        r_reset = s * taken
        kept_bias = bias if rules.policy == "zero" else b_n + (1 - part) * k["r"] * d_n
        contributions = torch.cat([from_x, from_h * (1 - part)[:, None]], 1)
        if rules.policy == "redistribute":
            contributions = contributions + ((kept_bias + stabiliser) / contributions.shape[1])[:, None]
        else:
            rules.absorbed["bias"] += float((s * kept_bias).sum())
            rules.absorbed["stabiliser"] += float((s * stabiliser).sum())
        r_x, r_h = split(contributions * s[:, None], sizes)
        gates = slice(0, 2 * hidden)
        inputs = torch.cat([k["x"], k["h"]])
        shared = rules.share(
            self.both[gates] * inputs, self.b[gates] + self.d[gates], torch.cat([r_reset, r_z1 + r_z2])
        )
        gates_x, gates_h = split(shared, sizes)
        return r_x + gates_x, [r_h + gates_h + r_before]


class RNN(Layer):
    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        (h,) = state
        a = self.w @ x + self.b + self.u @ h + self.d
        return [a.tanh() if self.nonlinearity == "tanh" else a.relu()], {"x": x, "h": h}

    def back(self, rules: Rules, k: dict[str, Tensor], relevance: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        shared = rules.share(self.both * torch.cat([k["x"], k["h"]]), self.b + self.d, relevance[0])
        r_x, r_h = split(shared, (len(k["x"]), len(k["h"])))
        return r_x, [r_h]


# ---------------------------------------------------------------------------------------------------------------------
# A whole module
# ---------------------------------------------------------------------------------------------------------------------


def layers_of(module: nn.RNNBase | nn.RNNCellBase) -> list[list[Layer]]:
    """Every layer of a torch module in each of its directions, in double precision."""
    kind = (
        LSTM if isinstance(module, (nn.LSTM, nn.LSTMCell)) else GRU if isinstance(module, (nn.GRU, nn.GRUCell)) else RNN
    )

    def parameter(name: str, like: int) -> Tensor:
        value = getattr(module, name, None)
        return torch.zeros(like, dtype=torch.float64) if value is None else value.detach().double()

    def layer(suffix: str) -> Layer:
        w = getattr(module, f"weight_ih{suffix}").detach().double()
        u = getattr(module, f"weight_hh{suffix}").detach().double()
        projection = getattr(module, f"weight_hr{suffix}", None)
        return kind(
            w,
            u,
            parameter(f"bias_ih{suffix}", len(w)),
            parameter(f"bias_hh{suffix}", len(w)),
            None if projection is None else projection.detach().double(),
            getattr(module, "nonlinearity", "tanh"),
        )

    if isinstance(module, nn.RNNCellBase):
        return [[layer("")]]
    directions = ["", "_reverse"] if module.bidirectional else [""]
    return [[layer(f"_l{i}{d}") for d in directions] for i in range(module.num_layers)]


@dataclass
class Result:
    output: Tensor
    """[T, H * directions]"""
    final: list[Tensor]
    """h_n and c_n, [layers * directions, H]"""
    x: Tensor
    states: list[Tensor]
    """Relevance of the initial states."""


def explain(module: Any, rules: Rules, x: Tensor, states: list[Tensor], seed: Any) -> Result:
    """One sample x [T, D] with its initial states [layers * directions, H].

    ``seed(output, final)`` gives the relevance that each of them starts with.
    """
    layers = layers_of(module)
    memory: list[list[tuple[Layer, list[dict[str, Tensor]]]]] = []
    sequence, final, number = x, [], 0
    for layer in layers:
        outputs, memory_here = [], []
        for direction, one in enumerate(layer):
            state, kept, hidden = [s[number] for s in states], [], []
            for x_t in reversed(sequence) if direction else sequence:
                state, k = one.forward(x_t, state)
                kept.append(k)
                hidden.append(state[0])
            outputs.append(torch.stack(hidden[::-1] if direction else hidden))
            final.append(state)
            memory_here.append((one, kept))
            number += 1
        sequence = torch.cat(outputs, 1)
        memory.append(memory_here)
    output, stacked = sequence, [torch.stack(parts) for parts in zip(*final, strict=True)]

    r_sequence, r_final = seed(output, stacked)
    r_states = [torch.zeros_like(s) for s in states]
    for layer in reversed(memory):
        parts = r_sequence.chunk(len(layer), 1)
        number -= len(layer)
        r_below = torch.zeros(len(x), layer[0][1][0]["x"].shape[0], dtype=torch.float64)
        for direction, (one, kept) in enumerate(layer):
            relevance = [r[number + direction] for r in r_final]
            order = range(len(x)) if not direction else range(len(x) - 1, -1, -1)
            for k, t in reversed(list(zip(kept, order, strict=True))):
                relevance[0] = relevance[0] + parts[direction][t]
                r_x, relevance = one.back(rules, k, relevance)
                r_below[t] += r_x
            for r_state, r in zip(r_states, relevance, strict=True):
                r_state[number + direction] = r
        r_sequence = r_below
    return Result(output, stacked, r_sequence, r_states)
