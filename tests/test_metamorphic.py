"""Two ways to write, store or feed the same model have the same explanation."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from relprop import rules, select

from .models import CNN, Residual, assert_balanced, assert_same, cnn, images, mlp, prepared, score

COMPOSITES = ("lrp0", "epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box", "gamma")
POLICIES = ("absorb", "redistribute", "zero")


def vectors(batch: int = 3, features: int = 5) -> Tensor:
    return torch.randn(batch, features, dtype=torch.float64)


def assert_twins(one: nn.Module, other: nn.Module, x: Tensor, composites=COMPOSITES, policies=("absorb",)) -> None:
    """The same output, and the same relevance under every composite and policy."""
    first, second = relprop.LRP(one), relprop.LRP(other)
    assert_same(one(x), other(x), 1e-10)
    for composite in composites:
        for policy in policies:
            a = first.using(composite, bias=policy).explain(x, score)
            b = second.using(composite, bias=policy).explain(x, score)
            assert_same(a.output, one(x), 1e-10)
            assert_same(a.relevance, b.relevance, 1e-8)
            assert_balanced(a)
            assert_balanced(b)


pytestmark = pytest.mark.filterwarnings("ignore::relprop.RelevanceWarning")  # random inputs leave the box of z^B


# ------------------------------------------------------------------------------------------------------- shared modules


class Twice(nn.Module):
    """One linear layer, one ReLU and one pool, each called twice."""

    def __init__(self, first: nn.Module, second: nn.Module, relu: nn.Module, other_relu: nn.Module):
        super().__init__()
        self.first, self.second, self.relu, self.other_relu = first, second, relu, other_relu
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.other_relu(self.second(self.relu(self.first(x)))))


def test_layer_called_twice_captum_857_1082() -> None:
    """captum#857, #1082, CLIP#239: a module called twice is as good as two copies of it."""
    layer, relu = nn.Linear(5, 5), nn.ReLU()
    shared = Twice(layer, layer, relu, relu).double()
    unshared = copy.deepcopy(shared)
    unshared.second, unshared.other_relu = copy.deepcopy(layer), nn.ReLU()
    assert_twins(shared, unshared, vectors(), policies=POLICIES)


class TwoParents(nn.Module):
    def __init__(self, relu: nn.Module, other: nn.Module):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(5, 4), relu)
        self.right = nn.Sequential(nn.Linear(5, 4), other)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.left(x) - self.right(x))


def test_one_relu_under_two_parents_captum_1180() -> None:
    relu = nn.ReLU()
    model = TwoParents(relu, relu).double()
    twin = copy.deepcopy(model)
    twin.right[1] = nn.ReLU()
    assert_twins(model, twin, vectors())


class Recurrence(nn.Module):
    """One convolution called four times in a loop, with the input added each time."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(4):
            y = F.relu(self.layers[i % len(self.layers)](y)) + x
        return y.mean((2, 3))


def test_layer_called_in_a_loop() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1).double()
    assert_twins(Recurrence([layer]), Recurrence([copy.deepcopy(layer) for _ in range(4)]), images(2, 8))


def test_tied_weights() -> None:
    tied = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)).double()
    tied[2].weight = tied[0].weight
    assert_twins(tied, copy.deepcopy(tied), vectors())


# ------------------------------------------------------------------------------------------------ functions and modules


class Functional(nn.Module):
    """:class:`CNN` with every module written as a function of its parameters, partly in place."""

    def __init__(self, net: CNN):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        n = self.net
        x = torch.conv2d(x, n.conv1.weight, n.conv1.bias, padding=1)
        x = (x - n.bn1.running_mean[:, None, None]) / torch.sqrt(n.bn1.running_var[:, None, None] + n.bn1.eps)
        x = F.batch_norm(x, torch.zeros(4).to(x), torch.ones(4).to(x), n.bn1.weight, n.bn1.bias, eps=0.0)
        x = F.max_pool2d(F.relu_(x), 2)
        x = F.conv2d(x, n.conv2.weight, n.conv2.bias, padding="same").clamp_(min=0)
        x = F.dropout(F.adaptive_avg_pool2d(x, 2), training=False).reshape(x.shape[0], -1)
        return torch.addmm(n.fc.bias, x, n.fc.weight.t())


def test_functions_are_as_good_as_modules() -> None:
    model = cnn()
    twin = copy.deepcopy(model)
    twin.bn1, twin.conv1 = nn.Identity(), nn.utils.fuse_conv_bn_eval(model.conv1, model.bn1)
    assert_twins(twin, model, images())
    assert_same(Functional(model)(images()), model(images()), 1e-10)
    assert_same(
        relprop.LRP(Functional(model), "lrp0").attribute(images(), 1), relprop.LRP(model, "lrp0").attribute(images(), 1)
    )


@pytest.mark.parametrize("composite", [*COMPOSITES, "epsilon_plus_flat", [(select.convolution(), rules.WSquare())]])
def test_zero_padding_is_padding_however_it_is_written(composite) -> None:
    """Padding gets no relevance, also under the rules and policies whose relevance does not vanish with the input."""
    model, x = prepared(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 4, 2, 2))), images(2, 8)
    apart = copy.deepcopy(model)
    apart[0].padding, apart[2].padding = (0, 0), (1, 0)
    apart[0], apart[2] = nn.Sequential(nn.ZeroPad2d(1), apart[0]), nn.Sequential(nn.ZeroPad2d((2, 2, 1, 1)), apart[2])
    assert_twins(model, apart, x, [composite], POLICIES)
    same = copy.deepcopy(model)
    same[0].padding = "same"
    assert_twins(model, same, x, [composite], POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
def test_padding_on_one_side(policy: str) -> None:
    """padding="same" of an even kernel pads at the end: as a wider padding whose first row and column is cut off."""
    model, x = prepared(nn.Conv2d(3, 4, 2, padding="same")), images(2, 6)
    wide = copy.deepcopy(model)
    wide.padding = (1, 1)
    cut = nn.Sequential(wide, Cut())
    assert_twins(model, cut, x, [*COMPOSITES, "epsilon_plus_flat"], [policy])


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_instance_norm_is_another_norm(dims: int, tracked: bool) -> None:
    """Its own statistics: a group norm with one channel per group. Stored ones: a batch norm."""
    kind = [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d][dims - 1]
    norm = kind(4, affine=True, track_running_stats=tracked)
    other = NORMS[dims - 1](4) if tracked else nn.GroupNorm(4, 4)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
        if tracked:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    other.load_state_dict(norm.state_dict())
    before, behind = CONVOLUTIONS[dims - 1](3, 4, 3), CONVOLUTIONS[dims - 1](4, 3, 2)
    x = torch.randn(2, 3, *[5] * dims, dtype=torch.float64)
    twins = [nn.Sequential(before, n, nn.ReLU(), behind, nn.Flatten()).double().eval() for n in (norm, other)]
    assert_twins(*twins, x, policies=POLICIES)


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:, 1:]


class MakesItsReLU(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](nn.ReLU()(self.net[0](x)))


def test_relu_made_inside_forward_captum_1082() -> None:
    model = mlp(5, 4, 3)
    assert_twins(MakesItsReLU(model), model, vectors())


class InPlace(nn.Module):
    def __init__(self, net: Residual):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        y = self.net.f[0](x)
        y.relu_()
        y = self.net.f[2](y)
        y += x
        return self.net.o(y)


def test_in_place_operations_shap_3466() -> None:
    """torch#61519, shap#3466: ``relu_`` and ``+=``."""
    net = Residual().double()
    assert_twins(InPlace(net), net, vectors(), policies=POLICIES)


def test_residual_without_module_zennit_236() -> None:
    """zennit#236, captum#546: ``x + f(x)`` neither doubles nor loses anything."""
    net, x = Residual(bias=False).double(), vectors()
    relevance = relprop.LRP(net, "lrp0").attribute(x, 1)
    assert_same(relevance.sum(1), net(x)[:, 1], 1e-10)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    assert_same(relevance, (gradient * x).detach(), 1e-10)


class Shuffled(nn.Module):
    """Modules in a list whose order is not that of their use."""

    def __init__(self, layers: list[nn.Module], order: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        for i in self.order:
            x = self.layers[i](x)
        return x


def test_module_list_in_shuffled_order_zennit_63() -> None:
    layers = [nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 3, 3), nn.Flatten(), nn.Linear(12, 3)]
    straight = prepared(nn.Sequential(*layers))
    model = prepared(Shuffled([layers[i] for i in (5, 1, 3, 0, 2, 4)], [3, 1, 4, 2, 5, 0]))
    assert_twins(
        straight, model, torch.randn(2, 2, 8).double(), composites=("epsilon_plus", "epsilon_gamma_box", "gamma")
    )


# ---------------------------------------------------------------------------------------------------------- batch norms


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def volume(dims: int, channels: int = 4, size: int = 5) -> Tensor:
    return torch.randn(2, channels, *[size] * dims, dtype=torch.float64)


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale.detach(), (norm.bias - norm.running_mean * scale).detach()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_norm_behind_a_convolution(dims: int, transposed: bool, groups: int, bias: bool) -> None:
    """innvestigate, zennit#63: conv -> BN is one convolution; the twin is merged by hand."""
    kind = (TRANSPOSED if transposed else CONVOLUTIONS)[dims - 1]
    model = prepared(nn.Sequential(kind(4, 6, 3, padding=1, stride=2, groups=groups, bias=bias), NORMS[dims - 1](6)))
    scale, shift = affine_of(model[1])
    merged = kind(4, 6, 3, padding=1, stride=2, groups=groups).double()
    with torch.no_grad():
        for g in range(groups):  # output channel by output channel
            for o in range(6 // groups):
                channel = g * (6 // groups) + o
                if transposed:
                    inputs = slice(g * 4 // groups, (g + 1) * 4 // groups)
                    merged.weight[inputs, o] = model[0].weight[inputs, o] * scale[channel]
                else:
                    merged.weight[channel] = model[0].weight[channel] * scale[channel]
        merged.bias.copy_(shift + (scale * model[0].bias if bias else 0))
    assert_twins(model, nn.Sequential(merged), volume(dims), policies=POLICIES)


def test_norm_behind_a_dense_layer() -> None:
    model = prepared(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)))
    scale, shift = affine_of(model[1])
    merged = copy.deepcopy(model[0])
    with torch.no_grad():
        merged.weight.mul_(scale[:, None])
        merged.bias.mul_(scale).add_(shift)
    assert_twins(model, nn.Sequential(merged, *model[2:]), vectors(), policies=POLICIES)


def test_norm_before_a_dense_layer() -> None:
    model = prepared(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)))
    scale, shift = affine_of(model[0])
    merged = copy.deepcopy(model[1])
    with torch.no_grad():
        merged.bias.add_(model[1].weight @ shift)
        merged.weight.mul_(scale)
    assert_twins(model, nn.Sequential(merged), vectors(), policies=POLICIES)


class Bordered(nn.Module):
    """conv(BN(x)) merged by hand: the shift does not reach into the padding, so the bias depends on the place."""

    def __init__(self, norm: nn.Module, conv: nn.Module, size: tuple[int, ...]):
        super().__init__()
        scale, shift = affine_of(norm)
        self.conv = copy.deepcopy(conv)
        with torch.no_grad():
            per_group = scale.reshape(conv.groups, -1).repeat_interleave(conv.out_channels // conv.groups, 0)
            self.conv.weight.mul_(per_group.reshape(*per_group.shape, *[1] * len(size)))
            self.conv.bias = None
            image = shift.reshape(1, -1, *[1] * len(size)).expand(1, -1, *size)
            self.register_buffer("bias", conv(image))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.bias


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_norm_before_a_convolution(dims: int, padding: int, groups: int) -> None:
    """BN -> conv with padding: outputs agree at the border, and so does what the weights carry."""
    norm, conv = NORMS[dims - 1](4), CONVOLUTIONS[dims - 1](4, 6, 3, padding=padding, groups=groups)
    model, x = prepared(nn.Sequential(norm, conv)), volume(dims)
    twin = Bordered(norm, conv, tuple(x.shape[2:]))
    assert_same(twin(x), model(x), 1e-10)
    assert_twins(model, twin, x, composites=("lrp0",))  # the twin's bias is a sum of its own: its share is the same
    if padding == 0:
        merged = copy.deepcopy(twin.conv)
        merged.bias = nn.Parameter(twin.bias[0].flatten(1)[:, 0].clone())
        assert_twins(model, nn.Sequential(merged), x, policies=POLICIES)


class ByHand(nn.Module):
    def __init__(self, norm: nn.Module, dims: int):
        super().__init__()
        self.conv = CONVOLUTIONS[dims - 1](4, 4, 1, groups=4).double()
        scale, shift = affine_of(norm)
        with torch.no_grad():
            self.conv.weight.copy_(scale.reshape(-1, 1, *[1] * dims))
            self.conv.bias.copy_(shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_norm_on_its_own(dims: int) -> None:
    """A norm between activations is a convolution of size one, channel by channel."""
    norm = prepared(NORMS[dims - 1](4))
    model = nn.Sequential(nn.ReLU(), norm, nn.ReLU())
    twin = nn.Sequential(nn.ReLU(), ByHand(norm, dims), nn.ReLU())
    # z^B is for the first convolution, which only the twin has
    composites = [c for c in COMPOSITES if c != "epsilon_gamma_box"]
    assert_twins(model, twin, volume(dims), composites, POLICIES)


def test_norm_of_which_two_layers_read() -> None:
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.a, self.b = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn(x)
            return self.a(y) + self.b(y)

    class Unforked(nn.Module):
        def __init__(self, fork: Fork):
            super().__init__()
            self.bn, self.a, self.b = fork.bn, fork.a, fork.b

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.bn(x)) + self.b(self.bn(x))

    fork = prepared(Fork())
    assert_twins(fork, Unforked(fork), images(2, 6), policies=POLICIES)


def test_norm_and_the_layer_it_is_folded_into_both_used() -> None:
    """A convolution whose output is also read without its norm must not be folded."""

    class Peek(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (self.bn(y).relu() + y).mean((2, 3))

    model, x = prepared(Peek()), images(2, 6)
    explanation = relprop.LRP(model, "lrp0").explain(x, 1)
    assert_same(explanation.output, model(x), 1e-12)
    v = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(v)[:, 1].sum(), v)
    assert_same(explanation.relevance, gradient * x, 1e-10)


# ---------------------------------------------------------------------------------------------------- batches, channels


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("composite", [*COMPOSITES, "zones"])
def test_batch_is_a_loop_innvestigate_91(composite: str, policy: str) -> None:
    lrp, x = relprop.LRP(cnn(), composite, bias=policy), images(4, 16)
    whole = lrp.explain(x, 1)
    for i in range(4):
        single = lrp.explain(x[i : i + 1], 1)
        assert_same(whole.relevance[i : i + 1], single.relevance, 1e-9)
        assert_same(whole.ledger.received[i : i + 1], single.ledger.received, 1e-9)
        assert_same(whole.ledger.absorbed[i : i + 1], single.ledger.absorbed, 1e-9)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_permuted_channels(composite: str) -> None:
    """Hidden channels in another order change nothing; input channels in another order permute relevance alike."""
    model, x = cnn(), images()
    order, colours = torch.tensor([2, 0, 3, 1]), torch.tensor([2, 0, 1])
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(twin.bn1, name).copy_(getattr(model.bn1, name)[order])
        twin.conv1.weight.copy_(model.conv1.weight[order][:, colours])
        twin.conv1.bias.copy_(model.conv1.bias[order])
        twin.conv2.weight.copy_(model.conv2.weight[:, order])
    relevance = relprop.LRP(model, composite).attribute(x, 1)
    assert_same(relprop.LRP(twin, composite).attribute(x[:, colours], 1), relevance[:, colours], 1e-9)


def test_mirrored_image() -> None:
    model, x = prepared(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 5))), images(2, 16)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for i in (0, 2):
            twin[i].weight.copy_(model[i].weight.flip(3))
    for composite in COMPOSITES:
        one = relprop.LRP(model, composite).attribute(x, score)
        assert_same(relprop.LRP(twin, composite).attribute(x.flip(3), score), one.flip(3), 1e-9)


@pytest.mark.parametrize("factor", [3.0, -2.0])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_relevance_is_linear_in_the_target(composite: str, factor: float) -> None:
    lrp, x = relprop.LRP(cnn(), composite), images()
    one, two = lrp.attribute(x, 0), lrp.attribute(x, 1)
    assert_same(lrp.attribute(x, lambda y: y[:, 0] + factor * y[:, 1]), one + factor * two, 1e-9)


# ----------------------------------------------------------------------------------------------- parameters and formats


def test_frozen_is_as_trainable() -> None:
    frozen = cnn().requires_grad_(False)
    assert_twins(cnn(), frozen, images())


def test_input_that_requires_grad() -> None:
    lrp, x = relprop.LRP(cnn()), images()
    relevance = lrp.attribute(x.clone().requires_grad_(), 1)
    assert torch.equal(relevance, lrp.attribute(x, 1))
    assert not relevance.requires_grad


def edit_by_optimizer(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.train()
    model(images()).square().sum().backward()
    optimizer.step()
    model.eval()


def edit_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5 + 0.01


def edit_in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.25)


def edit_by_load(model: nn.Module) -> None:
    model.load_state_dict(cnn(seed=5).state_dict())


def edit_by_assignment(model: nn.Module) -> None:
    other = cnn(seed=5)
    model.conv1.weight, model.bn1.running_mean = other.conv1.weight, other.bn1.running_mean


@pytest.mark.parametrize(
    "edit", [edit_by_optimizer, edit_data, edit_in_place, edit_by_load, edit_by_assignment], ids=lambda f: f.__name__
)
def test_parameters_are_live(edit) -> None:
    """Train after capture: the explanation is that of the model as it is now, with signs of weights changed too."""
    model, x = cnn(), images()
    lrp = relprop.LRP(model, "epsilon_plus")
    before = lrp.attribute(x, 1)
    captured = sum(len(c) for c in lrp._capturer._captures.values())
    edit(model)
    explanation = lrp.explain(x, 1)
    assert_same(explanation.output, model(x), 1e-12)
    assert_same(explanation.relevance, relprop.LRP(copy.deepcopy(model), "epsilon_plus").attribute(x, 1), 1e-10)
    assert (explanation.relevance - before).abs().max() > 1e-6
    assert sum(len(c) for c in lrp._capturer._captures.values()) == captured


def test_module_replaced_after_capture() -> None:
    """Parameters are live, structure is not: a layer of the same kind and shape is taken as it is."""
    model, x = cnn(), images()
    lrp = relprop.LRP(model, "epsilon")
    lrp.attribute(x, 1)
    model.fc = nn.Linear(24, 3).double()
    assert_same(lrp.explain(x, 1).output, model(x), 1e-12)


def test_moved_to_another_precision() -> None:
    model, x = cnn(), images()
    lrp = relprop.LRP(model, "epsilon_plus")
    double = lrp.attribute(x, 1)
    model.float()
    single = lrp.attribute(x.float(), 1)
    assert single.dtype == torch.float32
    assert_same(single.double(), double, 1e-3)


def test_compiled_model_gives_the_eager_result_torch_115750() -> None:
    """torch#115750: a compiled model has no modules to hook."""
    model, x = cnn(), images()
    eager = relprop.LRP(model, "epsilon_plus").attribute(x, 1)
    assert torch.equal(relprop.LRP(torch.compile(model, backend="eager"), "epsilon_plus").attribute(x, 1), eager)
    assert torch.equal(relprop.LRP(nn.DataParallel(model), "epsilon_plus").attribute(x, 1), eager)


class CompiledPart(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = torch.compile(net, backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * 1.0


def test_model_with_a_compiled_part() -> None:
    model, x = cnn(), images()
    assert_same(relprop.LRP(CompiledPart(model), "lrp0").attribute(x, 1), relprop.LRP(model, "lrp0").attribute(x, 1))


@pytest.mark.parametrize("decomposed", [False, True], ids=["", "decomposed"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "any batch"])
@pytest.mark.parametrize("form", ["program", "file"])
def test_program_and_file_are_as_good_as_the_module(tmp_path, form: str, dynamic: bool, decomposed: bool) -> None:
    model, x = cnn(), images()
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},) if dynamic else None)
    if decomposed:
        program = program.run_decompositions({})
    if form == "file":
        torch.export.save(program, tmp_path / "model.pt2")
    lrp = relprop.LRP(program if form == "program" else tmp_path / "model.pt2")
    twin = relprop.LRP(model)
    for inputs in (x, images(5, seed=3))[: 1 + dynamic]:
        for composite in COMPOSITES:
            assert_same(lrp.using(composite).attribute(inputs, 1), twin.using(composite).attribute(inputs, 1), 1e-9)
    paths = {step.split()[2] for step in str(lrp.plan(x)).splitlines()[3:]}
    assert "conv1" in paths


def test_pickled_model() -> None:
    model, x = cnn(), images()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert_twins(torch.load(buffer, weights_only=False), model, x)


def test_attribute_is_explain() -> None:
    lrp, x = relprop.LRP(cnn()), images()
    for composite in COMPOSITES:
        lrp = lrp.using(composite)
        assert torch.equal(lrp.attribute(x, 1), lrp.explain(x, 1).relevance)


def test_bare_rule_is_its_composite() -> None:
    lrp, x = relprop.LRP(cnn()), images()
    pairs = [(select.linear() | select.affine(), rules.Epsilon(0.1))]
    assert torch.equal(lrp.using(rules.Epsilon(0.1)).attribute(x, 1), lrp.using(pairs).attribute(x, 1))


class Windows(nn.Module):
    """One query of a sample meets every window of it: rows are repeated in place, [B, D] -> [B * windows, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        windows = self.key(x.reshape(-1, 4))
        query = self.query(x[:, 0]).repeat_interleave(x.shape[1], 0)
        return self.out((query + windows).relu()).reshape(x.shape[0], -1, 2).sum(1)


def test_ledger_of_repeated_rows() -> None:
    """Every sample has its own account, also where its rows stand behind each other."""
    model, x = prepared(Windows()), torch.randn(3, 5, 4, dtype=torch.float64)
    lrp = relprop.LRP(model, "epsilon")
    together = lrp.explain(x, 1)
    assert_balanced(together)
    for i in range(3):
        alone = lrp.explain(x[i : i + 1], 1)
        assert_same(together.relevance[i : i + 1], alone.relevance)
        for sink, amount in alone.ledger.sinks.items():
            assert_same(together.ledger.sinks[sink][i : i + 1], amount)
