"""Every rule on every kind of affine layer, held to the dense reference and, where the definitions agree, to zennit.

Tests named ``test_reference_*`` need no engine.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import warnings
from weakref import WeakKeyDictionary

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from . import reference as ref

TOLERANCE = 1e-8
BATCH = 3

# -------------------------------------------------------------------------------- what is tested

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear_no_bias": (lambda: nn.Linear(6, 5, bias=False), (6,)),
    "linear_sequence": (lambda: nn.Linear(4, 3), (3, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 7)),
    "conv1d_stride_padding": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 8)),
    "conv1d_dilation_groups": (lambda: nn.Conv1d(4, 6, 2, dilation=3, groups=2, padding=2), (4, 6)),
    "conv1d_no_bias": (lambda: nn.Conv1d(2, 3, 3, padding=1, bias=False), (2, 6)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 5, 5)),
    "conv2d_uneven": (lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 5, 4)),
    "conv2d_depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1), (3, 4, 4)),
    "conv2d_dilation_groups": (lambda: nn.Conv2d(2, 4, 3, dilation=2, padding=2, groups=2), (2, 5, 5)),
    "conv2d_same": (lambda: nn.Conv2d(2, 3, (2, 3), padding="same"), (2, 4, 4)),
    "conv2d_no_bias": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), (2, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2, stride=2, padding=1), (2, 3, 3, 4)),
    "conv3d_no_bias": (lambda: nn.Conv3d(2, 4, (1, 2, 3), dilation=(1, 2, 1), groups=2, bias=False), (2, 2, 4, 3)),
    "transpose1d": (lambda: nn.ConvTranspose1d(3, 2, 3), (3, 4)),
    "transpose1d_stride": (lambda: nn.ConvTranspose1d(3, 2, 3, stride=2, padding=1, output_padding=1), (3, 4)),
    "transpose1d_groups_no_bias": (lambda: nn.ConvTranspose1d(4, 2, 4, 3, groups=2, bias=False), (4, 3)),
    "transpose2d": (lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (3, 3, 3)),
    "transpose2d_uneven": (lambda: nn.ConvTranspose2d(2, 4, (2, 3), (1, 2), padding=(0, 1), groups=2), (2, 3, 3)),
    "transpose2d_dilation_no_bias": (lambda: nn.ConvTranspose2d(2, 3, 2, dilation=2, padding=1, bias=False), (2, 4, 4)),
    "transpose3d": (lambda: nn.ConvTranspose3d(3, 2, 2, stride=2), (3, 2, 2, 2)),
    "transpose3d_padding_groups": (lambda: nn.ConvTranspose3d(4, 2, 3, stride=2, padding=1, groups=2), (4, 2, 2, 2)),
}
"""name -> how to make the layer, shape of one input sample"""

ONE_OF_EACH = (
    "linear",
    "conv1d_dilation_groups",
    "conv2d_uneven",
    "conv3d",
    "transpose1d_stride",
    "transpose2d_uneven",
    "transpose3d",
)

UNCONNECTED = {
    "windows_in_the_padding": (lambda: nn.Conv1d(2, 3, 2, padding=2), (2, 4)),
    "gaps_of_a_transpose": (lambda: nn.ConvTranspose1d(2, 3, 2, stride=3), (2, 3)),
}
"""layers with outputs that no input reaches"""

RULES = {
    "lrp0": ref.LRP0(),
    "epsilon": ref.Epsilon(),
    "epsilon_.25": ref.Epsilon(epsilon=0.25),
    "epsilon_relative": ref.Epsilon(epsilon=0.25, relative=True),
    "gamma": ref.Gamma(),
    "gamma_100": ref.Gamma(gamma=100.0, stabilizer=1e-3),
    "alpha2_beta1": ref.AlphaBeta(),
    "alpha1_beta0": ref.AlphaBeta(alpha=1.0, beta=0.0, stabilizer=1e-3),
    "zplus": ref.ZPlus(),
    "zbox": ref.ZBox(low=-3.0, high=3.0),
    "wsquare": ref.WSquare(),
    "flat": ref.Flat(),
    "norm": ref.Norm(stabilizer=1e-3),
}

INPUTS = ("signed", "non_negative")


def make(layer: str, seed: int = 0, catalogue: dict = LAYERS) -> tuple[nn.Module, tuple[int, ...]]:
    build, shape = catalogue[layer]
    key = (layer, seed)
    if key not in MADE:
        torch.manual_seed(seed)
        MADE[key] = build().double()
    return MADE[key], shape


MADE: dict[tuple[str, int], nn.Module] = {}


def draw(kind: str, shape: tuple[int, ...], seed: int = 1, batch: int = BATCH) -> Tensor:
    """Inputs inside of the box of ``zbox``; the non-negative ones are zero half of the time, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, *shape, generator=generator, dtype=torch.float64).clamp(-3, 3)
    return x.relu() if kind == "non_negative" else x


def weights_of_output(y: Tensor, seed: int = 2) -> Tensor:
    """A functional of the output that wants some of it and rejects some: the seed relevance is y * v."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def functional(v: Tensor):
    return lambda y: (y * v).flatten(1).sum(1)


# -------------------------------------------------------------------------------- how it is compared


def ours(rule: ref.Rule):
    """The rule of relprop with the name and the parameters of one of the reference."""
    import relprop.rules

    given_ = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    return getattr(relprop.rules, type(rule).__name__)(**given_)


def engine(model: nn.Module, rule: ref.Rule, policy: str = "absorb"):
    """relprop under one rule; what was captured of a model is shared among the rules."""
    import relprop

    if model not in CAPTURED:
        CAPTURED[model] = relprop.LRP(model)
    return CAPTURED[model].using(ours(rule), bias=policy)


CAPTURED: WeakKeyDictionary[nn.Module, object] = WeakKeyDictionary()


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal within ``tolerance`` of one or of the largest entry, if that is larger."""
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    difference = (actual.detach() - expected.detach()).abs().max().item()
    assert difference <= tolerance * max(1.0, expected.abs().max().item()), difference


def by_kind(ledger) -> dict[str, Tensor]:
    """The sinks of every sample, added up over the nodes."""
    total: dict[str, Tensor] = {}
    for (kind, _node), amount in ledger.sinks.items():
        total[kind] = total.get(kind, 0) + amount
    return total


def assert_balanced(explanation, seed: Tensor) -> None:
    """seed = received + sinks for every sample, to 1e-9 of the amounts that were moved."""
    ledger = explanation.ledger
    batch = len(seed)
    assert ledger.seed.shape == ledger.received.shape == ledger.residual.shape == (batch,)
    assert all(amount.shape == (batch,) for amount in ledger.sinks.values())
    assert_same(ledger.seed, seed)
    assert_same(ledger.received, explanation.relevance.flatten(1).sum(1))
    moved = ledger.seed.abs() + ledger.received.abs() + sum(amount.abs() for amount in ledger.sinks.values())
    residual = ledger.seed - ledger.received - sum(ledger.sinks.values())
    assert (residual.abs() <= 1e-9 * moved + 1e-12).all(), residual
    assert (ledger.residual.abs() <= 1e-9 * moved + 1e-12).all(), ledger.residual


def assert_sinks(explanation, expected: dict[str, Tensor], exact_kinds: bool = True) -> None:
    """The sinks are the reference's. Unless ``exact_kinds``, all that is no bias counts as stabiliser, so that a
    conversion of relevance into a coefficient, which the reference has no need of, may share with it."""
    sinks = by_kind(explanation.ledger)
    bias = sinks.pop("bias", torch.zeros_like(expected["bias"]))
    stabiliser = sinks.pop("stabiliser", torch.zeros_like(bias))
    rest = sum(sinks.values(), torch.zeros_like(bias))
    scale = max(1.0, explanation.relevance.abs().max().item())
    assert_same(bias / scale, expected["bias"] / scale)
    if exact_kinds:
        assert_same(stabiliser / scale, expected["stabiliser"] / scale)
        assert (rest / scale).abs().max() <= TOLERANCE, list(sinks)
    else:
        assert_same((stabiliser + rest) / scale, expected["stabiliser"] / scale)


def compare_layer(module: nn.Module, shape: tuple[int, ...], rule: ref.Rule, policy: str) -> None:
    """One LRP object explains signed and non-negative inputs; relevance, ledger and sinks are the reference's."""
    layer, lrp = ref.dense(module, shape), engine(module, rule, policy)
    for kind in INPUTS:
        x = draw(kind, shape)
        y = layer.forward(x)
        v = weights_of_output(y)
        expected = ref.lrp_layer(layer, x, y * v, rule, policy)
        explanation = lrp.explain(x, target=functional(v))
        assert_same(explanation.relevance, expected.relevance)
        assert_balanced(explanation, (y * v).flatten(1).sum(1))
        assert_sinks(explanation, expected.sinks)
        assert torch.equal(lrp.attribute(x, target=functional(v)), explanation.relevance)


# -------------------------------------------------------------------------------- single layers


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_biases_absorbed(layer: str, rule: str) -> None:
    compare_layer(*make(layer), RULES[rule], "absorb")


@pytest.mark.parametrize("policy", ["zero", "redistribute"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", ONE_OF_EACH)
def test_layer_other_bias_policies(layer: str, rule: str, policy: str) -> None:
    compare_layer(*make(layer), RULES[rule], policy)


@pytest.mark.parametrize("policy", ref.POLICIES)
def test_layer_box_per_channel(policy: str) -> None:
    low = torch.tensor([-3.0, -3.5]).double().reshape(1, 2, 1, 1)
    high = torch.tensor([3.0, 4.0]).double().reshape(1, 2, 1, 1)
    compare_layer(*make("conv2d_uneven"), ref.ZBox(low, high), policy)


@pytest.mark.parametrize("policy", ref.POLICIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", UNCONNECTED)
def test_layer_with_unconnected_outputs(layer: str, rule: str, policy: str) -> None:
    """Their relevance reaches no input: bias and stabiliser keep it, also when they redistribute."""
    module, shape = make(layer, catalogue=UNCONNECTED)
    if (rule, policy) == ("lrp0", "zero"):  # 0 / 0: which sink it falls into is not defined, that it falls into one is
        x = draw("signed", shape)
        v = weights_of_output(module(x))
        explanation = engine(module, RULES[rule], policy).explain(x, target=functional(v))
        assert explanation.relevance.isfinite().all()
        assert_balanced(explanation, functional(v)(module(x)))
    else:
        compare_layer(module, shape, RULES[rule], policy)


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_zero_count_as_connections(rule: str) -> None:
    """Flat and the equal shares of "redistribute" follow the structure, not the values of the weights."""
    module, shape = make("conv1d_stride_padding")
    module = copy.deepcopy(module)
    with torch.no_grad():
        module.weight[:, 0, 1] = 0
    for policy in ref.POLICIES:
        compare_layer(module, shape, RULES[rule], policy)


@pytest.mark.parametrize("layer", ONE_OF_EACH)
def test_redistributing_conserves(layer: str) -> None:
    module, shape = make(layer)
    x = draw("signed", shape)
    v = weights_of_output(module(x))
    for rule in RULES.values():
        explanation = engine(module, rule, "redistribute").explain(x, target=functional(v))
        assert_same(explanation.relevance.flatten(1).sum(1), functional(v)(module(x)))
        assert all(amount.abs().max() <= 1e-9 for amount in explanation.ledger.sinks.values())


@pytest.mark.parametrize("policy", ref.POLICIES)
@pytest.mark.parametrize("rule", RULES)
def test_a_batch_is_its_samples(rule: str, policy: str) -> None:
    module, shape = make("conv2d_uneven")
    lrp = engine(module, RULES[rule], policy)
    x = torch.cat([draw("signed", shape), 0.01 * draw("signed", shape, seed=3)])
    v = weights_of_output(module(x[:1]))
    together = lrp.attribute(x, target=functional(v))
    for i in range(len(x)):
        alone = lrp.attribute(x[i : i + 1], target=functional(v))
        assert (together[i] - alone[0]).abs().max() <= TOLERANCE * max(1e-3, alone.abs().max().item())


def test_defaults_are_those_of_the_reference() -> None:
    import relprop.rules

    for rule in (ref.LRP0, ref.Epsilon, ref.Gamma, ref.AlphaBeta, ref.ZPlus, ref.WSquare, ref.Flat, ref.Norm):
        theirs = getattr(relprop.rules, rule.__name__)()
        for name, value in dataclasses.asdict(rule()).items():
            assert getattr(theirs, name) == value, (rule.__name__, name)
    assert relprop.rules.ZBox(low=-1.0, high=1.0).stabilizer == 1e-6


# -------------------------------------------------------------------------------- small networks


def make_network(name: str, seed: int = 0) -> tuple[nn.Sequential, tuple[int, ...]]:
    torch.manual_seed(seed)
    layers: list[nn.Module]
    match name:
        case "mlp":
            layers, shape = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 4)], (6,)
        case "mlp_wide":
            layers, shape = [nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 4)], (30,)
        case "conv2d":
            layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2), nn.ReLU()]
            layers, shape = [*layers, nn.Flatten(), nn.Linear(12, 4)], (2, 5, 5)
        case "encoder_decoder_1d":
            layers = [nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose1d(4, 2, 2, stride=2)]
            layers, shape = [*layers, nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)], (2, 8)
    return nn.Sequential(*layers).double(), shape


NETWORKS = ("mlp", "conv2d", "encoder_decoder_1d")


@pytest.mark.parametrize("policy", ref.POLICIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_network(network: str, rule: str, policy: str) -> None:
    model, shape = make_network(network)
    x = draw("signed", shape)
    y = model(x).detach()
    v = weights_of_output(y)
    expected = ref.lrp_network(list(model), x, v, RULES[rule], policy)
    explanation = engine(model, RULES[rule], policy).explain(x, target=functional(v))
    assert_same(explanation.relevance, expected.relevance)
    assert_balanced(explanation, (y * v).sum(1))
    assert_sinks(explanation, expected.sinks, exact_kinds=False)


@pytest.mark.parametrize("policy", ref.POLICIES)
def test_network_with_a_rule_for_each_depth(policy: str) -> None:
    import relprop
    from relprop import select

    model, shape = make_network("conv2d")
    box, gamma, epsilon = ref.ZBox(-3.0, 3.0), ref.Gamma(), ref.Epsilon(0.1)
    composite = relprop.Composite(
        [
            (select.first(select.linear()), ours(box)),
            (select.convolution(), ours(gamma)),
            (select.dense(), ours(epsilon)),
        ]
    )
    x = draw("signed", shape)
    y = model(x).detach()
    v = weights_of_output(y)
    expected = ref.lrp_network(list(model), x, v, [box, gamma, epsilon], policy)
    explanation = relprop.LRP(model, composite=composite, bias=policy).explain(x, target=functional(v))
    assert_same(explanation.relevance, expected.relevance)
    assert_balanced(explanation, (y * v).sum(1))
    assert_sinks(explanation, expected.sinks, exact_kinds=False)


@pytest.mark.parametrize("rule", RULES)
def test_network_targets_and_seeds(rule: str) -> None:
    """An int, one class per sample, a callable; relevance starts as the logit or as one."""
    model, shape = make_network("conv2d")
    lrp, x = engine(model, RULES[rule]), draw("signed", shape)
    y = model(x).detach()
    classes = torch.tensor([2, 0, 3])
    rows = torch.arange(BATCH)
    for target, v in (
        (1, nn.functional.one_hot(torch.full((BATCH,), 1), 4)),
        (classes, nn.functional.one_hot(classes, 4)),
        (lambda y: y[:, 2] - y[:, 0], torch.tensor([-1, 0, 1, 0]).expand(BATCH, 4)),
        (None, nn.functional.one_hot(y.argmax(1), 4)),
    ):
        expected = ref.lrp_network(list(model), x, v.double(), RULES[rule]).relevance
        assert_same(lrp.attribute(x, target=target), expected)
    logit = y[rows, classes]
    expected = ref.lrp_network(list(model), x, nn.functional.one_hot(classes, 4) / logit[:, None], RULES[rule])
    explanation = lrp.explain(x, target=classes, seed="unit")
    assert_same(explanation.relevance, expected.relevance)
    assert_balanced(explanation, torch.ones(BATCH).double())


def test_lrp0_is_gradient_times_input() -> None:
    model, shape = make_network("conv2d")
    x = draw("signed", shape).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    assert_same(engine(model, ref.LRP0()).attribute(x.detach(), target=1), gradient * x)


# -------------------------------------------------------------------------------- random geometry

RANDOM = settings(max_examples=30, suppress_health_check=list(HealthCheck))


@st.composite
def convolutions(draw_) -> tuple[nn.Module, tuple[int, ...]]:
    dims, transposed = draw_(st.integers(1, 3)), draw_(st.booleans())
    groups = draw_(st.integers(1, 3))
    channels = [groups * draw_(st.integers(1, 2)) for _ in range(2)]
    per_axis = {
        "kernel_size": st.integers(1, 3),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 2),
        "dilation": st.integers(1, 2),
    }
    geometry = {name: tuple(draw_(values) for _ in range(dims)) for name, values in per_axis.items()}
    size = tuple(draw_(st.integers(1, 6 - dims)) for _ in range(dims))
    span = [d * (k - 1) + 1 for d, k in zip(geometry["dilation"], geometry["kernel_size"], strict=True)]
    each = list(zip(size, geometry["padding"], geometry["stride"], span, strict=True))
    # The layer has an output, and pads by less than its window, so that no window lies in the padding alone.
    assume(all(p < s and ((n - 1) * t - 2 * p + s >= 1 if transposed else n + 2 * p >= s) for n, p, t, s in each))
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    torch.manual_seed(draw_(st.integers(0, 99)))
    return kind(*channels, groups=groups, bias=draw_(st.booleans()), **geometry).double(), (channels[0], *size)


@RANDOM
@given(convolutions(), st.sampled_from(list(RULES)), st.sampled_from(ref.POLICIES))
def test_random_convolution(layer: tuple[nn.Module, tuple[int, ...]], rule: str, policy: str) -> None:
    module, shape = layer
    assume((ref.dense(module, shape).connected.sum(1) > 0).all())
    compare_layer(module, shape, RULES[rule], policy)


@RANDOM
@given(
    st.lists(st.integers(1, 7), min_size=3, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.integers(1, 4),
    st.sampled_from(list(RULES)),
    st.sampled_from(ref.POLICIES),
    st.integers(0, 99),
)
def test_random_mlp(widths: list[int], biases: list[bool], batch: int, rule: str, policy: str, seed: int) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for (i, o), bias in zip(itertools.pairwise(widths), biases, strict=False):
        layers += [nn.Linear(i, o, bias=bias), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).double()
    x = draw("signed", widths[:1], batch=batch)
    y = model(x).detach()
    v = weights_of_output(y)
    expected = ref.lrp_network(list(model), x, v, RULES[rule], policy)
    # A neuron that cancels to next to nothing makes the comparison one of rounding errors.
    assume(expected.relevance.abs().max() < 1e3)
    explanation = engine(model, RULES[rule], policy).explain(x, target=functional(v))
    assert_same(explanation.relevance, expected.relevance)
    assert_balanced(explanation, (y * v).sum(1))
    assert_sinks(explanation, expected.sinks, exact_kinds=False)


# -------------------------------------------------------------------------------- zennit

ZENNIT = {  # name: reference rule, name and arguments in zennit, whether zennit's definition coincides without biases
    "epsilon": (ref.Epsilon(), "Epsilon", {}, True),
    "epsilon_.25": (ref.Epsilon(0.25), "Epsilon", {"epsilon": 0.25}, True),
    "epsilon_relative": (ref.Epsilon(0.25, relative=True), "Epsilon", {"epsilon": "relative"}, True),
    "gamma": (ref.Gamma(), "Gamma", {}, False),  # without biases zennit takes the branch of the biased output
    "gamma_100": (ref.Gamma(100.0), "Gamma", {"gamma": 100.0}, False),
    "alpha2_beta1": (ref.AlphaBeta(), "AlphaBeta", {}, True),
    "alpha3_beta2": (ref.AlphaBeta(3.0, 2.0, 1e-3), "AlphaBeta", {"alpha": 3.0, "beta": 2.0, "stabilizer": 1e-3}, True),
    "alpha1_beta0": (ref.AlphaBeta(1.0, 0.0), "AlphaBeta", {"alpha": 1.0, "beta": 0.0}, True),
    "zplus": (ref.ZPlus(), "ZPlus", {}, True),
    "zbox": (ref.ZBox(-3.0, 3.0), "ZBox", {"low": -3.0, "high": 3.0}, True),
    "wsquare": (ref.WSquare(), "WSquare", {"zero_params": "bias"}, True),  # zennit counts the bias, the paper does not
    "flat": (ref.Flat(), "Flat", {}, True),
    "norm": (ref.Norm(), "Norm", {}, False),
}


def with_zennit(module: nn.Module, x: Tensor, relevance: Tensor, name: str, policy: str = "absorb") -> Tensor:
    core, rules = pytest.importorskip("zennit.core"), pytest.importorskip("zennit.rules")
    _, kind, arguments, _ = ZENNIT[name]
    arguments = dict(arguments)
    if arguments.get("epsilon") == "relative":
        arguments["epsilon"] = core.Stabilizer(epsilon=0.25, norm_scale=True)
    if policy == "zero" and kind not in ("Flat", "Norm"):
        arguments["zero_params"] = "bias"
    handles = getattr(rules, kind)(**arguments).register(module)
    try:
        x = x.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (received,) = torch.autograd.grad(module(x), x, relevance)
    finally:
        handles.remove()
    return received


def seed_for_zennit(layer: ref.Affine, x: Tensor, name: str, policy: str) -> tuple[Tensor, Tensor]:
    """y and v, where v is zero for outputs that zennit treats differently: those with one empty part."""
    y = layer.forward(x)
    v = weights_of_output(y)
    if isinstance(ZENNIT[name][0], ref.AlphaBeta):
        up, down = ref.parts_filled(layer, x, policy)
        v = v * up * down
    return y, v


def zennit_cases_of(layer: str) -> list[tuple[str, str]]:
    absorb = [(name, "absorb") for name in ZENNIT]
    return absorb + [(name, "zero") for name in ZENNIT if ZENNIT[name][3] and layer in ONE_OF_EACH]


@pytest.mark.parametrize("layer", LAYERS)
def test_reference_agrees_with_zennit(layer: str) -> None:
    module, shape = make(layer)
    affine = ref.dense(module, shape)
    for (name, policy), kind in itertools.product(zennit_cases_of(layer), INPUTS):
        x = draw(kind, shape)
        assert_same(affine.forward(x), module(x))
        y, v = seed_for_zennit(affine, x, name, policy)
        expected = with_zennit(module, x, y * v, name, policy)
        assert_same(ref.lrp_layer(affine, x, y * v, ZENNIT[name][0], policy).relevance, expected)


@pytest.mark.parametrize(
    ("layer", "name", "policy"), [(layer, *case) for layer in ONE_OF_EACH for case in zennit_cases_of(layer)]
)
def test_agrees_with_zennit(layer: str, name: str, policy: str) -> None:
    module, shape = make(layer)
    affine, lrp = ref.dense(module, shape), engine(module, ZENNIT[name][0], policy)
    for kind in INPUTS:
        x = draw(kind, shape)
        y, v = seed_for_zennit(affine, x, name, policy)
        expected = with_zennit(module, x, y * v, name, policy)
        assert_same(lrp.attribute(x, target=functional(v)), expected)


# -------------------------------------------------------------------------------- the reference itself


@pytest.mark.parametrize("layer", [*LAYERS, *UNCONNECTED])
def test_reference_balances(layer: str) -> None:
    module, shape = make(layer, catalogue=LAYERS | UNCONNECTED)
    affine = ref.dense(module, shape)
    for rule, policy, kind in itertools.product(RULES, ref.POLICIES, INPUTS):
        x = draw(kind, shape)
        relevance = affine.forward(x) * weights_of_output(affine.forward(x))
        received, sinks = ref.lrp_layer(affine, x, relevance, RULES[rule], policy)
        assert_same(received.flatten(1).sum(1) + sum(sinks.values()), relevance.flatten(1).sum(1), 1e-9)
        if policy == "redistribute" and layer in LAYERS:
            assert all((amount == 0).all() for amount in sinks.values())
        if policy == "zero" or rule in ("zbox", "wsquare", "flat"):
            assert (sinks["bias"] == 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_reference_lrp0_is_gradient_times_input(network: str) -> None:
    model, shape = make_network(network)
    x = draw("signed", shape).requires_grad_()
    y = model(x)
    v = weights_of_output(y)
    (gradient,) = torch.autograd.grad(functional(v)(y).sum(), x)
    assert_same(ref.lrp_network(list(model), x.detach(), v, ref.LRP0()).relevance, gradient * x)


@pytest.mark.parametrize(
    ("network", "name"),
    # In the wide one no neuron has an empty part, so that zennit neither loses nor doubles its relevance.
    [("mlp_wide", name) for name in ("epsilon", "gamma", "alpha2_beta1", "zplus", "flat")]
    + [(network, name) for network in NETWORKS for name in ("epsilon", "gamma", "flat")],
)
def test_reference_network_agrees_with_zennit(network: str, name: str) -> None:
    """End to end, with the rule on every affine layer and ReLU passing."""
    rules, composites = pytest.importorskip("zennit.rules"), pytest.importorskip("zennit.composites")
    model, shape = make_network(network)
    x = draw("signed", shape)
    y = model(x).detach()
    v = weights_of_output(y)
    rule, kind, arguments, _ = ZENNIT[name]
    expected = ref.lrp_network(list(model), x, v, rule).relevance
    layer_map = [
        (nn.ReLU, rules.Pass()),
        ((nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d), getattr(rules, kind)(**arguments)),
    ]
    with warnings.catch_warnings(), composites.LayerMapComposite(layer_map=layer_map).context(model) as hooked:
        warnings.simplefilter("ignore")
        x = x.clone().requires_grad_()
        (received,) = torch.autograd.grad(hooked(x), x, y * v)
    assert_same(expected, received)
