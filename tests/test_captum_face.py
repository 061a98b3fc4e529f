"""relprop in captum's clothes: the arguments as captum reads them, and captum's own tools on the result."""

from __future__ import annotations

import captum.attr
import captum.metrics
import pytest
import torch
from captum.attr import visualization
from torch import Tensor, nn

import relprop
from relprop import rules
from relprop.captum import LRP


class Network(nn.Module):
    """Layers that captum has rules for, so that both can be asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).double()
        self.head = nn.Linear(36, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(torch.flatten(self.features(x), 1))
        return z


CLASSES = [0, 1, 2, 4]
X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Grid(nn.Module):
    """Outputs [B, 3, 2], of two inputs and of what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6).double()

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0, shift: Tensor | None = None) -> Tensor:
        z: Tensor = self.layer(torch.cat([a, b], 1)).relu().reshape(-1, 3, 2) * scale
        return z if shift is None else z + shift[:, None, None]


@pytest.mark.parametrize(
    "target",
    [2, (2,), torch.tensor(2), torch.tensor([2]), CLASSES, torch.tensor(CLASSES), [(1,), (0,), (4,), (2,)]],
)
def test_targets_mean_what_they_mean_to_captum(target: object) -> None:
    """With next to no ε, captum's rule is LRP-0; its convergence delta is that of relprop."""
    model = Network()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.rule = captum.attr._utils.lrp_rules.EpsilonRule(epsilon=1e-12)
    expected, delta = captum.attr.LRP(model).attribute(X, target, return_convergence_delta=True)
    found, own = LRP(Network(), "lrp0").attribute(X, target, return_convergence_delta=True)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(own, delta.detach(), rtol=1e-6, atol=1e-8)
    assert own.abs().min() > 1e-6  # biases take a part


def test_tuples_of_inputs_and_what_else_the_model_takes() -> None:
    model = Grid()
    a, b = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    shift, chosen = torch.randn(3, dtype=torch.float64), [(0, 1), (2, 0), (1, 1)]
    reference = captum.attr.InputXGradient(model).attribute((a, b), chosen, (2.0, shift))
    found = LRP(model, "gradient").attribute((a, b), chosen, (2.0, shift))
    assert isinstance(found, tuple)
    assert len(found) == 2
    for one, other in zip(found, reference, strict=True):
        torch.testing.assert_close(one, other.detach())
    (alone,) = LRP(model, "gradient").attribute((a,), (0, 1), additional_forward_args=b)
    torch.testing.assert_close(alone, captum.attr.InputXGradient(model).attribute(a, (0, 1), b).detach())


def test_captums_metrics_and_pictures_take_the_result() -> None:
    model, lrp = Network(), LRP(Network(), rules.Epsilon(1e-9))
    relevance = lrp.attribute(X, 1)

    def noise(x: Tensor, _: object = None) -> tuple[Tensor, Tensor]:
        step = 1e-4 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
        return step, x - step

    gradient = lrp.lrp.using("gradient").attribute(X, 1) / X
    near = captum.metrics.infidelity(model, noise, X, gradient, target=1)
    far = captum.metrics.infidelity(model, noise, X, relevance, target=1)
    assert (near < 1e-9).all()
    assert (far > near).all()
    sensitivity = captum.metrics.sensitivity_max(lrp.attribute, X, perturb_radius=0.01, target=1)
    assert sensitivity.shape == (4,)
    assert (sensitivity > 0).all()
    figure, _ = visualization.visualize_image_attr(
        relevance[0].permute(1, 2, 0).numpy(), method="heat_map", sign="all", use_pyplot=False
    )
    assert figure.axes[0].images


def test_captums_noise_tunnel_takes_it() -> None:
    lrp = LRP(Network(), "epsilon_plus")
    smooth = captum.attr.NoiseTunnel(lrp).attribute(
        X, nt_type="smoothgrad", nt_samples=3, stdevs=0.0, target=[0, 1, 2, 3]
    )
    torch.testing.assert_close(smooth, lrp.attribute(X, [0, 1, 2, 3]))


def test_what_is_wrong_is_told() -> None:
    lrp = LRP(Network())
    with pytest.raises(relprop.TargetError, match="one for each sample: there are 4, got 2"):
        lrp.attribute(X, [0, 1])
    with pytest.raises(relprop.TargetError, match="ints, or tuples of ints"):
        lrp.attribute(X, ["a", "b", "c", "d"])  # type: ignore[arg-type]
    with pytest.raises(relprop.TargetError, match="one length"):
        lrp.attribute(X, [(0,), (0, 1), (1,), (2,)])
    with pytest.raises(relprop.InputError, match="additional_forward_args"):
        lrp.attribute((X, 3.0))


def test_verbose_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    LRP(Network(), "epsilon_plus").attribute(X, 0, verbose=True)
    assert "ZPlus" in capsys.readouterr().out
