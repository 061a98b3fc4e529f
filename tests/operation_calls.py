"""An example call for every operation of the table, with every argument that has a default given another value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.graph import ops

aten = torch.ops.aten


@dataclass(frozen=True)
class X:
    """A tensor of random numbers of both signs, some of them zero, or of numbers between two bounds."""

    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    dtype: torch.dtype = torch.float64

    def draw(self, random: torch.Generator, positive: bool = False) -> Tensor:
        if self.low is not None:
            return self.low + (self.high - self.low) * torch.rand(self.shape, dtype=self.dtype, generator=random)
        x = torch.randn(self.shape, dtype=self.dtype, generator=random)
        if not positive:
            x = x * (torch.rand(self.shape, generator=random) > 0.2)
        return x if self.dtype.is_complex else x.abs() if positive else x


def x(*shape: int) -> X:
    return X(shape)


def inside(low: float, high: float, *shape: int) -> X:
    return X(shape, low, high)


def complex_(*shape: int) -> X:
    return X(shape, dtype=torch.complex128)


def ints(*values: Any) -> Tensor:
    return torch.tensor(values)


def drawn(given: Any, random: torch.Generator, positive: bool = False) -> Any:
    """An argument with random numbers in the place of tensors."""
    if isinstance(given, X):
        return given.draw(random, positive)
    return [drawn(g, random, positive) for g in given] if isinstance(given, list) else given


MASK = torch.tensor([[True, False, True], [False, False, True]])
ROWS = ints(1, 0)
PLACES = ints([0, 1, 1], [1, 0, 1])

CALLS: dict[Any, list[dict[str, Any]]] = {}


def call(*operations: Any, **given: Any) -> None:
    for operation in operations:
        CALLS.setdefault(operation, []).append(given)


def packets(names: str) -> list[Any]:
    return [getattr(aten, name).default for name in names.split()]


def recurrent_layers() -> Iterator[tuple[Any, dict[str, Any]]]:
    """LSTM, GRU and RNN layers, over sequences and over packed ones, and their cells."""
    for name, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)):
        states = [x(1, 3, 4), x(1, 3, 4)] if name == "lstm" else x(1, 3, 4)
        weights = [x(4 * gates, 2), x(4 * gates, 4), x(4 * gates), x(4 * gates)]
        rest = {"has_biases": True, "num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False}
        packet = getattr(aten, name)
        yield packet.input, {"input": x(3, 5, 2), "hx": states, "params": weights, **rest, "batch_first": True}
        packed = {"data": x(7, 2), "batch_sizes": ints(3, 2, 2)}
        yield packet.data, {**packed, "hx": states, "params": weights, **rest}
        state = [x(3, 4), x(3, 4)] if name == "lstm" else x(3, 4)
        named = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=True))
        yield getattr(aten, f"{name}_cell").default, {"input": x(3, 2), "hx": state, **named}


# -- activations and other functions of single values -----------------------------------------------------------------

call(
    *packets(
        "relu relu6 silu mish hardswish hardsigmoid selu tanh sigmoid log_sigmoid exp exp2 expm1 square abs sin cos tan"
        " atan sinh cosh asinh sinc erf erfc special_log_ndtr neg deg2rad rad2deg sign sgn trunc round floor ceil"
    ),
    self=x(2, 3),
)
call(
    *packets("log log1p log2 log10 sqrt rsqrt reciprocal lgamma digamma asin acos atanh erfinv"),
    self=inside(0.1, 0.9, 2, 3),
)
call(aten.special_entr.default, aten.sqrt.default, aten.log.default, self=inside(0.0, 3.0, 2, 3))
call(aten.acosh.default, self=inside(1.0, 3.0, 2, 3))
call(aten.logit.default, self=inside(0.0, 1.0, 2, 3), eps=0.1)
call(aten.hardtanh.default, self=x(2, 3), min_val=-0.5, max_val=2.0)
call(aten.hardtanh.default, self=x(2, 3), min_val=0.1, max_val=2)
call(aten.leaky_relu.default, self=x(2, 3), negative_slope=0.2)
call(aten.prelu.default, aten._prelu_kernel.default, self=x(2, 3), weight=x(1))
call(aten.fake_quantize_per_tensor_affine.default, self=x(2, 3), scale=0.1, zero_point=2, quant_min=-8, quant_max=7)
rounding = {"scale": torch.tensor(0.5), "zero_point": torch.tensor(1), "low": -4, "high": 3, "on": torch.tensor(1)}
call(ops.fake_quantised, x=x(2, 3), axis=None, **rounding)
call(aten.rrelu.default, self=x(2, 3), lower=0.1, upper=0.2, training=False, generator=None)
call(aten.elu.default, self=x(2, 3), alpha=2.0, scale=0.5, input_scale=3)
call(aten.celu.default, self=x(2, 3), alpha=2)
call(aten.gelu.default, self=x(2, 3), approximate="tanh")
call(aten.softplus.default, self=x(2, 3), beta=2, threshold=3)
call(aten.softshrink.default, aten.hardshrink.default, self=x(2, 3), lambd=0.1)
call(aten.threshold.default, self=x(2, 3), threshold=0.2, value=0.1)
call(aten.clamp.default, self=x(2, 3), min=0.1, max=0.5)
call(aten.clamp.default, self=x(2, 3), min=None, max=0.5)
call(aten.clamp_min.default, self=x(2, 3), min=0)
call(aten.clamp_max.default, self=x(2, 3), max=0.5)
for power in (2, 2.0, 3, 0.5, -1, 0):
    call(
        aten.pow.Tensor_Scalar,
        self=inside(-1.0, 1.0, 2, 3) if power == int(power) else inside(0.0, 1.0, 2, 3),
        exponent=power,
    )
call(aten.pow.Scalar, self=2.0, exponent=x(2, 3))
call(aten.pow.Tensor_Tensor, self=inside(0.1, 2.0, 2, 3), exponent=x(2, 3))
call(aten.nan_to_num.default, self=x(2, 3), nan=1.0, posinf=5.0, neginf=0.0)
call(aten.heaviside.default, self=x(2, 3), values=x(3))

# -- sums, products and other functions of several tensors ------------------------------------------------------------

SUMS = (aten.add, aten.sub, aten.rsub)
for packet in SUMS:
    call(packet.Tensor, self=x(2, 3), other=x(3), alpha=2)
    call(packet.Scalar, self=x(2, 3), other=1, alpha=0.5)
call(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, self=x(2, 3), other=2)
call(aten.mul.Tensor, aten.multiply.Tensor, self=x(2, 3), other=x(3))
call(aten.div.Tensor, aten.true_divide.Tensor, self=x(2, 3), other=inside(0.5, 2.0, 3))
call(aten.mul.Scalar, aten.div.Scalar, self=x(2, 3), other=3)
call(
    *packets("maximum minimum fmax fmin hypot logaddexp logaddexp2"),
    aten.max.other,
    aten.min.other,
    self=x(2, 3),
    other=x(3),
)
call(aten.lerp.Scalar, self=x(2, 3), end=x(2, 3), weight=0.25)
call(aten.where.self, condition=MASK, self=x(2, 3), other=x(3))
call(aten.where.ScalarOther, condition=MASK, self=x(2, 3), other=0.5)
call(aten.where.ScalarSelf, condition=MASK, self=0.5, other=x(2, 3))
call(aten.masked_fill.Scalar, self=x(2, 3), mask=MASK, value=0.5)
call(aten.masked_fill.Tensor, self=x(2, 3), mask=MASK, value=x())
call(aten.matmul.default, self=x(2, 3), other=x(3, 4))
call(aten.mm.default, self=x(2, 3), mat2=x(3, 4))
call(aten.bmm.default, self=x(2, 2, 3), mat2=x(2, 3, 4))
call(aten.mv.default, self=x(2, 3), vec=x(3))
call(aten.dot.default, self=x(3), tensor=x(3))
call(aten.outer.default, self=x(2), vec2=x(3))
call(aten.kron.default, self=x(2, 3), other=x(2, 2))
call(aten.einsum.default, equation="ij,jk->ik", tensors=[x(2, 3), x(3, 4)], path=None)
call(aten.bilinear.default, input1=x(2, 3), input2=x(2, 4), weight=x(5, 3, 4), bias=None)
call(aten.cross.default, self=x(2, 3), other=x(2, 3), dim=1)
call(aten.linalg_cross.default, self=x(3, 2), other=x(3, 2), dim=0)
call(aten.prod.default, self=x(2, 3), dtype=torch.float64)
call(aten.prod.dim_int, self=x(2, 3), dim=1, keepdim=True, dtype=torch.float64)
call(aten.cumprod.default, self=x(2, 3), dim=1, dtype=torch.float64)
call(aten.cdist.default, x1=x(2, 3), x2=x(4, 3), p=3.0, compute_mode=2)
call(aten.pdist.default, self=x(4, 3), p=3.0)
call(ops.distance, x=x(2, 3), p=3.0, keepdim=True)
call(ops.statistic, x=x(2, 3), operation=aten.std.correction, rest=[[1]], options={"correction": 0})

# -- layers -----------------------------------------------------------------------------------------------------------

call(aten.linear.default, input=x(2, 3), weight=x(4, 3), bias=x(4))
for dims, conv, transposed in (
    (1, aten.conv1d.default, aten.conv_transpose1d.default),
    (2, aten.conv2d.default, aten.conv_transpose2d.input),
    (3, aten.conv3d.default, aten.conv_transpose3d.input),
):
    every = {name: [value] * dims for name, value in (("stride", 2), ("padding", 1), ("dilation", 2))}
    call(conv, input=x(2, 4, *[7] * dims), weight=x(6, 2, *[2] * dims), bias=x(6), **every, groups=2)
    dilation = every.pop("dilation")
    rest = {**every, "output_padding": [1] * dims, "groups": 2, "dilation": dilation}
    call(transposed, input=x(2, 4, *[3] * dims), weight=x(4, 3, *[2] * dims), bias=x(6), **rest)
call(ops.affine, x=x(2, 3, 4), scale=x(3), shift=x(3))
call(aten.layer_norm.default, input=x(2, 4), normalized_shape=[4], weight=x(4), bias=x(4), eps=1e-3, cudnn_enable=False)
call(aten.rms_norm.default, input=x(2, 4), normalized_shape=[4], weight=x(4), eps=1e-3)
call(aten.group_norm.default, input=x(2, 4, 3), num_groups=2, weight=x(4), bias=x(4), eps=1e-3, cudnn_enabled=False)
call(ops.standardise, x=x(2, 4, 3), weight=x(4), bias=x(4), epsilon=1e-3)
call(
    aten.scaled_dot_product_attention.default,
    query=x(2, 1, 3, 4),
    key=x(2, 1, 5, 4),
    value=x(2, 1, 5, 4),
    attn_mask=x(3, 5),
    dropout_p=0.0,
    is_causal=False,
    scale=0.3,
    enable_gqa=False,
)
call(aten.softmax.int, aten.log_softmax.int, aten._safe_softmax.default, self=x(2, 3), dim=1, dtype=torch.float64)
call(aten._softmax.default, self=x(2, 3), dim=1, half_to_float=False)
call(aten.logsumexp.default, self=x(2, 3), dim=[1], keepdim=True)
call(aten.logcumsumexp.default, self=x(2, 3), dim=1)
for operation, given in recurrent_layers():
    call(operation, **given)
NORM = {"weight": x(3), "bias": x(3), "running_mean": x(3), "running_var": inside(0.5, 2.0, 3)}
call(aten.batch_norm.default, input=x(2, 3), **NORM, training=False, momentum=0.1, eps=1e-3, cudnn_enabled=False)
call(aten._native_batch_norm_legit_no_training.default, input=x(2, 3), **NORM, momentum=0.1, eps=1e-3)
call(
    *(aten._native_batch_norm_legit.default, aten._native_batch_norm_legit_functional.default),
    **{"input": x(2, 3), **NORM, "training": False, "momentum": 0.1, "eps": 1e-3},
)
call(aten.embedding.default, weight=x(5, 3), indices=PLACES, padding_idx=0, scale_grad_by_freq=False, sparse=False)

# -- pools, resizing --------------------------------------------------------------------------------------------------

for dims in (1, 2, 3):
    image, window = x(2, 2, *[7] * dims), {"kernel_size": [3] * dims, "stride": [2] * dims, "padding": [1] * dims}
    whole = {"self": image, **window, "dilation": [2] * dims, "ceil_mode": True}
    call(getattr(aten, f"max_pool{dims}d").default, **whole)
    call(getattr(aten, f"max_pool{dims}d_with_indices").default, **whole)
    divisor = {} if dims == 1 else {"divisor_override": 5}
    call(
        getattr(aten, f"avg_pool{dims}d").default,
        self=image,
        **window,
        ceil_mode=True,
        count_include_pad=False,
        **divisor,
    )
    for name in (
        ("adaptive_max_pool", "adaptive_avg_pool")
        if dims == 1
        else ("adaptive_max_pool", "adaptive_avg_pool", "_adaptive_avg_pool")
    ):
        call(getattr(aten, f"{name}{dims}d").default, self=image, output_size=[2] * dims)
    small = x(2, 2, *[3] * dims)
    for name in ("upsample_nearest", "_upsample_nearest_exact"):
        call(getattr(aten, f"{name}{dims}d").vec, input=small, output_size=[5] * dims, scale_factors=None)
    if dims > 1:
        samples = inside(0.0, 1.0, 2, 2, dims)
        pool = getattr(aten, f"fractional_max_pool{dims}d").default
        call(pool, self=image, kernel_size=[2] * dims, output_size=[3] * dims, random_samples=samples)
for operation in (
    *(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec),
    *(aten.upsample_bicubic2d.vec, aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec),
):
    dims = {aten.upsample_linear1d.vec: 1, aten.upsample_trilinear3d.vec: 3}.get(operation, 2)
    for aligned in (False, True):
        size = [5 + d for d in range(dims)]
        call(operation, input=x(2, 2, *[3] * dims), output_size=size, align_corners=aligned, scale_factors=None)
call(
    aten.grid_sampler.default,
    aten.grid_sampler_2d.default,
    input=x(2, 2, 4, 4),
    grid=inside(-1.2, 1.2, 2, 3, 3, 2),
    interpolation_mode=0,
    padding_mode=0,
    align_corners=True,
)
call(
    aten.grid_sampler_3d.default,
    input=x(2, 2, 4, 4, 4),
    grid=inside(-1.2, 1.2, 2, 3, 3, 3, 3),
    interpolation_mode=0,
    padding_mode=0,
    align_corners=True,
)
call(aten.affine_grid_generator.default, theta=x(2, 2, 3), size=[2, 1, 4, 4], align_corners=True)

# -- views ------------------------------------------------------------------------------------------------------------

call(aten.view.default, aten._unsafe_view.default, self=x(2, 6), size=[2, 2, 3])
call(aten.reshape.default, self=x(2, 6), shape=[4, 3])
call(aten.flatten.using_ints, self=x(2, 3, 4), start_dim=1, end_dim=2)
call(aten.unflatten.int, self=x(2, 6), dim=1, sizes=[2, 3])
call(aten.squeeze.default, self=x(2, 1, 3))
call(aten.squeeze.dim, self=x(2, 1, 3), dim=1)
call(aten.squeeze.dims, self=x(2, 1, 3), dim=[1])
call(aten.unsqueeze.default, self=x(2, 3), dim=1)
call(aten.expand.default, self=x(2, 1, 3), size=[2, 4, 3], implicit=False)
call(aten.permute.default, self=x(2, 3, 4), dims=[0, 2, -2])
call(aten.transpose.int, self=x(2, 3, 4), dim0=1, dim1=-1)
call(*packets("t mT numpy_T alias clone detach contiguous lift_fresh_copy"), self=x(2, 3))
call(aten.clone.default, self=x(2, 3), memory_format=None)
call(*packets("atleast_1d atleast_2d atleast_3d"), self=x(2, 3))
call(aten.select.int, self=x(2, 3, 4), dim=1, index=-1)
call(aten.slice.Tensor, self=x(2, 5), dim=1, start=1, end=4, step=2)
call(aten.slice.Tensor, self=x(2, 5), dim=1, start=-3, end=2**63 - 1, step=1)
call(aten.movedim.int, self=x(2, 3, 4), source=1, destination=2)
call(aten.narrow.default, self=x(2, 5), dim=1, start=1, length=3)
call(aten.diagonal.default, self=x(2, 3, 3), offset=1, dim1=1, dim2=2)
call(aten.split.Tensor, aten.unsafe_split.Tensor, self=x(2, 6), split_size=2, dim=1)
call(aten.split_with_sizes.default, self=x(2, 6), split_sizes=[2, 4], dim=1)
call(aten.chunk.default, self=x(2, 6), chunks=3, dim=1)
call(aten.unbind.int, self=x(2, 3), dim=1)
call(aten.unfold.default, self=x(2, 6), dimension=1, size=3, step=2)
call(aten.as_strided.default, self=x(2, 6), size=[2, 3], stride=[6, 2], storage_offset=1)
call(aten.real.default, self=x(2, 3))
call(aten.real.default, aten.imag.default, aten._conj.default, aten.view_as_real.default, self=complex_(2, 3))
call(aten.view_as_complex.default, self=x(2, 3, 2))
call(aten.complex.default, real=x(2, 3), imag=x(2, 3))

# -- values in other places -------------------------------------------------------------------------------------------

call(aten.cat.default, aten.stack.default, tensors=[x(2, 3), x(2, 3)], dim=1)
call(aten.index.Tensor, self=x(2, 3), indices=[None, ints(2, 0)])
call(aten.index_select.default, self=x(2, 3), dim=1, index=ints(2, 0, 2))
call(aten.gather.default, self=x(2, 3), dim=1, index=PLACES, sparse_grad=False)
call(aten.take_along_dim.default, self=x(2, 3), indices=PLACES, dim=1)
call(aten.flip.default, self=x(2, 3), dims=[1])
call(aten.roll.default, self=x(2, 3), shifts=[1], dims=[1])
call(aten.rot90.default, self=x(2, 3, 4), k=3, dims=[1, 2])
call(aten.repeat.default, self=x(2, 3), repeats=[1, 2])
call(aten.tile.default, self=x(2, 3), dims=[1, 2])
call(aten.repeat_interleave.self_int, self=x(2, 3), repeats=2, dim=1, output_size=6)
call(aten.repeat_interleave.self_Tensor, self=x(2, 3), repeats=ints(1, 0, 2), dim=1, output_size=3)
call(aten.pixel_shuffle.default, self=x(2, 4, 3, 3), upscale_factor=2)
call(aten.pixel_unshuffle.default, self=x(2, 1, 4, 4), downscale_factor=2)
call(aten.channel_shuffle.default, self=x(2, 4, 3), groups=2)
COLUMNS = {"kernel_size": [2, 2], "dilation": [1, 1], "padding": [1, 1], "stride": [2, 2]}
call(aten.im2col.default, self=x(2, 2, 4, 4), **COLUMNS)
call(aten.col2im.default, self=x(2, 8, 9), output_size=[4, 4], **COLUMNS)
call(aten.tril.default, aten.triu.default, self=x(3, 3), diagonal=1)
call(aten.slice_scatter.default, self=x(2, 5), src=x(2, 2), dim=1, start=1, end=4, step=2)
call(aten.select_scatter.default, self=x(2, 3), src=x(2), dim=1, index=1)
call(aten.diagonal_scatter.default, self=x(2, 3, 3), src=x(2, 2), offset=1, dim1=1, dim2=2)
call(aten.index_put.default, self=x(2, 3), indices=[None, ints(2, 2)], values=x(2, 2), accumulate=True)
call(aten.scatter.src, aten.scatter_add.default, self=x(2, 3), dim=1, index=ints([0, 2], [1, 0]), src=x(2, 2))
call(aten.scatter.value, self=x(2, 3), dim=1, index=ints([0, 2], [1, 0]), value=0.5)
for reduce in ("sum", "mean", "amax", "amin"):
    call(aten.scatter_reduce.two, self=x(2, 3), dim=1, index=PLACES, src=x(2, 3), reduce=reduce, include_self=False)
call(
    aten.index_reduce.default, self=x(2, 3), dim=1, index=ints(0, 2), source=x(2, 2), reduce="mean", include_self=False
)
call(aten.index_add.default, self=x(2, 3), dim=1, index=ints(0, 2), source=x(2, 2), alpha=2)
call(
    aten.segment_reduce.default,
    data=x(5, 2),
    reduce="sum",
    lengths=ints(2, 3),
    indices=None,
    offsets=None,
    axis=0,
    unsafe=False,
    initial=1.0,
)
call(aten.masked_select.default, self=x(2, 3), mask=MASK)
call(aten.masked_scatter.default, self=x(2, 3), mask=MASK, source=x(6))
call(aten.max_unpool2d.default, self=x(1, 1, 2, 2), indices=ints([[[0, 3], [8, 15]]]), output_size=[4, 4])
call(
    aten.max_unpool3d.default,
    self=x(1, 1, 1, 2, 2),
    indices=ints([[[[0, 3], [8, 15]]]]),
    output_size=[2, 4, 4],
    stride=[2, 2, 2],
    padding=[0, 0, 0],
)
call(aten.sort.default, self=x(2, 3), dim=0, descending=True)
call(aten.sort.stable, self=x(2, 3), stable=True, dim=0, descending=True)
call(aten.topk.default, self=x(2, 3), k=1, dim=0, largest=False, sorted=False)
call(
    aten.max.dim,
    aten.min.dim,
    aten.median.dim,
    aten.nanmedian.dim,
    aten.mode.default,
    self=x(2, 3),
    dim=0,
    keepdim=True,
)
call(aten.cummax.default, aten.cummin.default, self=x(2, 3), dim=1)
call(aten.kthvalue.default, self=x(2, 3), k=2, dim=0, keepdim=True)
call(aten.pad.default, self=x(2, 3), pad=[1, 2], mode="constant", value=0.5)
call(aten.pad.default, self=x(2, 2, 3), pad=[1, 2], mode="reflect", value=None)
call(aten.constant_pad_nd.default, self=x(2, 3), pad=[1, 2], value=0.5)
call(ops.PACK, input=x(3, 4, 2), lengths=ints(4, 2, 1), batch_first=True)
call(ops.PAD, data=x(7, 2), batch_sizes=ints(3, 2, 1, 1), batch_first=True, padding_value=0.5, total_length=5)
call(aten.pad_sequence.default, sequences=[x(3, 2), x(2, 2)], batch_first=True, padding_value=0.5, padding_side="left")
call(ops.spread, x=x(3), like=x(2, 3))
call(ops.bagged, x=x(4, 2), bag=ints(0, 0, 1, 1), offsets=ints(0, 2), last=False, mode=1)

# -- sums, means and statistics ---------------------------------------------------------------------------------------

call(aten.mean.default, aten.sum.default, self=x(2, 3), dtype=torch.float64)
call(aten.nansum.default, self=x(2, 3), dim=[1], keepdim=True, dtype=torch.float64)
call(aten.mean.dim, aten.sum.dim_IntList, self=x(2, 3), dim=[1], keepdim=True, dtype=torch.float64)
call(aten.cumsum.default, self=x(2, 3), dim=1, dtype=torch.float64)
call(aten.amax.default, aten.amin.default, self=x(2, 3), dim=[1], keepdim=True)
call(aten.max.default, aten.min.default, self=x(2, 3))
call(aten.trace.default, self=x(3, 3))
call(aten.aminmax.default, self=x(2, 3), dim=1, keepdim=True)
call(aten.diff.default, self=x(2, 5), n=2, dim=0, prepend=x(1, 5), append=x(1, 5))
call(
    aten.var.correction,
    aten.std.correction,
    aten.var_mean.correction,
    self=x(2, 3),
    dim=[1],
    correction=0,
    keepdim=True,
)
call(aten.var.dim, aten.std.dim, self=x(2, 3), dim=[1], unbiased=False, keepdim=True)
call(aten.linalg_vector_norm.default, self=x(2, 3), ord=1, dim=[1], keepdim=True, dtype=torch.float64)
call(aten.norm.ScalarOpt_dim, self=x(2, 3), p=1, dim=[1], keepdim=True)
call(aten.quantile.default, self=x(2, 5), q=inside(0.0, 1.0, 2), dim=1, keepdim=True, interpolation="midpoint")
call(aten.quantile.scalar, self=x(2, 5), q=0.3, dim=1, keepdim=True, interpolation="lower")
call(aten.nll_loss.default, self=x(3, 4), target=ints(0, 3, 1), weight=inside(0.5, 2.0, 4), reduction=0, ignore_index=3)
for name in ("fft ifft rfft irfft hfft ihfft").split():
    call(getattr(aten, f"fft_{name}").default, self=x(2, 6), n=4, dim=0, norm="ortho")
for name in ("fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn").split():
    call(getattr(aten, f"fft_{name}").default, self=x(2, 6, 4), s=[4, 2], dim=[0, 1], norm="ortho")
SPECTRUM = {"n_fft": 4, "hop_length": 2, "win_length": 3, "window": inside(0.5, 1.0, 3)}
call(
    aten.stft.default,
    self=x(2, 12),
    **SPECTRUM,
    normalized=True,
    onesided=False,
    return_complex=True,
    align_to_window=None,
)
call(
    aten.stft.center,
    self=x(2, 12),
    **SPECTRUM,
    center=True,
    pad_mode="constant",
    normalized=True,
    onesided=False,
    return_complex=True,
    align_to_window=None,
)
call(
    aten.istft.default,
    self=complex_(2, 3, 7),
    **SPECTRUM,
    center=True,
    normalized=True,
    onesided=True,
    length=10,
    return_complex=False,
)

# -- what only looks at shapes, casts, what does nothing --------------------------------------------------------------

call(*packets("zeros_like ones_like empty_like rand_like randn_like"), self=x(2, 3), dtype=torch.float64)
call(aten.zero.default, self=x(2, 3))
call(aten.new_zeros.default, aten.new_ones.default, aten.new_empty.default, self=x(2, 3), size=[4])
call(aten.new_full.default, self=x(2, 3), size=[4], fill_value=2)
call(aten.full_like.default, self=x(2, 3), fill_value=2)
call(aten.fill.Scalar, self=x(2, 3), value=2)
call(aten.fill.Tensor, self=x(2, 3), value=x())
call(aten._to_copy.default, aten.to.dtype_layout, self=x(2, 3), dtype=torch.float32)
call(aten.to.dtype, self=x(2, 3), dtype=torch.float32, non_blocking=True, copy=True)
call(aten.to.device, self=x(2, 3), device=torch.device("cpu"), dtype=torch.float32, non_blocking=True, copy=True)
call(aten.type_as.default, self=x(2, 3), other=X((1,), dtype=torch.float32))
call(*packets("dropout feature_dropout alpha_dropout feature_alpha_dropout"), input=x(2, 3), p=0.5, train=False)


def called(operation: Any) -> str:
    """The name of an operation, the same in every process."""
    return str(operation) if isinstance(operation, torch._ops.OpOverload) else f"relprop.{operation.__name__}"


def by_name(operations: Iterable[Any]) -> list[Any]:
    """In an order that is the same in every process."""
    return sorted(operations, key=called)
