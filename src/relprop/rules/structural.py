"""Operations that move, add or average values: their rule is their vector-Jacobian product (gradient.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..graph.arguments import argument, arguments
from ..graph.facts import ANY, KEEPS, NONNEGATIVE, Sign
from ..graph.ops import as_real, bagged, spread
from .base import Call, Step
from .gradient import FILLS, LINEAR, MOVES, Gradient
from .table import register

aten = torch.ops.aten


@dataclass(frozen=True)
class Reduction(Gradient):
    """Sums, means and extremes over groups of values."""

    linear: bool = True

    def supports(self, step: Step) -> str | None:
        return "it multiplies values" if argument(step.node, "reduce") == "prod" else None


@dataclass(frozen=True)
class Segments(Reduction):
    """The same of segments, in each of which a fixed number may take part: it has what the values leave over.

    All of these are homogeneous of degree one in the values and that number together.
    """

    linear: bool = False

    def rest(self, call: Call) -> str | None:
        return None if argument(call.node, "initial") is None else "constant"


@dataclass(frozen=True)
class Total(Gradient):
    """Sums and means over dimensions: every value gets what the sum gets, of a mean its part.

    That is their vector-Jacobian product, written out: autograd's bookkeeping would take longer.
    """

    linear: bool = True

    def forward(self, call: Call) -> Any:
        return call.run() if argument(call.node, "dtype") is None else super().forward(call)

    def _pull_back(self, call: Call, gradients: dict[int, Tensor | None], again: bool = False) -> dict[Node, Tensor]:
        (c,) = gradients.values()
        if c is None:
            return {}
        if argument(call.node, "dtype") is not None:
            return super()._pull_back(call, gradients, again)
        (x,) = call.active
        shape = call.shape(x)
        given: dict[str, Any] = arguments(call.node)
        dims = {d % len(shape) for d in given.get("dim") or range(len(shape))} if shape else set()
        if not given.get("keepdim"):
            c = c.reshape([1 if d in dims else n for d, n in enumerate(shape)])
        if call.node.target in MEANS:
            c = c / max(1, math.prod(shape[d] for d in dims))
        return {x: c.expand(shape)}


MEANS = (aten.mean.default, aten.mean.dim)


@dataclass(frozen=True)
class Filled(Gradient):
    """Fixed numbers take the place of values that are NaN or infinite."""

    linear: bool = True
    moves: bool = True
    fills: bool = True

    def without_gaps(self, value: Tensor) -> Tensor:
        return value

    def _filled(self, call: Call) -> list[Any]:
        return [~torch.isfinite(call.value(call.active[0]))]


@dataclass(frozen=True)
class Ignoring(Gradient):
    """The larger or smaller of two values. One that is NaN is never chosen, and torch's gradient says so."""

    linear: bool = True

    def without_gaps(self, value: Tensor) -> Tensor:
        return value


def _between(node: Node) -> Sign:
    weight = argument(node, "weight")
    return KEEPS if isinstance(weight, (int, float)) and weight <= 1 else ANY


register("structural", Filled(), aten.nan_to_num.default, fresh=True, pointwise=True, sign=KEEPS)
register(
    "structural",
    MOVES,
    aten.numpy_T.default,
    aten.movedim.int,
    aten.narrow.default,
    aten.diagonal.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.unfold.default,
    aten.unsafe_split.Tensor,
    aten.atleast_1d.default,
    aten.atleast_2d.default,
    aten.atleast_3d.default,
    spread,
    sign=KEEPS,
)
register("structural", MOVES, aten.as_strided.default)
register("structural", MOVES, aten.where.self, fresh=True, pointwise=True, sign=KEEPS)
register("structural", MOVES, aten.masked_fill.Tensor, fresh=True, sign=KEEPS)
register(
    "structural",
    MOVES,
    aten.index.Tensor,
    aten.index_select.default,
    aten.gather.default,
    aten.take_along_dim.default,
    aten.stack.default,
    aten.flip.default,
    aten.roll.default,
    aten.rot90.default,
    aten.repeat.default,
    aten.tile.default,
    aten.repeat_interleave.self_int,
    aten.repeat_interleave.self_Tensor,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.masked_select.default,
    aten.sort.default,
    aten.sort.stable,
    aten.topk.default,
    aten.max.dim,
    aten.min.dim,
    aten.cummax.default,
    aten.cummin.default,
    aten.kthvalue.default,
    aten.median.dim,
    aten.nanmedian.dim,
    aten.mode.default,
    fresh=True,
    sign=KEEPS,
)
register(
    "structural",
    MOVES,
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    identity=True,
    sign=KEEPS,
)
register(
    "structural",
    MOVES,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    identity=True,
    random=("p", "train"),
    sign=KEEPS,
)
register(
    "structural",
    MOVES,
    aten._to_copy.default,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.type_as.default,
    cast=True,
    pointwise=True,
    sign=KEEPS,
)
register(
    "embedding", MOVES, aten.embedding.default, fresh=True, sign=KEEPS
)  # of a table that is explained: else it is a source
register("structural", Reduction(), aten.scatter_reduce.two, aten.index_reduce.default, fresh=True, sign=KEEPS)
register("structural", Segments(), aten.segment_reduce.default, fresh=True)  # of nothing it is -inf
register("structural", Total(), *MEANS, aten.sum.default, aten.sum.dim_IntList, fresh=True, sign=KEEPS)
register(
    "structural",
    LINEAR,
    aten.nansum.default,
    aten.cumsum.default,
    aten.col2im.default,
    aten.index_add.default,
    aten.scatter_add.default,
    aten.trace.default,
    aten.amax.default,
    aten.amin.default,
    aten.max.default,
    aten.min.default,
    aten.aminmax.default,
    bagged,
    fresh=True,
    sign=KEEPS,
)
register(
    "structural",
    LINEAR,
    aten.deg2rad.default,
    aten.rad2deg.default,
    aten.maximum.default,
    aten.minimum.default,
    aten.max.other,
    aten.min.other,
    fresh=True,
    pointwise=True,
    sign=KEEPS,
)
register("structural", Ignoring(), aten.fmax.default, aten.fmin.default, fresh=True, pointwise=True, sign=KEEPS)
register("structural", LINEAR, aten.hypot.default, fresh=True, pointwise=True, sign=NONNEGATIVE)
register("structural", LINEAR, aten.lerp.Scalar, fresh=True, pointwise=True, sign=_between)
register("structural", LINEAR, aten.complex.default, fresh=True, pointwise=True)
register(
    "structural",
    LINEAR,
    aten.diff.default,
    aten.fft_fft.default,
    aten.fft_ifft.default,
    aten.fft_rfft.default,
    aten.fft_irfft.default,
    aten.fft_fft2.default,
    aten.fft_ifft2.default,
    aten.fft_fftn.default,
    aten.fft_ifftn.default,
    aten.fft_rfft2.default,
    aten.fft_irfft2.default,
    aten.fft_rfftn.default,
    aten.fft_irfftn.default,
    aten.fft_hfft.default,
    aten.fft_ihfft.default,
    aten.affine_grid_generator.default,
    fresh=True,
)
register(
    "structural",
    LINEAR,
    aten.view_as_real.default,
    as_real,
    aten.view_as_complex.default,
    aten._conj.default,
    aten.real.default,
    aten.imag.default,
)
register(
    "structural",
    FILLS,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.tril.default,
    aten.triu.default,
    aten.im2col.default,
    fresh=True,
    sign=KEEPS,
)
register(
    "structural",
    FILLS,
    aten.masked_fill.Scalar,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    fresh=True,
    pointwise=True,
    sign=KEEPS,
)
register(
    "upsample",
    LINEAR,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    aten._upsample_bilinear2d_aa.vec,
    fresh=True,
    sign=KEEPS,
)
register("upsample", LINEAR, aten.upsample_bicubic2d.vec, aten._upsample_bicubic2d_aa.vec, fresh=True)
