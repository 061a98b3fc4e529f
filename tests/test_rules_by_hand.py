"""Rules on cases small enough to derive by hand. Every derivation stands next to its numbers.

z is the output of a neuron, R its relevance (which the seed sets to z where nothing else is said), b its bias and d the
denominator of its rule.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules

POLICIES = ("absorb", "zero", "redistribute")
TINY = 1e-12
"""a stabiliser that does not show"""


def linear(weight: list, bias: list | None = None) -> nn.Linear:
    """A linear layer with the given weights, one row for every output."""
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def conv1d(kernel: list[float], padding: int = 0) -> nn.Conv1d:
    """A convolution of one channel without bias."""
    layer = nn.Conv1d(1, 1, len(kernel), padding=padding, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel).reshape(1, 1, -1))
    return layer


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def total(y: Tensor) -> Tensor:
    """The target that wants every output: the relevance of an output is its value."""
    return y.flatten(1).sum(1)


def explain(model: nn.Module, rule, x: list, policy: str = "absorb", target=total):
    import relprop

    return relprop.LRP(model, composite=rule, bias=policy).explain(tensor(x), target=target)


def sink(explanation, kind: str) -> Tensor:
    """What all sinks of a kind absorbed, per sample."""
    amounts = [amount for (name, _node), amount in explanation.ledger.sinks.items() if name == kind]
    return sum(amounts, torch.zeros_like(explanation.ledger.seed))


def assert_close(actual: Tensor, expected: list, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual.detach().double(), tensor(expected), rtol=tolerance, atol=tolerance)


def assert_balanced(explanation) -> None:
    ledger = explanation.ledger
    assert_close(ledger.residual, [0.0] * len(ledger.seed))
    assert_close(ledger.received + sum(ledger.sinks.values(), torch.zeros_like(ledger.seed)), ledger.seed.tolist())


# -------------------------------------------------------------------------------- AND and OR under three bias policies


class And(nn.Module):
    """relu(x1 + x2 - 1): at (1, 1) the sum is 2, the bias -1, the output 1."""

    def __init__(self) -> None:
        super().__init__()
        self.both = linear([[1.0, 1.0]], [-1.0])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.both(x))


class Or(nn.Module):
    """x1 + x2 - relu(x1 + x2 - 1): at (1, 1) this is 2 - 1 = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.either, self.both = linear([[1.0, 1.0]]), And()

    def forward(self, x: Tensor) -> Tensor:
        return self.either(x) - self.both(x)


def or_in_layers() -> nn.Module:
    """The same OR as an MLP: for x >= 0 the hidden neurons are x1, x2 and AND."""
    hidden = linear([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.0, 0.0, -1.0])
    return nn.Sequential(hidden, nn.ReLU(), linear([[1.0, 1.0, -1.0]]))


# absorb:       The neuron AND has z = 1 + 1 - 1 = 1, so each input receives 1/1 of its relevance and the bias -1/1.
#               AND (R = 1):  each 1; bias -1.
#               OR: the neuron AND has R = -1, each input receives 1 - 1 = 0; bias +1.
# zero:         The neuron AND has z = 1 + 1 = 2 in the denominator; each input receives 1/2 of its relevance.
#               AND: each 1/2.  OR: each 1 - 1/2 = 1/2. No bias takes part.
# redistribute: Each input receives 1 of AND's relevance as under "absorb" and half of the bias' -1: again 1/2.
# The Shapley values of both functions (baseline 0) are (1/2, 1/2).
AND_OR = [
    ("absorb", [1.0, 1.0], [0.0, 0.0], -1.0),
    ("zero", [0.5, 0.5], [0.5, 0.5], 0.0),
    ("redistribute", [0.5, 0.5], [0.5, 0.5], 0.0),
]


@pytest.mark.parametrize(("policy", "expected_and", "expected_or", "bias"), AND_OR, ids=POLICIES)
@pytest.mark.parametrize("rule", ["LRP0", "Epsilon"])
def test_and_or(rule: str, policy: str, expected_and: list, expected_or: list, bias: float) -> None:
    from relprop import rules

    rule = rules.LRP0() if rule == "LRP0" else rules.Epsilon(epsilon=TINY)
    for model, expected, at_bias in (
        (And(), expected_and, bias),
        (Or(), expected_or, -bias),
        (or_in_layers(), expected_or, -bias),
    ):
        explanation = explain(model, rule, [[1.0, 1.0]], policy, target=None)
        assert_close(explanation.ledger.seed, [1.0])
        assert_close(explanation.relevance, [expected], tolerance=1e-8)
        assert_close(sink(explanation, "bias"), [at_bias], tolerance=1e-8)
        assert_balanced(explanation)


# -------------------------------------------------------------------------------- epsilon


def test_epsilon_takes_the_sign_of_z() -> None:
    # Weight 1, input z, so R = z. A neuron passes on |z| / (|z| + eps), here with eps = 1/4:
    #   z =  1: d =  1.25, R_in =  1 * 1 / 1.25 =  0.8, the stabiliser takes  0.25 / 1.25 =  0.2
    #   z = -1: d = -1.25, R_in = -1 * -1 / -1.25 = -0.8; an unsigned eps would have d = -0.75 and R_in = -1.333
    #   z = -0.25: d = -0.5, R_in = -0.125; an unsigned eps would have divided by zero
    #   z =  0: d = +0.25, and there is nothing to pass on
    from relprop import rules

    explanation = explain(linear([[1.0]]), rules.Epsilon(epsilon=0.25), [[1.0], [-1.0], [-0.25], [0.0]])
    assert_close(explanation.relevance, [[0.8], [-0.8], [-0.125], [0.0]])
    assert_close(sink(explanation, "stabiliser"), [0.2, -0.2, -0.125, 0.0])
    assert_balanced(explanation)


def test_the_sign_of_zero_is_positive() -> None:
    # x = (1, 1), w = (1, -1), b = 1: the output is 1 and so is R. Without the bias z = 0 and d = +0.25:
    # R_in = (1, -1) / 0.25 = (4, -4), and the stabiliser takes 0.25 / 0.25 = 1. With sign(0) = -1 it were (-4, 4).
    from relprop import rules

    explanation = explain(linear([[1.0, -1.0]], [1.0]), rules.Epsilon(epsilon=0.25), [[1.0, 1.0]], "zero")
    assert_close(explanation.relevance, [[4.0, -4.0]])
    assert_close(sink(explanation, "stabiliser"), [1.0])
    assert_balanced(explanation)


def test_epsilon_under_each_bias_policy() -> None:
    # x = (1, 2), w = (2, 1), b = 4, eps = 2; z = 8 = R.
    #   absorb:       d = 8 + 2 = 10: R_in = (2, 2) * 0.8 = (1.6, 1.6); bias 4 * 0.8 = 3.2; stabiliser 2 * 0.8 = 1.6
    #   zero:         d = 4 + 2 = 6:  R_in = (2, 2) * 8/6 = (8/3, 8/3); stabiliser 2 * 8/6 = 8/3
    #   redistribute: (1.6, 1.6) + (3.2 + 1.6) / 2 = (4, 4)
    from relprop import rules

    for policy, relevance, bias, stabiliser in (
        ("absorb", [1.6, 1.6], 3.2, 1.6),
        ("zero", [8 / 3, 8 / 3], 0.0, 8 / 3),
        ("redistribute", [4.0, 4.0], 0.0, 0.0),
    ):
        explanation = explain(linear([[2.0, 1.0]], [4.0]), rules.Epsilon(epsilon=2.0), [[1.0, 2.0]], policy)
        assert_close(explanation.relevance, [relevance])
        assert_close(sink(explanation, "bias"), [bias])
        assert_close(sink(explanation, "stabiliser"), [stabiliser])
        assert_balanced(explanation)


def test_relative_epsilon_is_taken_per_sample() -> None:
    # Weights: the identity, so z = x = R. For (3, 4) the root mean square is sqrt((9 + 16) / 2) = 3.5355 and with
    # eps = 1/4 the stabiliser s = 0.8839: R_in = (9 / (3 + s), 16 / (4 + s)). A sample a thousand times as large has a
    # thousand times the relevance, whatever is in the batch with it; an eps over the batch would leave little of the
    # small one: 3 / (3 + 0.25 * 2500) of its first entry.
    from relprop import rules

    identity, rule = linear([[1.0, 0.0], [0.0, 1.0]]), rules.Epsilon(epsilon=0.25, relative=True)
    s = 0.25 * math.sqrt(12.5)
    small = [9 / (3 + s), 16 / (4 + s)]
    large = [1000 * small[0], 1000 * small[1]]
    explanation = explain(identity, rule, [[3.0, 4.0], [3000.0, 4000.0]])
    assert_close(explanation.relevance, [small, large])
    assert_balanced(explanation)
    assert_close(explain(identity, rule, [[3.0, 4.0]]).relevance, [small])


# -------------------------------------------------------------------------------- alpha-beta


# x = (1, 1), w = (1, -1), b = -1: z = -1 = R (innvestigate#273). The positive part is the first input alone, z+ = 1;
# the negative one is the second input and the bias, z- = -1 - 1 = -2.
#   alpha 1, beta 0, absorb: R_1 = 1/1 * R = -1, R_2 = 0
#   alpha 2, beta 1, absorb: R_1 = 2 * 1/1 * R = -2; R_2 = -1 * (-1)/(-2) * R = 0.5; bias the same 0.5
#   ... zero: z- = -1: R_1 = -2, R_2 = -1 * (-1)/(-1) * R = 1
#   ... redistribute: the bias' 0.5 in equal shares: (-2 + 0.25, 0.5 + 0.25)
@pytest.mark.parametrize(
    ("alpha", "policy", "relevance", "bias"),
    [
        (1.0, "absorb", [-1.0, 0.0], 0.0),
        (2.0, "absorb", [-2.0, 0.5], 0.5),
        (1.0, "zero", [-1.0, 0.0], 0.0),
        (2.0, "zero", [-2.0, 1.0], 0.0),
        (1.0, "redistribute", [-1.0, 0.0], 0.0),
        (2.0, "redistribute", [-1.75, 0.75], 0.0),
    ],
)
def test_alpha_beta_of_two_weights(alpha: float, policy: str, relevance: list, bias: float) -> None:
    from relprop import rules

    rule = rules.AlphaBeta(alpha=alpha, beta=alpha - 1, stabilizer=TINY)
    explanation = explain(linear([[1.0, -1.0]], [-1.0]), rule, [[1.0, 1.0]], policy)
    assert_close(explanation.relevance, [relevance])
    assert_close(sink(explanation, "bias"), [bias])
    assert_balanced(explanation)


def test_alpha_beta_with_signed_inputs() -> None:
    # x = (-1, 2), w = (-3, -1): contributions (3, -2), z = 1 = R: the contribution's sign counts, not the weight's.
    # alpha 2, beta 1: R_1 = 2 * 3/3 * 1 = 2, R_2 = -1 * (-2)/(-2) * 1 = -1. z+ gives all to the first input.
    from relprop import rules

    layer, x = linear([[-3.0, -1.0]]), [[-1.0, 2.0]]
    assert_close(explain(layer, rules.AlphaBeta(alpha=2.0, beta=1.0, stabilizer=TINY), x).relevance, [[2.0, -1.0]])
    assert_close(explain(layer, rules.ZPlus(stabilizer=TINY), x).relevance, [[1.0, 0.0]])


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alpha_beta_with_one_empty_part(alpha: float) -> None:
    # Three outputs of x = (1, 1), explained together:
    #   w = ( 1,  2): z =  3 = R, no negative part: all of R in proportion to the positive one, ( 1,  2)
    #   w = (-1, -2): z = -3 = R, no positive part: all of R in proportion to the negative one, (-1, -2)
    #   w = ( 3, -1): z =  2 = R, both: alpha * (2, 0) - beta * (0, 2)
    # In sum (2 alpha, -2 beta). A textbook alpha-2 beta-1 would give twice and minus once R to the first two.
    from relprop import rules

    beta = alpha - 1
    layer = linear([[1.0, 2.0], [-1.0, -2.0], [3.0, -1.0]])
    rule = rules.AlphaBeta(alpha=alpha, beta=beta, stabilizer=TINY)
    for weights, expected in (
        ([1.0, 0.0, 0.0], [1.0, 2.0]),
        ([0.0, 1.0, 0.0], [-1.0, -2.0]),
        ([1.0, 1.0, 1.0], [2 * alpha, -2 * beta]),
    ):
        explanation = explain(layer, rule, [[1.0, 1.0]], target=lambda y, w=weights: (y * tensor(w)).sum(1))
        assert_close(explanation.relevance, [expected])
        assert_close(explanation.ledger.received, explanation.ledger.seed.tolist())
        assert_balanced(explanation)


def test_alpha_and_beta_differ_by_one() -> None:
    from relprop import rules

    for alpha, beta in ((2.0, 2.0), (1.0, 1.0), (2.0, -1.0), (0.0, -1.0)):
        with pytest.raises(ValueError):
            rules.AlphaBeta(alpha=alpha, beta=beta)


# -------------------------------------------------------------------------------- gamma


# x = (1, 1), w = (1, -3), b = 5, gamma = 1/4: z = 1 - 3 + 5 = 3 = R.
#   absorb:       z = 3 > 0, the positive branch adds a quarter of what is positive: 1.25 and -3, bias 6.25, d = 4.5:
#                 R_in = 3 * (1.25, -3) / 4.5 = (5/6, -2), bias 3 * 6.25 / 4.5 = 25/6
#   zero:         The z that is divided by is 1 - 3 = -2 < 0, so the negative branch: 1 and -3.75, d = -2.75:
#                 R_in = 3 * (1, -3.75) / -2.75 = (-12/11, 45/11). The branch of the biased z would have the denominator
#                 1.25 - 3 = -1.75, of the sign that the branch is not for.
#   redistribute: (5/6, -2) + 25/12 for each = (35/12, 1/12)
@pytest.mark.parametrize(
    ("policy", "relevance", "bias"),
    [
        ("absorb", [5 / 6, -2.0], 25 / 6),
        ("zero", [-12 / 11, 45 / 11], 0.0),
        ("redistribute", [35 / 12, 1 / 12], 0.0),
    ],
)
def test_gamma_takes_the_branch_of_the_z_that_it_divides_by(policy: str, relevance: list, bias: float) -> None:
    from relprop import rules

    rule = rules.Gamma(gamma=0.25, stabilizer=TINY)
    explanation = explain(linear([[1.0, -3.0]], [5.0]), rule, [[1.0, 1.0]], policy)
    assert_close(explanation.relevance, [relevance])
    assert_close(sink(explanation, "bias"), [bias])
    assert_balanced(explanation)


def test_gamma_of_signed_inputs_and_outputs() -> None:
    # w = (2, -1), gamma = 1/2, no bias.
    #   x = (-1, -3): contributions (-2, 3), z =  1: positive branch, the 3 becomes 4.5:  R_in =  1 * (-2, 4.5) / 2.5
    #   x = (-2, -3): contributions (-4, 3), z = -1: negative branch, the -4 becomes -6:  R_in = -1 * (-6, 3) / -3
    #   x = ( 1,  2): contributions ( 2, -2), z = 0 = R: nothing
    from relprop import rules

    explanation = explain(
        linear([[2.0, -1.0]]), rules.Gamma(gamma=0.5, stabilizer=TINY), [[-1.0, -3.0], [-2.0, -3.0], [1.0, 2.0]]
    )
    assert_close(explanation.relevance, [[-0.8, 1.8], [-2.0, 1.0], [0.0, 0.0]])
    assert_balanced(explanation)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 1e6])
def test_gamma_conserves_without_bias(gamma: float) -> None:
    from relprop import rules

    layer, x = nn.Linear(8, 5, bias=False).double(), torch.randn(4, 8).double()
    explanation = explain(layer, rules.Gamma(gamma=gamma, stabilizer=TINY), x.tolist(), target=1)
    assert_close(explanation.ledger.received, layer(x)[:, 1].tolist(), tolerance=1e-8)


# -------------------------------------------------------------------------------- rules of the input layer


@pytest.mark.parametrize("policy", POLICIES)
def test_box_has_no_use_for_the_bias(policy: str) -> None:
    # x = (0.5, -0.5) in [-1, 1], w = (2, -1), b = 7: R = 1 + 0.5 + 7 = 8.5. Numerators a w - l w+ - h w-:
    #   0.5 * 2 + 1 * 2 = 3    and    -0.5 * -1 - 1 * -1 = 1.5;    b - b+ - b- = 0, so d = 4.5
    # R_in = 8.5 * (2/3, 1/3): conserved in spite of the bias.
    from relprop import rules

    rule = rules.ZBox(low=-1.0, high=1.0, stabilizer=TINY)
    explanation = explain(linear([[2.0, -1.0]], [7.0]), rule, [[0.5, -0.5]], policy)
    assert_close(explanation.relevance, [[17 / 3, 17 / 6]])
    assert_close(sink(explanation, "bias"), [0.0])
    assert_balanced(explanation)


def test_box_does_not_reach_into_the_padding() -> None:
    # One pixel of 0.5 in [-1, 1] under the kernel (5, 1, 5) with padding 1: z = 0.5 = R, and the pixel is the only
    # input there is. Were the padding inside of the box, too, it would take 2 * 5 / (1.5 + 2 * 5) of the relevance.
    from relprop import rules

    explanation = explain(conv1d([5.0, 1.0, 5.0], padding=1), rules.ZBox(-1.0, 1.0, stabilizer=TINY), [[[0.5]]])
    assert_close(explanation.relevance, [[[0.5]]])


@pytest.mark.parametrize("policy", POLICIES)
def test_w_square_leaves_the_bias_out(policy: str) -> None:
    # w = (1, 2), b = 3, x = (7, -1): R = 7 - 2 + 3 = 8, split as 1 : 4 whatever the inputs. With b² in the denominator
    # it were 1 : 4 : 9, and the bias would take the most.
    from relprop import rules

    explanation = explain(linear([[1.0, 2.0]], [3.0]), rules.WSquare(stabilizer=TINY), [[7.0, -1.0]], policy)
    assert_close(explanation.relevance, [[1.6, 6.4]])
    assert_close(sink(explanation, "bias"), [0.0])
    assert_balanced(explanation)


def test_flat_counts_valid_inputs_only() -> None:
    # Three inputs (1, 2, 0) under a kernel of ones with padding 1: outputs 1 + 2 = 3, 1 + 2 + 0 = 3 and 2 + 0 = 2 from
    # 2, 3 and 2 valid inputs. R_1 = 3/2 + 3/3 = 2.5, R_2 = 3/2 + 3/3 + 2/2 = 3.5, R_3 = 3/3 + 2/2 = 2: in all
    # 8 = 3 + 3 + 2. The last input is zero and receives relevance nevertheless.
    from relprop import rules

    explanation = explain(conv1d([1.0, 1.0, 1.0], padding=1), rules.Flat(stabilizer=TINY), [[[1.0, 2.0, 0.0]]])
    assert_close(explanation.relevance, [[[2.5, 3.5, 2.0]]])
    assert_balanced(explanation)


def test_equal_shares_count_valid_inputs_only() -> None:
    # As above, LRP-0 with bias 1: outputs (4, 4, 3) = R, z = R, so each input receives itself once for every output
    # that sees it, (2, 6, 0), and equal shares of the biases' 1 from outputs with 2, 3 and 2 valid inputs:
    # (1/2 + 1/3, 1/2 + 1/3 + 1/2, 1/3 + 1/2).
    from relprop import rules

    layer = conv1d([1.0, 1.0, 1.0], padding=1)
    layer.bias = nn.Parameter(tensor([1.0]))
    explanation = explain(layer, rules.LRP0(), [[[1.0, 2.0, 0.0]]], "redistribute")
    assert_close(explanation.relevance, [[[2 + 5 / 6, 6 + 4 / 3, 5 / 6]]], tolerance=1e-8)
    assert_close(explanation.ledger.received, [11.0], tolerance=1e-8)
    assert_balanced(explanation)


# -------------------------------------------------------------------------------- pass and stop


def test_pass_and_stop() -> None:
    # Pass hands the relevance of each output to the input in the same place; Stop hands on nothing and books it.
    from relprop import rules

    layer, x = linear([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0]), [[1.0, 1.0], [0.0, 2.0]]  # outputs (4, 6) and (5, 7)
    passed = explain(layer, rules.Pass(), x)
    assert_close(passed.relevance, [[4.0, 6.0], [5.0, 7.0]])
    assert_balanced(passed)
    stopped = explain(layer, rules.Stop(), x)
    assert_close(stopped.relevance, [[0.0, 0.0], [0.0, 0.0]])
    assert_close(sum(stopped.ledger.sinks.values()), [10.0, 12.0])
    assert_balanced(stopped)


# -------------------------------------------------------------------------------- activations


# An activation multiplies the coefficient by f(x) / x. At x = 0 this is its limit f'(0):
#   GELU x Phi(x): Phi(0) = 1/2;  SiLU x sigmoid(x): 1/2;  Hardswish x relu6(x + 3) / 6: 1/2;  tanh: 1;
#   Mish x tanh(softplus(x)): tanh(log 2) = (2 - 1/2) / (2 + 1/2) = 0.6
LIMITS = [
    (nn.GELU(), 0.5),
    (nn.GELU(approximate="tanh"), 0.5),
    (nn.SiLU(), 0.5),
    (nn.Hardswish(), 0.5),
    (nn.Tanh(), 1.0),
    (nn.Mish(), 0.6),
]


@pytest.mark.filterwarnings("ignore:relevance has grown:relprop.RelevanceWarning")  # R = ±f'(0) for an output of zero
@pytest.mark.parametrize(("activation", "limit"), LIMITS, ids=str)
def test_activation_at_zero(activation: nn.Module, limit: float) -> None:
    # w = (1, -1) and x = (1, 1): the activation sees 1 - 1 = 0, and its neuron has no relevance. The coefficient c = 1
    # that arrives there becomes f'(0), and under LRP-0 the inputs receive x * w * c = (f'(0), -f'(0)): they sum to zero
    # as they should, and it is what every x close to this one gives (second sample: the activation sees 1e-9). A factor
    # of f(0) / (0 + eps) would give (0, 0).
    from relprop import rules

    model = nn.Sequential(linear([[1.0, -1.0]]), activation)
    explanation = explain(model, rules.LRP0(), [[1.0, 1.0], [1.0, 1.0 - 1e-9]])
    assert_close(explanation.relevance, [[limit, -limit]] * 2, tolerance=1e-7)
    assert_balanced(explanation)


@pytest.mark.parametrize(("activation", "limit"), LIMITS, ids=str)
def test_activation_passes_relevance(activation: nn.Module, limit: float) -> None:
    # Away from zero the factor is f(z) / z. x = (3, 1) and w = (1, -1): z = 2; w = (-1, 1): z = -2. The relevance f(z)
    # of the activation goes on to z as it is, and LRP-0 splits it as 3 : -1.
    from relprop import rules

    for weight, z in (([1.0, -1.0], 2.0), ([-1.0, 1.0], -2.0)):
        f = activation(tensor([z])).item()
        explanation = explain(nn.Sequential(linear([weight]), activation), rules.LRP0(), [[3.0, 1.0]])
        assert_close(explanation.relevance, [[1.5 * f, -0.5 * f]])
        assert_balanced(explanation)


@pytest.mark.parametrize("rule", [rules.Gamma(0.25, 1e-6), rules.AlphaBeta(), rules.ZPlus()], ids=str)
def test_a_denominator_that_the_stabiliser_makes_zero_yields_no_nan(rule: rules.Rule) -> None:
    # The hidden neuron has z = -1e-6, its denominator under LRP-γ is z + ε = 0, and the ReLU behind it lets no
    # relevance come back: 0 / 0. All relevance is the bias' of the output.
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        net[0].weight.fill_(-1)
        net[2].weight.fill_(1)
        net[2].bias.fill_(3)
    x = torch.full((1, 1), 1e-6, dtype=torch.float64)
    explanation = relprop.LRP(net, composite=rule).explain(x)
    assert explanation.relevance.abs().max() < 1e-6
    assert explanation.ledger.residual.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_what_rounding_leaves_of_a_part_is_no_part(scale: float, dtype: torch.dtype) -> None:
    """z⁺ and z⁻ of signed inputs are differences of two sums, Σ a w and Σ |a||w|: rounding, where there is one part."""
    # 300 contributions of one sign: the other part is zero. αβ gives all relevance to the part that there is, so
    # R_j = a_j w_j; z⁺ gives it to the positive part, so for negative contributions the stabiliser has it all.
    generator = torch.Generator().manual_seed(0)
    x = scale * torch.randn(1, 300, generator=generator).to(dtype)
    size = torch.rand(1, 300, generator=generator).to(dtype) + 0.1
    tolerance = 1e3 * torch.finfo(dtype).eps
    for direction in (1, -1):
        layer = nn.Linear(300, 1, bias=False).to(dtype)
        with torch.no_grad():
            layer.weight.copy_(direction * torch.sign(x) * size)
        contributions = (x * layer.weight).detach()
        largest = float(contributions.abs().max())
        found = relprop.LRP(layer, rules.AlphaBeta(2.0, 1.0, TINY)).explain(x)
        assert float((found.relevance - contributions).abs().max()) < tolerance * largest
        found = relprop.LRP(layer, rules.ZPlus(TINY)).explain(x)
        expected = contributions if direction == 1 else torch.zeros_like(x)
        assert float((found.relevance - expected).abs().max()) < tolerance * largest
        absorbed = float(sink(found, "stabiliser"))
        assert absorbed == pytest.approx(
            0 if direction == 1 else float(contributions.sum()), abs=tolerance * largest * 300
        )


@pytest.mark.filterwarnings("ignore:the ledger does not balance")  # single precision cannot do better here
@pytest.mark.parametrize("rule", [rules.ZPlus(TINY), rules.AlphaBeta(2.0, 1.0, TINY)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_parts_of_large_sums(rule: rules.Rule, dtype: torch.dtype) -> None:
    # 300 neurons with 299 contributions of one sign and one of the other, from nothing to a hundredth of their sum.
    # Where it is a part, the books balance up to its rounding; where it is rounding, z⁺ has the stabiliser take all
    # relevance, and αβ gives it to the part that there is.
    generator = torch.Generator().manual_seed(0)
    eps, neurons = torch.finfo(dtype).eps, 300
    x = torch.randn(1, 300, generator=generator).to(dtype).expand(neurons, 300).contiguous()
    layer = nn.Linear(300, neurons, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(-torch.sign(x) * torch.rand(neurons, 300, generator=generator).to(dtype))
        part = torch.logspace(math.log10(eps) - 1, -2, neurons, dtype=dtype)
        layer.weight[:, 7] = part * 100 / x[0, 7]
    explanation = relprop.LRP(layer, rule).explain(x, torch.arange(neurons))
    residual = explanation.ledger.residual.abs() / explanation.value.detach().double().abs()
    assert float(residual.max()) < 0.1
    assert float(residual[part > 1e4 * eps].max()) < 1e-2
    # z⁺, here one contribution, gets all relevance, or α times that
    handed = explanation.relevance[:, 7].double() / explanation.value.detach().double()
    alpha = getattr(rule, "alpha", 1.0)
    assert float((handed[part > 1e3 * eps] - alpha).abs().max()) < 0.1
