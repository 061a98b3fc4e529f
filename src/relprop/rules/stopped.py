"""Operations whose results count as constants."""

from __future__ import annotations

import torch

from ..graph.facts import NONNEGATIVE
from ..graph.ops import shift_map
from ..graph.outside import outside
from .base import Stop
from .table import register

aten = torch.ops.aten


# New tensors take nothing but the shape of others.
register(
    "stopped",
    Stop(),
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.zero.default,
    shape_only=True,
    fresh=True,
    sign=NONNEGATIVE,
)
register(
    "stopped",
    Stop(),
    aten.new_full.default,
    aten.full_like.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.new_empty.default,
    aten.empty_like.default,
    shape_only=True,
    fresh=True,
)
register("stopped", Stop(), shift_map, shape_only=True)  # a bias, whatever the image
register(
    "stopped",
    Stop(),
    aten.sym_size.int,
    aten.sym_stride.int,
    aten.sym_numel.default,
    aten.sym_storage_offset.default,
    shape_only=True,
    sign=NONNEGATIVE,
)
register("stopped", Stop(), aten.rand_like.default, sign=NONNEGATIVE, fresh=True)
register("stopped", Stop(), aten.randn_like.default, fresh=True)

# Statistics of a normalisation are constants: relevance does not ask why something was scaled.
register(
    "stopped",
    Stop(),
    aten.rsqrt.default,
    aten.var.correction,
    aten.var.dim,
    aten.var_mean.correction,
    aten.std.correction,
    aten.std.dim,
    aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim,
)
register("stopped", Stop(), aten.detach.default)
register("stopped", Stop(), outside, fresh=True)

# Functions that are flat nearly everywhere.
register(
    "stopped",
    Stop(),
    aten.sign.default,
    aten.sgn.default,
    aten.heaviside.default,
    aten.trunc.default,
    aten.round.default,
    aten.floor.default,
    aten.ceil.default,
)
