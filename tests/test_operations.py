"""Operations that few models have: each against what it means, written out, or derived by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_balanced, assert_same, prepared


class Of(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Tensor], **parameters: Tensor):
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(*x, *self.parameters())


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def explained(model: nn.Module, *x: Tensor) -> list[Tensor]:
    """Relevance of every input for the sum of a sample's outputs; the books balance for every bias policy."""
    lrp = relprop.LRP(prepared(model), "lrp0")
    for policy in ("redistribute", "zero", "absorb"):
        explanation = lrp.using("lrp0", bias=policy).explain(x, lambda y: y.reshape(len(y), -1).sum(1))
        ledger = explanation.ledger
        assert_same(ledger.received + ledger.absorbed, ledger.seed)
        assert_same(ledger.received.sum(), sum(r.sum() for r in explanation.relevance if r is not None))
    return list(explanation.relevance)


def gradient_times_input(model: nn.Module, *x: Tensor) -> list[Tensor]:
    x = tuple(v.clone().requires_grad_() for v in x)
    return [v.detach() * g for v, g in zip(x, torch.autograd.grad(model(*x).sum(), x), strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Bags of embeddings
# ---------------------------------------------------------------------------------------------------------------------


class Bag(nn.Module):
    """Bags of embeddings, and a layer behind them."""

    def __init__(self, **options: object):
        super().__init__()
        self.bag, self.linear = nn.EmbeddingBag(9, 4, **options), nn.Linear(4, 3)

    def forward(self, ids: Tensor, *rest: Tensor) -> Tensor:
        if not rest:
            return self.linear(self.bag(ids))
        given = {"per_sample_weights": rest[0]} if rest[0].is_floating_point() else {"offsets": rest[0]}
        return self.linear(self.bag(ids, **given))


def per_token(model: Bag, tokens: Tensor, weight: Tensor) -> Tensor:
    """Relevance of tokens of one bag, for the sum of the outputs: embedding times weight times gradient."""
    return (model.bag.weight[tokens] * weight[:, None] * model.linear.weight.sum(0)).sum(1).detach()


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_words_of_a_bag_have_a_value_each(mode: str) -> None:
    model, ids = prepared(Bag(mode=mode)), torch.tensor([[1, 2, 1], [3, 4, 8]])
    weight = torch.ones(3, dtype=torch.float64) / (3 if mode == "mean" else 1)
    (relevance,) = explained(model, ids)
    assert_same(relevance, torch.stack([per_token(model, row, weight) for row in ids]))


def test_words_of_bags_that_begin_at_offsets() -> None:
    """The second bag is empty; padding is in no bag, and no part of the mean."""
    model = prepared(Bag(mode="mean", padding_idx=0, include_last_offset=True))
    ids, offsets = torch.tensor([1, 0, 2, 3, 4, 5]), torch.tensor([0, 3, 3, 6])
    relevance, none = explained(model, ids, offsets)
    assert none is None
    first = per_token(model, ids[:3], tensor(1 / 2, 0, 1 / 2))
    assert_same(relevance, torch.cat([first, per_token(model, ids[3:], tensor(1, 1, 1) / 3)]))


def test_largest_word_of_a_bag() -> None:
    model, ids = prepared(Bag(mode="max")), torch.tensor([[1, 2, 3]])
    largest = torch.zeros(3, 4).double().scatter(0, model.bag.weight[ids[0]].argmax(0, keepdim=True), 1.0)
    by_hand = (model.bag.weight[ids[0]] * largest * model.linear.weight.sum(0)).sum(1).detach()
    assert_same(explained(model, ids)[0], by_hand[None])


def test_weighted_bag_shares_between_words_and_weights() -> None:
    """A product of two explained inputs: a half each. Weights that are not explained only scale."""
    model, ids = prepared(Bag(mode="sum")), torch.tensor([[1, 2, 1], [3, 4, 8]])
    weights = torch.rand(2, 3, dtype=torch.float64)
    whole = torch.stack([per_token(model, *row) for row in zip(ids, weights, strict=True)])
    of_words, of_weights = explained(model, ids, weights)
    assert_same(of_words, whole / 2)
    assert_same(of_weights, whole / 2)
    assert_same(relprop.LRP(model, "lrp0").attribute((ids, weights), lambda y: y.sum(1), wrt=0)[0], whole)


# ---------------------------------------------------------------------------------------------------------------------
# Distances
# ---------------------------------------------------------------------------------------------------------------------


def by_hand(x: Tensor, y: Tensor) -> Tensor:
    """x_j (x_j - y_j) / d"""
    difference = x - y
    return x * difference / difference.square().sum(-1, keepdim=True).sqrt()


def test_distance_to_prototypes() -> None:
    """The books balance sample by sample: prototypes keep a part of each one's distance."""
    x, prototypes = torch.randn(2, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    (relevance,) = explained(Of(torch.cdist, prototypes=prototypes), x)
    assert_same(relevance, by_hand(x[:, None], prototypes).sum(1))


def test_distance_of_two_inputs() -> None:
    x, y = torch.randn(2, 2, 5, dtype=torch.float64)
    rx, ry = explained(nn.PairwiseDistance(eps=0), x, y)
    assert_same(rx, by_hand(x, y))
    assert_same(ry, by_hand(y, x))
    assert_same(explained(Of(lambda x, y: torch.dist(x[0], y[0])[None]), x[:1], y[:1])[0], by_hand(x, y)[:1])


def test_counting_differences_is_no_distance() -> None:
    with pytest.raises(relprop.RuleError, match="p=0"):
        relprop.LRP(Of(lambda x, y: torch.cdist(x, y, p=0.0))).plan((torch.rand(2, 3), torch.rand(2, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# Products and powers
# ---------------------------------------------------------------------------------------------------------------------


def test_cumulative_product() -> None:
    """2, 2 * 3 and 2 * 3 * 4: 2 + 6/2 + 24/3 = 13, 6/2 + 24/3 = 11 and 24/3 = 8. A zero takes all behind it away."""
    (relevance,) = explained(Of(lambda x: x.cumprod(1)), tensor([2, 3, 4], [2, 0, 4]))
    assert_same(relevance, tensor([13, 11, 8], [2, 0, 0]))


def test_pooling_with_a_learned_exponent() -> None:
    """GeM, (Σ x^p / n)^(1/p): every value by its share of the sum."""
    x, p = torch.rand(2, 4, dtype=torch.float64) + 0.1, tensor(3)
    (relevance,) = explained(Of(lambda x, p: x.pow(p).mean(1, keepdim=True).pow(1 / p), p=p), x)
    powers = x**3
    assert_same(relevance, powers / powers.sum(1, keepdim=True) * powers.mean(1, keepdim=True) ** (1 / 3))


def test_exponent_over_a_constant_base() -> None:
    """2^3 + 2^1: as for exp, all relevance goes through."""
    (relevance,) = explained(Of(lambda x, base: base**x, base=tensor(2)), tensor([3, 1]))
    assert_same(relevance, tensor([8, 2]))


def test_bilinear_layer() -> None:
    """A half for each side, and the bias as in any layer."""
    layer = prepared(nn.Bilinear(3, 4, 2))
    x, y = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    products = torch.einsum("bi,oij,bj->bij", x, layer.weight.detach(), y)
    rx, ry = explained(layer, x, y)
    assert_same(rx, products.sum(2) / 2)
    assert_same(ry, products.sum(1) / 2)
    ledger = relprop.LRP(layer, "lrp0").explain((x, y), lambda y: y.sum(1)).ledger
    assert_same(ledger.by_kind()["bias"], layer.bias.detach().sum().expand(2))


# ---------------------------------------------------------------------------------------------------------------------
# Where gradient x input is the answer: what moves values, picks them, or is homogeneous
# ---------------------------------------------------------------------------------------------------------------------


class Unpool(nn.Module):
    """Maxima that go back to where they were, doubled."""

    def __init__(self, dims: int):
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{dims}d")(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.unpool(*self.pool(2 * x))


MASK = torch.tensor([True, False, True, False])
WINDOW, CLASSES = torch.hann_window(8, dtype=torch.float64), tensor(0.2, 0.3, 0.5)
PLACE = torch.tensor([[1]])
HOMOGENEOUS: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    **{f"max unpooling in {n} dimensions": (Unpool(n), ((2, 3, *[4] * n),)) for n in (1, 2, 3)},
    "larger": (Of(torch.fmax), ((2, 4), (2, 4))),
    "smaller, broadcast": (Of(torch.fmin), ((2, 4), (2, 1))),
    "length of the hypotenuse": (Of(torch.hypot), ((2, 4), (2, 4))),
    "features that take the place of tokens": (
        Of(lambda x, y: torch.stack([a.masked_scatter(MASK, b) for a, b in zip(x, y, strict=True)])),
        ((2, 4), (2, 2)),
    ),
    "running maximum": (Of(lambda x: x.cummax(1)[0] + x.cummin(1)[0]), ((2, 4),)),
    "smallest and largest": (Of(lambda x: torch.stack(torch.aminmax(x, dim=1), 1)), ((2, 4),)),
    "quantiles": (Of(lambda x, q: x.quantile(q, 1).T, q=tensor(0.1, 0.7)), ((2, 5),)),
    "written to a diagonal": (Of(lambda x, y: torch.diagonal_scatter(x, y, 0, 1, 2)), ((2, 3, 3), (2, 3))),
    "bounds that are inputs": (Of(lambda x, y: x.clamp(max=y)), ((2, 4), (2, 4))),
    "bounds that are parameters": (Of(lambda x, b: x.clamp(min=b), b=tensor(0.1, -0.1, 2, -2)), ((2, 4),)),
    "spectrogram": (Of(lambda x: torch.stft(x, 8, window=WINDOW, return_complex=True).abs()), ((2, 32),)),
    "sound from a spectrum": (
        Of(lambda x: torch.istft(torch.stft(x, 8, window=WINDOW, return_complex=True), 8, window=WINDOW)[:, :9]),
        ((2, 32),),
    ),
    "conjugate spectrum": (Of(lambda x: (torch.fft.rfftn(x, dim=1).conj() * (1 + 2j)).real), ((2, 6),)),
    "log-likelihood": (Of(lambda x: F.nll_loss(x, torch.tensor([1, 0]), CLASSES, reduction="none")), ((2, 3),)),
}


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_gradient_times_input(name: str) -> None:
    model, shapes = HOMOGENEOUS[name]
    torch.manual_seed(0)
    model, x = prepared(model), [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    for got, expected in zip(explained(model, *x), gradient_times_input(model, *x), strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_fractional_pooling(dims: int) -> None:
    """Where its windows begin is drawn, once and for all; as with any pooling a maximum wins."""
    begin = torch.rand(2, 1, dims, dtype=torch.float64)
    pool = getattr(nn, f"FractionalMaxPool{dims}d")(2, output_size=2, _random_samples=begin)
    x = torch.rand(2, 1, *[5] * dims, dtype=torch.float64)
    explanation = relprop.LRP(pool).explain(x, lambda y: y.flatten(1).sum(1))
    assert_balanced(explanation)
    kept = explanation.relevance != 0
    assert_same(explanation.relevance[kept], x[kept] * (explanation.relevance[kept] / x[kept]).round())


def test_running_and_pairwise_logsumexp_are_first_order() -> None:
    for function in (lambda x: x.logcumsumexp(1), lambda x: torch.logaddexp(x[:, :1], x[:, 1:])):
        model, x = Of(function), torch.randn(2, 4, dtype=torch.float64)
        assert_same(explained(model, x)[0], gradient_times_input(model, x)[0])


# ---------------------------------------------------------------------------------------------------------------------
# What is short for something else
# ---------------------------------------------------------------------------------------------------------------------

SHORT: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "absolute": (torch.absolute, torch.abs),
    "arctan": (torch.arctan, torch.atan),
    "negative": (torch.negative, torch.neg),
    "subtract": (lambda x: torch.subtract(x, x.flip(1), alpha=3), lambda x: x - 3 * x.flip(1)),
    "divide": (lambda x: torch.divide(x, 2 + x * x), lambda x: x / (2 + x * x)),
    "float_power": (lambda x: torch.float_power(x, 2), lambda x: x**2),
    "expit": (torch.special.expit, torch.sigmoid),
    "exp2": (torch.exp2, lambda x: torch.pow(2.0, x)),
    "log10": (lambda x: torch.log10(x.abs()), lambda x: torch.log(x.abs()) / torch.log(torch.tensor(10.0).double())),
    "logit": (lambda x: torch.logit(x.sigmoid()), lambda x: (lambda p: torch.log(p / (1 - p)))(x.sigmoid())),
    "deg2rad": (torch.deg2rad, lambda x: x * (torch.pi / 180)),
    "asinh": (torch.asinh, lambda x: torch.asinh(x.clone())),
    "vecdot": (lambda x: torch.linalg.vecdot(x, x.flip(1)), lambda x: (x * x.flip(1)).sum(1)),
    "multi_dot": (
        lambda x: torch.linalg.multi_dot([x, torch.ones(4, 3).double(), torch.ones(3, 2).double()]),
        lambda x: x @ torch.ones(4, 3).double() @ torch.ones(3, 2).double(),
    ),
    "trapezoid": (lambda x: torch.trapezoid(x, dim=1), lambda x: (x[:, 1:] + x[:, :-1]).sum(1) / 2),
    "fliplr": (torch.fliplr, lambda x: x.flip(1)),
    "fftshift": (lambda x: torch.fft.fftshift(x, 1) * torch.arange(4), lambda x: x.roll(2, 1) * torch.arange(4)),
    "addmv": (
        lambda x: torch.addmv(x[0], torch.ones(4, 4).double(), x[0], beta=2)[None],
        lambda x: x[:1] * 2 + x[:1] @ torch.ones(4, 4).double(),
    ),
    "scatter a part": (lambda x: x.scatter(1, PLACE, x.exp()), lambda x: x.scatter(1, PLACE, x.exp()[:, :1])),
    "add a part": (lambda x: x.scatter_add(1, PLACE, x.exp()), lambda x: x.scatter_add(1, PLACE, x.exp()[:, :1])),
    "nanmean": (lambda x: x.nanmean(1), lambda x: x.mean(1)),
    "meshgrid": (
        lambda x: torch.meshgrid(x[0], x[0], indexing="ij")[0][None],
        lambda x: x[:1, :, None].expand(1, 4, 4),
    ),
    "reconstruction error": (
        lambda x: F.mse_loss(x, x.flip(1), reduction="none"),
        lambda x: (x - x.flip(1)) ** 2,
    ),
    "cross entropy": (
        lambda x: F.cross_entropy(x, torch.tensor([1]), reduction="none"),
        lambda x: -x.log_softmax(1)[:, 1],
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_short_for(name: str) -> None:
    x = torch.randn(1, 4, dtype=torch.float64)
    short, long = (explained(Of(function), x)[0] for function in SHORT[name])
    assert_same(short, long)


def test_noise_of_a_variational_autoencoder_is_a_constant() -> None:
    """mean + noise * scale: the mean has its own value. Noise that every call draws anew has no answer to explain."""
    x, noise = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    explanation = relprop.LRP(Of(lambda x, noise: x + 0.1 * noise)).explain((x, noise), lambda y: y.sum(1), wrt=0)
    assert_balanced(explanation)
    assert_same(explanation.relevance[0], x)
    with pytest.raises(relprop.CaptureError, match="what is to be explained is random"):
        relprop.LRP(Of(lambda x: x + torch.randn_like(x))).explain(x, lambda y: y.sum(1))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([r[0].cumprod(0) for r in x]),
        lambda x: x.narrow(1, 0, 0).flatten(1).sum(1) + x.flatten(1).sum(1),
        lambda x: torch.cat([x.narrow(0, 0, 0), x]).flatten(1).sum(1),
        lambda x: torch.cat([x[:, :0], torch.zeros(2, 0).double(), x], 1).sum(1),
        lambda x: sum(p.sum(1) for p in x.split([2, 0, 2], 1)),
    ],
    ids=["cumprod of a number", "narrow", "no samples", "cat", "split"],
)
def test_nothing_and_single_numbers(function: Callable[[Tensor], Tensor]) -> None:
    """All are sums or single values: gradient x input."""
    x = torch.randn(2, 4, dtype=torch.float64)
    assert_same(explained(Of(function), x)[0], gradient_times_input(Of(function), x)[0])
