"""The named composites, and what "auto" stands for.

A composite of your own is a list of pairs::

    relprop.Composite([(first(convolution()), ZBox(-3, 3)), (convolution(), Gamma(0.25)), (dense(), Epsilon(0.1))])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch.fx import Node

from . import select
from .composite import Composite
from .errors import RuleError, SelectionError
from .rules import (
    CPLRP,
    LRP0,
    AlphaBeta,
    AttnLRP,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    HoldStatistics,
    Norm,
    Recurrent,
    Rule,
    Stop,
    ZBox,
    ZPlus,
)
from .rules.layers import LAYER_KINDS
from .scope import Scope, Selector

Name = Literal[
    "attnlrp", "cp_lrp", "epsilon", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box", "epsilon_lrp0", "epsilon_plus", "epsilon_plus_flat", "excitation_backprop",
    "gamma", "gamma_epsilon", "gradient", "lrp0", "mamba_lrp", "signal_takes_all", "zones",
]  # fmt: skip
"""The names of the composites that come with relprop, for type checkers."""

Choice = Name | Literal["auto"] | Composite | Rule | Sequence[tuple[Selector, Rule]] | Callable[[], Composite] | None
"""What may be given for a composite."""


def of(composite: Any) -> Composite | None:
    """A composite from what users may give: a name, a composite, a rule, pairs, or None. "auto" gives None.

    Raises:
        SelectionError: if there is no composite of that name.
        RuleError: if it is none of these.
    """
    if composite is None or composite == "auto":
        return None
    if isinstance(composite, Composite):
        return composite
    if isinstance(composite, Rule):
        return Composite(_meant_for(composite), name=str(composite), strict=False)
    if isinstance(composite, str):
        if composite not in NAMED:
            known = ", ".join(["auto", *sorted(NAMED)])
            raise SelectionError(f"there is no composite {composite!r}; choose among {known}")
        return NAMED[composite]()
    if isinstance(composite, (list, tuple)):
        return Composite(composite)
    if callable(composite) and isinstance(made := composite(), Composite):
        return made
    raise RuleError(f"composite must be a name, a Composite, a rule or (selector, rule) pairs, got {composite!r}")


def _meant_for(rule: Rule) -> tuple[tuple[Selector, Rule], ...]:
    """A rule alone stands for every operation that it is meant for."""
    match rule:
        case Gradient():
            return ((select.everything(), rule),)
        case Recurrent():
            return ((select.recurrent(), rule),)
        case HoldStatistics():
            return ((select.norm(), rule),)
        case Epsilon():
            return ((_LAYERS, rule), *_inside(rule))
        case _:
            return ((_LAYERS, rule),)


NAMED: dict[str, Callable[..., Composite]] = {}


def named(make: Callable[..., Composite]) -> Callable[..., Composite]:
    """Make a composite available by name."""
    NAMED[make.__name__] = make
    return make


def _composite(name: str, *pairs: tuple[Selector, Rule], note: str = "") -> Composite:
    return Composite(pairs, name=name, strict=False, note=note)


# -- the classic rules, everywhere ------------------------------------------------------------------------------------


@named
def lrp0() -> Composite:
    """LRP-0 at every linear operation (Bach et al. 2015, Eq. 56): gradient x input on ReLU networks."""
    return _composite("lrp0", (_LAYERS, LRP0()))


@named
def epsilon(epsilon: float = 1e-6, relative: bool = False) -> Composite:
    """LRP-ε at every linear operation (Bach et al. 2015, Eq. 58), also at those inside recurrent layers and norms.

    A relative ε is one of layers alone: inside of recurrent layers and norms ε is then 0.
    """
    return _composite("epsilon", *_meant_for(Epsilon(epsilon, relative)))


@named
def epsilon_lrp0(epsilon: float = 1e-6) -> Composite:
    """LRP-ε, and LRP-0 in the layer that the output comes from: all of what is explained is handed on by it.

    The order of rules of Montavon et al. 2019, §10.3, where there is no γ. In that layer nothing but the explained
    output itself is divided by, so that no ε is needed.
    """
    return _composite("epsilon_lrp0", (select.last(select.linear()), LRP0()), *_meant_for(Epsilon(epsilon)))


@named
def signal_takes_all(epsilon: float = 1e-3) -> Composite:
    """For recurrent networks, also written by hand: LRP-ε, and of gate and signal the signal takes all (LRP-all).

    Arras et al. 2017 ("Explaining Recurrent Neural Network Predictions in Sentiment Analysis"), with their ε.
    """
    recurrent = (select.recurrent(), Recurrent(epsilon))
    return _composite("signal_takes_all", (select.gate(), Stop()), (_LAYERS, Epsilon(epsilon)), recurrent)


@named
def gamma(gamma: float = 0.25) -> Composite:
    """LRP-γ at convolutions, LRP-ε at dense layers."""
    return _composite("gamma", (_CONVOLUTIONS, Gamma(gamma)), (select.dense(), Epsilon()))


@named
def gradient() -> Composite:
    """Gradient x input: the plain gradient at every operation, for comparison."""
    return _composite("gradient", (select.everything(), Gradient()))


@named
def zones(low: Any = -3.0, high: Any = 3.0, gamma: float = 0.25, epsilon: float = 0.25) -> Composite:
    """Rules by depth as the introduction has them (Montavon et al. 2019, §10.3, VGG-16).

    z^B at the input, LRP-γ in the lower layers, LRP-ε (relative to the layer's scale) in the higher layers, LRP-0 at
    the output.
    """
    return _composite(
        "zones",
        (select.first(select.linear()), ZBox(low, high)),
        (select.last(select.linear()), LRP0()),
        (select.linear() & select.depth(0.0, 0.6), Gamma(gamma)),
        (select.linear(), Epsilon(epsilon, relative=True)),
    )


@named
def gamma_epsilon(gamma: float = 0.25, epsilon: float = 0.25, depth: float = 0.6) -> Composite:
    """LRP-γ in the lower layers, LRP-ε (relative to the layer's scale) in the higher layers, LRP-0 at the output.

    It is :func:`zones` without bounds of the input. "auto" takes it for convolutional networks: of some fifty choices
    it orders the patches of photographs best by what the network uses, and it tells classes apart where γ everywhere
    does not (docs/composite_choice.md).
    """
    return _composite(
        "gamma_epsilon",
        (select.last(select.linear()), LRP0()),
        (_LAYERS & select.depth(0.0, depth), Gamma(gamma)),
        (_LAYERS, Epsilon(epsilon, relative=True)),
    )


# -- zennit's names and meanings --------------------------------------------------------------------------------------


@named
def epsilon_plus(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:
    """LRP-z⁺ at convolutions, LRP-ε at dense layers (Kohlbrenner et al. 2020, LRP-CMP:α1)."""
    return _composite(
        "epsilon_plus", (_CONVOLUTIONS, ZPlus(stabilizer)), (select.dense(), Epsilon(epsilon)), *_sums(stabilizer)
    )


@named
def epsilon_alpha2_beta1(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:
    """LRP-α2β1 at convolutions, LRP-ε at dense layers (Kohlbrenner et al. 2020, LRP-CMP:α2)."""
    return _composite(
        "epsilon_alpha2_beta1",
        (_CONVOLUTIONS, AlphaBeta(2.0, 1.0, stabilizer)),
        (select.dense(), Epsilon(epsilon)),
        *_sums(stabilizer),
    )


@named
def epsilon_gamma_box(
    low: Any = -3.0, high: Any = 3.0, gamma: float = 0.25, epsilon: float = 1e-6, stabilizer: float = 1e-6
) -> Composite:
    """z^B at the first convolution, LRP-γ at the others, LRP-ε at dense layers (Montavon et al. 2019)."""
    return _composite(
        "epsilon_gamma_box",
        (select.first(select.convolution()), ZBox(low, high, stabilizer)),
        (_CONVOLUTIONS, Gamma(gamma, stabilizer)),
        (select.dense(), Epsilon(epsilon)),
        *_sums(stabilizer),
    )


@named
def epsilon_plus_flat(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:
    """epsilon_plus with the flat rule at the first linear operation (Lapuschkin et al. 2019)."""
    return _composite(
        "epsilon_plus_flat", (select.first(select.linear()), Flat(stabilizer)), *epsilon_plus(epsilon, stabilizer).pairs
    )


@named
def epsilon_alpha2_beta1_flat(epsilon: float = 1e-6, stabilizer: float = 1e-6) -> Composite:
    """epsilon_alpha2_beta1 with the flat rule at the first linear operation."""
    return _composite(
        "epsilon_alpha2_beta1_flat",
        (select.first(select.linear()), Flat(stabilizer)),
        *epsilon_alpha2_beta1(epsilon, stabilizer).pairs,
    )


@named
def excitation_backprop(stabilizer: float = 1e-6) -> Composite:
    """LRP-z⁺ at every linear operation (Zhang et al. 2016)."""
    return _composite("excitation_backprop", (_LAYERS, ZPlus(stabilizer)), *_sums(stabilizer))


# -- transformers -----------------------------------------------------------------------------------------------------


@named
def attnlrp(epsilon: float = 1e-6, gamma: float = 0.0, conv_gamma: float = 0.25) -> Composite:
    """AttnLRP (Achtibat et al., ICML 2024): softmax by its expansion, products by halves, norms with held statistics.

    Args:
        epsilon: ε of the linear layers.
        gamma: γ of the linear layers instead, if positive (the paper takes 0.05 in vision transformers).
        conv_gamma: γ of convolutions, such as a patch embedding (0.25 in the paper).
    """
    dense: Rule = Gamma(gamma) if gamma else Epsilon(epsilon)
    convolution: Rule = Gamma(conv_gamma) if conv_gamma else Epsilon(epsilon)
    return _composite(
        "attnlrp",
        (_CONVOLUTIONS, convolution),
        (select.dense(), dense),
        (select.attention(), AttnLRP()),
    )


@named
def cp_lrp(epsilon: float = 1e-6, gamma: float = 0.0, conv_gamma: float = 0.25) -> Composite:
    """CP-LRP (Ali et al., ICML 2022): attention weights and gates are held constant, the rest as :func:`attnlrp`.

    All relevance of an attention layer goes to the values, and that of a gated product to the side that is no gate.
    """
    return _composite(
        "cp_lrp",
        (select.attention(), CPLRP()),
        (select.gate(), Stop()),
        *attnlrp(epsilon, gamma, conv_gamma).pairs,
    )


@named
def mamba_lrp(epsilon: float = 1e-6) -> Composite:
    """MambaLRP (Jafari et al., NeurIPS 2024): the parameters of the state space (Δ, A, B, C) are held constant.

    What they multiply, the signal, takes all relevance. SiLU passes relevance on, the output gate gets half, and the
    statistics of norms are held, as everywhere.
    """
    return _composite("mamba_lrp", (select.state_space(), Stop()), *attnlrp(epsilon, conv_gamma=0.0).pairs)


_LAYERS = select.linear() | select.affine()
_CONVOLUTIONS = select.convolution() | select.affine()


def _inside(rule: Epsilon) -> tuple[tuple[Selector, Rule], ...]:
    """The same ε at the linear operations inside of recurrent layers and norms, which have a scale of their own."""
    epsilon = 0.0 if rule.relative else rule.epsilon
    return ((select.recurrent(), Recurrent(epsilon)), (select.norm(), HoldStatistics(epsilon)))


def _sums(stabilizer: float) -> tuple[tuple[Selector, Rule], ...]:
    """zennit explains sums and average pooling with its Norm rule: so do the composites that carry its names."""
    rule = Norm(stabilizer)
    return ((select.add(), rule), (select.average_pool(), rule))


def default(scope: Scope) -> Composite:
    """What "auto" stands for: chosen by what the graph contains. The choice and its reason are in the plan."""
    kinds = set(scope.kinds.values())
    if scope.matches(select.state_space()):
        composite, reason = mamba_lrp(), "the graph has a state space with selective parameters"
    elif "attention" in kinds or any(kind == "softmax" and not _is_last(n, scope) for n, kind in scope.kinds.items()):
        composite, reason = attnlrp(), "the graph has attention"
    elif "recurrent" in kinds:
        composite, reason = signal_takes_all(), "the graph has recurrent layers"
    elif "convolution" in kinds:
        composite, reason = gamma_epsilon(), "the graph is convolutional"
    elif scope.matches(select.gate()):
        composite, reason = signal_takes_all(), "the graph is made of dense layers and gates, as recurrent cells are"
    else:
        composite, reason = epsilon_lrp0(), "the graph is made of dense layers"
    pairs = composite.pairs
    if scope.matches(_COMPLEX):
        pairs = ((_COMPLEX, Epsilon()), *pairs)
    return Composite(pairs, name=composite.name, strict=False, note=f"auto: {reason}")


def _is_complex(node: Node, scope: Scope) -> bool:
    return scope.kinds[node] in LAYER_KINDS and bool(node.meta["val"].dtype.is_complex)


_COMPLEX = Selector("complex layers", _is_complex)
"""Linear operations on complex numbers, which γ is not defined for."""


def _is_last(node: Node, scope: Scope) -> bool:
    """Whether nothing but views stands between an operation and the output: a classifier's softmax is no attention."""
    users = [user for user in node.users if user.op != "output"]
    return all(scope.kinds.get(user) == "structural" and _is_last(user, scope) for user in users)


__all__ = ["NAMED", "Composite", "default", "named", "of", *sorted(NAMED)]
