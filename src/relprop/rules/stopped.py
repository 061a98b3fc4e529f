"""Operations whose results count as constants."""

from __future__ import annotations

import torch

from .table import STOPPED

aten = torch.ops.aten


# New tensors take nothing but the shape of others.
STOPPED |= {
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
    aten.rand_like.default,
    aten.randn_like.default,
    aten.zero.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
}

# Statistics of a normalisation are constants: relevance does not ask why something was scaled.
STOPPED |= {
    aten.rsqrt.default,
    aten.var.correction,
    aten.var.dim,
    aten.var_mean.correction,
    aten.std.correction,
    aten.std.dim,
    aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim,
    aten.detach.default,
    aten.sign.default,
    aten.sgn.default,
    aten.heaviside.default,
    aten.trunc.default,
    aten.round.default,
    aten.floor.default,
    aten.ceil.default,
}
