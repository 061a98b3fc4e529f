"""A model in double precision of which a part is in single: the same relevance as if all were in double."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

from .models import assert_same

Values = Callable[..., Tensor]


def rows(x: Tensor) -> Tensor:
    return torch.arange(len(x))


CALLS: dict[str, Callable[[Tensor, Values], Tensor]] = {
    "linear": lambda x, w: F.linear(x, w(3, 4)),
    "matmul": lambda x, w: x @ w(4, 3),
    "addmm": lambda x, w: torch.addmm(w(3), x, w(4, 3)),
    "baddbmm": lambda x, w: torch.baddbmm(w(1, 1, 3), x[:, None], w(1, 4, 3).expand(len(x), 4, 3))[:, 0],
    "bilinear": lambda x, w: F.bilinear(x, x, w(3, 4, 4)),
    "conv1d": lambda x, w: F.conv1d(x[:, None], w(2, 1, 2)).flatten(1),
    "layer_norm": lambda x, w: F.layer_norm(x, (4,), w(4), w(4)),
    "group_norm": lambda x, w: F.group_norm(x, 1, w(4), w(4)),
    "instance_norm": lambda x, w: F.instance_norm(x[:, None], weight=w(1), bias=w(1))[:, 0],
    "batch_norm": lambda x, w: F.batch_norm(x, w(4), w(4).abs(), w(4), w(4)),
    "rms_norm": lambda x, w: F.rms_norm(x, (4,), w(4)),
    "prelu": lambda x, w: F.prelu(x, w(1)),
    "lerp": lambda x, w: torch.lerp(x, w(4), 0.25),
    "index_put": lambda x, w: w(1, 5).expand(len(x), 5).index_put((rows(x), 0 * rows(x)), x[:, 0]),
    "scatter": lambda x, w: (0 * w(1, 5)).expand(len(x), 5).scatter(1, torch.arange(4).expand(len(x), 4), x),
    "index_add": lambda x, w: w(1, 4).expand(len(x), 4).index_add(1, torch.tensor([1, 0]), x[:, :2]),
    "grid_sample": lambda x, w: F.grid_sample(
        x.view(-1, 1, 2, 2), w(1, 2, 2, 2).expand(len(x), 2, 2, 2) / 4, align_corners=True
    ).flatten(1),
    "cdist": lambda x, w: torch.cdist(x, w(2, 4)),
    "attention": lambda x, w: F.scaled_dot_product_attention(*[x.view(-1, 1, 2, 2)] * 3, attn_mask=w(2, 2)).flatten(1),
    "cat": lambda x, w: torch.cat([x, w(1, 2).expand(len(x), 2)], 1),
    "where": lambda x, w: torch.where(x > 0, x * 2, w(4)),
}
PARTS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(4, 3, batch_first=True),
    "GRU": lambda: nn.GRU(4, 3, batch_first=True),
    "RNN": lambda: nn.RNN(4, 3, batch_first=True),
    "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
}


class Mixed(nn.Module):
    """A layer in double precision, then a part in single."""

    def __init__(self, part: nn.Module | Callable[[Tensor, Values], Tensor], dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.part, self.dtype = nn.Linear(4, 4).double(), part, dtype

    def values(self, *shape: int) -> Tensor:
        """Which single precision has exactly."""
        n = torch.Size(shape).numel()
        return (torch.arange(n).mul(5).remainder(7).sub(3) / 4).reshape(shape).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).to(self.dtype)
        if isinstance(self.part, nn.Module):
            z = self.part(y[:, None])
            return (z[0] if isinstance(z, tuple) else z)[:, 0].double()
        return self.part(y, self.values).double()


x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", [*CALLS, *PARTS])
def test_part_in_single_precision(name: str) -> None:
    torch.manual_seed(2)
    part = PARTS[name]().eval() if name in PARTS else CALLS[name]
    mixed = Mixed(part).eval()
    whole = deepcopy(mixed).double()
    whole.dtype = torch.float64
    found, expected = (relprop.LRP(m, "epsilon").explain(x, 1) for m in (mixed, whole))
    assert_same(found.relevance, expected.relevance, 1e-9)
    assert found.ledger.residual.abs().max() < 1e-9
