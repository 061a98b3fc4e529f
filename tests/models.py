"""Small networks, and what is asked of every explanation."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def prepared(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in double precision and evaluation mode, with batch statistics that differ from none."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.3, generator=generator)
    return model


def images(batch: int = 2, size: int = 32, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)


def torchvision_model(name: str) -> nn.Module:
    """A stock architecture at a fraction of its width (DenseNet also of its depth), with random weights."""
    torch.manual_seed(0)
    model = _narrow(name)
    for module in model.modules():
        if type(module).__name__ == "CNBlock":
            module.layer_scale.data.fill_(0.5)  # as it is made, 1e-6, a block would not show
    return prepared(model)


def _narrow(name: str) -> nn.Module:
    from torchvision import models

    if name.startswith("resnet"):

        class ResNet(models.ResNet):
            def _make_layer(self, block, planes, *args, **options):
                return super()._make_layer(block, planes // 4, *args, **options)

        block = models.resnet.BasicBlock if name == "resnet18" else models.resnet.Bottleneck
        model = ResNet(block, {"resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}[name])
        model.fc = nn.Linear(128 * block.expansion, 10)
        return model
    if name.startswith("vgg"):
        configuration = [v if v == "M" else v // 4 for v in models.vgg.cfgs["D"]]
        features = models.vgg.make_layers(configuration, batch_norm=name.endswith("bn"))
        return nn.Sequential(features, nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), mlp(128 * 49, 32, 32, 10))
    if name == "densenet":
        return models.DenseNet(growth_rate=8, block_config=(3, 6, 6, 3), num_init_features=16, num_classes=10)
    if name == "convnext_tiny":
        widths = (24, 48, 96, 192, None)
        blocks = [models.convnext.CNBlockConfig(widths[i], widths[i + 1], n) for i, n in enumerate((3, 3, 9, 3))]
        return models.ConvNeXt(blocks, num_classes=10)
    if name == "efficientnet_b0":
        settings, last = models.efficientnet._efficientnet_conf(name, width_mult=0.5, depth_mult=1.0)
        return models.EfficientNet(settings, dropout=0.2, last_channel=last, num_classes=10)
    if name == "googlenet":
        return models.googlenet(num_classes=10, init_weights=False)
    return getattr(models, name)(num_classes=10, width_mult=0.5)


class UNet(nn.Module):
    """Written functionally: in-place operations, a shared block, up-sampling and a transposed convolution."""

    def __init__(self, bias: bool = True, width: int = 6, classes: int = 4):
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1, bias=bias)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias)
        self.shared = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=bias)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2, bias=bias)
        self.side = nn.Conv2d(2 * width, width, 1, bias=bias)
        self.leave = nn.Conv2d(2 * width, classes, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        top = F.relu_(self.enter(x))
        x = F.relu(self.down(top), inplace=True)
        for _ in range(2):
            y = self.shared(x)
            F.relu_(y)
            x += y
        wide = F.interpolate(self.side(F.max_pool2d(x, 2)), scale_factor=4, mode="bilinear", align_corners=False)
        x = self.up(x)
        x += wide
        x.relu_()
        return self.leave(torch.cat([x, top], 1))


class Residual(nn.Module):
    """``x + f(x)`` without a module for the sum."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ReLU(), nn.Linear(7, 5, bias=bias))
        self.o = nn.Linear(5, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(x + self.f(x))


class CNN(nn.Module):
    """A convolutional network with every usual part; small, for tests that call it often."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.drop = nn.Dropout()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.bn1(self.conv1(x))), 2)
        x = self.relu(self.conv2(x))
        return self.fc(self.drop(self.pool(x).flatten(1)))


def cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return prepared(CNN(), seed)


def mlp(*widths: int, bias: bool = True, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, behind in pairwise(widths):
        layers += [nn.Linear(before, behind, bias=bias), activation()]
    return nn.Sequential(*layers[:-1]).double().eval()


# ---------------------------------------------------------------------------------------------------------------------
# What is asked of every explanation
# ---------------------------------------------------------------------------------------------------------------------


def assert_same(x: Tensor, y: Tensor, tolerance: float = 1e-9) -> None:
    """Equal up to rounding, relative to the largest value."""
    assert x.shape == y.shape
    assert torch.isfinite(x).all()
    scale = y.abs().max().item()
    error = (x - y).abs().max().item()
    assert error <= tolerance * scale + 1e-300, f"they differ by {error:.3g}, at a scale of {scale:.3g}"


def assert_balanced(explanation, tolerance: float = 1e-9) -> None:
    """seed = received + absorbed, relative to the amounts that were moved; what is received is what is returned."""
    ledger = explanation.ledger
    moved = ledger.seed.abs() + sum((a.abs() for a in ledger.sinks.values()), torch.zeros_like(ledger.seed))
    total = torch.zeros_like(ledger.seed)
    for relevance in torch.utils._pytree.tree_leaves(explanation.relevance):
        if isinstance(relevance, Tensor):
            moved = moved + relevance.abs().flatten(1).sum(1)
            total = total + relevance.flatten(1).sum(1)
    assert (ledger.residual.abs() <= tolerance * moved).all(), ledger
    assert ((total - ledger.received).abs() <= tolerance * moved).all(), ledger


def score(output: Tensor, target: int = 1) -> Tensor:
    """One number per sample: a class, summed over all places if there is a map of them."""
    return output.flatten(2).sum(2)[:, target] if output.ndim > 2 else output[:, target]


def gradient_times_input(model: nn.Module, x: Tensor, target: int = 1) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(model(x), target).sum(), x)
    return gradient * x.detach()
