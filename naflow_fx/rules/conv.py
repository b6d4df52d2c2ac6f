"""Convolution in 1, 2 or 3 space dimensions: y = W * x + b, any stride, padding and groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rule import BATCH, CHANNEL, MIXED, SPACE, Arguments, Labels, Rule, bind
from naflow_fx.rules._packed import pack, packed_conv, packed_conv_transpose
from naflow_fx.rules._shapes import per_channel, tuple_of
from naflow_fx.rules.pad import transpose_pad

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MOST_TAPS = 1.5  # of an interleaved transposed convolution, as a multiple of the kernel's
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, ...] = (1,),
    padding: str | tuple[int, ...] = (0,),
    dilation: tuple[int, ...] = (1,),
    groups: int = 1,
    padding_mode: str = "constant",
) -> Tensor:
    """torch's convNd of [N, C, ...] with `weight` [out, in / groups, ...]; all padding modes."""
    symmetric = native_padding(weight, padding, dilation, padding_mode)
    if symmetric is None:
        input = F.pad(input, pads(weight, padding, dilation), mode=padding_mode)
        symmetric = (0,) * len(stride)
    if weight.is_mkldnn:
        return packed_conv(input, weight, bias, stride, symmetric, dilation, groups)
    return CONV[len(stride)](input, weight, bias, stride, symmetric, dilation, groups)


def linear(
    v: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    padding_mode: str,
) -> Tensor:
    """A v: the convolution without its bias, in the weight's dtype."""
    low = v.to(weight.dtype)
    if is_pointwise(weight, padding, groups):
        return _product(weight.flatten(1), low[_read(stride)]).to(v.dtype)
    y = forward(low, weight, None, stride, padding, dilation, groups, padding_mode)
    return y.to(v.dtype)


def transpose(
    w: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    padding_mode: str,
    input_shape: tuple[int, ...],
    turned: Tensor | None = None,
) -> Tensor:
    """A^T w: the transposed convolution, to the size of the input, in the weight's dtype.

    turned: what `turned` makes of the weight, if it is at hand.
    """
    rank = len(stride)
    low = w.to(weight.dtype)
    if is_pointwise(weight, padding, groups):
        matrix = weight.flatten(1).mT if turned is None else turned.flatten(1)
        return _at_read(_product(matrix, low), stride, input_shape).to(w.dtype)
    symmetric = native_padding(weight, padding, dilation, padding_mode)
    if turned is not None and symmetric is not None:
        if set(stride) == {1}:
            again = _turned_padding(weight, symmetric, dilation)
            return linear(w, turned, stride, again, dilation, groups, "constant")
        if _interleaves(weight.shape, stride, dilation):
            return _interleaved(low, turned, stride[0], symmetric, input_shape).to(w.dtype)
    widths = pads(weight, padding, dilation)
    size = list(input_shape[-rank:])
    if symmetric is None:
        size = [s + widths[-2 * i - 2] + widths[-2 * i - 1] for i, s in enumerate(size)]
    inner = symmetric or (0,) * rank
    rest = [
        size[i] - ((w.shape[i - rank] - 1) * stride[i] - 2 * inner[i]
                   + dilation[i] * (weight.shape[i + 2] - 1) + 1)
        for i in range(rank)
    ]  # fmt: skip
    how = (None, stride, inner, rest, groups, dilation)
    if turned is not None and turned.is_mkldnn:
        return packed_conv_transpose(low, turned, *how).to(w.dtype)
    v = CONV_TRANSPOSE[rank](low, weight if turned is None else turned, *how).to(w.dtype)
    return v if symmetric is not None else transpose_pad(v, widths, padding_mode, input_shape)


def turned(
    weight: Tensor,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    padding_mode: str,
) -> Tensor | None:
    """The weight of A^T, [in, out / groups, ...], where that is a product or a convolution too.

    Of other strided layers in two dimensions the weight itself: each of A and A^T packs its own.
    With stride 1 and less padding than the kernel's size, it is the convolution with the flipped
    kernel, which takes less time than the transposed one.  With stride s, in two dimensions, it is
    one convolution for each of the s^2 places that a position of the input can have between those
    that are read, [in s^2, out, ...]: where few of its taps are zeros, it takes a quarter of the
    time of a transposed one that ends in three channels.
    """
    symmetric = native_padding(weight, padding, dilation, padding_mode)
    apart = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    if is_pointwise(weight, padding, groups):
        return apart
    if symmetric is None:
        return None
    if set(stride) == {1}:
        fits = min(_turned_padding(weight, symmetric, dilation)) >= 0
        return apart.flip(tuple(range(2, apart.dim()))) if fits else None
    if len(stride) != 2 or groups != 1:
        return None
    if not _interleaves(weight.shape, stride, dilation):
        return weight
    return _by_place(apart, _taps(weight.shape, stride), stride[0])


def _interleaves(
    shape: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> bool:
    """Whether `turned` makes a kernel for each place between those that are read."""
    few = math.prod(_taps(shape, stride)) * math.prod(stride) <= MOST_TAPS * math.prod(shape[2:])
    return few and len(stride) == 2 and stride[0] == stride[1] and set(dilation) == {1}


def _taps(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """Most taps of a kernel that one place of the input meets."""
    return tuple(-(-k // s) for k, s in zip(shape[2:], stride, strict=True))


def _by_place(turned: Tensor, taps: Sequence[int], s: int) -> Tensor:
    """[in, out, k, k] as flipped kernels of every s-th tap, [in s^2, out, taps, taps]."""
    rest = [taps[i] * s - turned.shape[i + 2] for i in range(2)]
    full = F.pad(turned, (0, rest[1], 0, rest[0]))
    parts = full.reshape(*full.shape[:2], taps[0], s, taps[1], s).flip((2, 4))
    return parts.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)


def _interleaved(
    w: Tensor, turned: Tensor, s: int, padding: tuple[int, ...], input_shape: tuple[int, ...]
) -> Tensor:
    """A^T w of a layer with stride s, from the weight that `turned` makes."""
    around = [k - 1 for k in turned.shape[2:]]
    each = forward(w, turned, None, (1, 1), tuple(around), (1, 1))
    v = F.pixel_shuffle(each, s)
    ends = [input_shape[i] - (v.shape[i] - padding[i]) for i in (-2, -1)]  # 0 where nothing read
    return F.pad(v, (-padding[1], ends[1], -padding[0], ends[0]))


def _turned_padding(
    weight: Tensor, padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """The padding of the convolution with a turned weight."""
    widths = zip(dilation, weight.shape[2:], padding, strict=True)
    return tuple(d * (k - 1) - p for d, k, p in widths)


def packed(
    weight: Tensor,
    is_turned: bool,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    padding_mode: str,
) -> Tensor:
    """A weight of `shape`, or what `turned` made of it, in the layout that oneDNN multiplies by.

    `linear`, or `transpose` as its `turned`, takes it in the plain one's place.  Given the plain
    one, each convolution reorders it first, at 7 x 7 in half of its time.  The same tensor where
    oneDNN has no part in it.
    """
    symmetric = native_padding(weight, padding, dilation, padding_mode)
    if symmetric is None or is_pointwise(weight, padding, groups):
        return weight
    if not is_turned:
        return pack(weight, symmetric, stride, dilation)
    if set(stride) == {1}:
        return pack(weight, _turned_padding(weight, symmetric, dilation), stride, dilation)
    if _interleaves(shape, stride, dilation):
        return pack(weight, [k - 1 for k in weight.shape[2:]], (1, 1), dilation)
    return pack(weight, symmetric, stride, dilation, transposed=True)


def scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """diag(scale) W, of scale [1, C, 1, ...]."""
    return weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))


def is_pointwise(weight: Tensor, padding: str | tuple[int, ...], groups: int) -> bool:
    """Whether it is one matrix at every position that it reads: a product, several times faster.

    As convolutions, oneDNN's reorder their operands before and after.
    """
    alone = groups == 1 and all(k == 1 for k in weight.shape[2:])
    return alone and (isinstance(padding, str) or not any(padding))


def _product(matrix: Tensor, v: Tensor) -> Tensor:
    """[out, in] times [N, in, ...], laid out in memory as v is."""
    if _is_channels_last(v):
        rows = v.movedim(1, -1)
        product = F.linear(rows.reshape(-1, rows.shape[-1]), matrix)
        return product.reshape(*rows.shape[:-1], len(matrix)).movedim(-1, 1)
    product = torch.bmm(matrix.expand(v.shape[0], *matrix.shape), v.flatten(2))
    return product.reshape(*product.shape[:2], *v.shape[2:])


def _is_channels_last(v: Tensor) -> bool:
    """Whether the channels of a position, or of the positions that are read, lie side by side."""
    return v.stride(1) == 1 and v.shape[1] > 1 and not v.is_contiguous()


def _read(stride: tuple[int, ...]) -> tuple[slice, ...]:
    """The positions that a strided layer reads."""
    return (slice(None), slice(None), *(slice(None, None, s) for s in stride))


def _at_read(v: Tensor, stride: tuple[int, ...], input_shape: tuple[int, ...]) -> Tensor:
    """v at the positions that were read, 0 at the others; laid out in memory as v is."""
    if set(stride) == {1}:
        return v
    if _is_channels_last(v):
        rows = v.movedim(1, -1)
        wide = rows.new_zeros(v.shape[0], *input_shape[2:], v.shape[1])
        wide[_read(stride)[1:]] = rows
        return wide.movedim(-1, 1)
    wide = v.new_zeros(*v.shape[:2], *input_shape[2:])
    wide[_read(stride)] = v
    return wide


def shift(bias: Tensor | None, output_shape: tuple[int, ...]) -> Tensor | None:
    """c = b, [1, C, 1, ...]."""
    return None if bias is None else per_channel(bias, len(output_shape))


def has_shift(bias: Tensor | None) -> bool:
    """Whether there is a bias."""
    return bias is not None


def labels(labels: Labels) -> Labels:
    """Channels and space by definition, where what came in was mixed."""
    if MIXED not in labels:
        return labels
    return (BATCH, CHANNEL, *(SPACE,) * (len(labels) - 2))


def dense(
    weight: Tensor, stride: tuple[int, ...], padding: str | tuple[int, ...], groups: int
) -> Tensor | None:
    """The matrix over channels of a 1 x 1, stride 1 convolution, [groups, out/g, in/g]."""
    if not is_pointwise(weight, padding, 1) or set(stride) != {1}:
        return None
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])


def pads(
    weight: Tensor, padding: str | tuple[int, ...], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Widths to pad, in F.pad's order: last axis first, (before, after)."""
    widths: list[int] = []
    for axis in reversed(range(len(dilation))):
        if isinstance(padding, str):
            total = dilation[axis] * (weight.shape[axis + 2] - 1) if padding == "same" else 0
            widths += [total // 2, total - total // 2]
        else:
            widths += [padding[axis], padding[axis]]
    return tuple(widths)


def native_padding(
    weight: Tensor, padding: str | tuple[int, ...], dilation: Sequence[int], mode: str
) -> tuple[int, ...] | None:
    """The padding as the convolution itself takes it; None if a pad must come before."""
    widths = pads(weight, padding, dilation)
    if any(widths) and (mode != "constant" or widths[0::2] != widths[1::2]):
        return None
    return tuple(reversed(widths[0::2]))


def adapt(rank: int) -> Callable[..., Arguments]:
    """The adapter for torch's convNd of that rank."""

    def arguments(*args: Any, **kwargs: Any) -> Arguments:
        found = bind(forward, *args, **kwargs)
        for name in ("stride", "padding", "dilation"):
            if not isinstance(found[name], str):
                found[name] = tuple_of(found[name], rank)
        return found

    return arguments


def from_module(module: Any) -> Arguments:
    """The arguments of an nn.ConvNd."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padding = module.padding if isinstance(module.padding, str) else tuple(module.padding)
    return {
        "weight": module.weight, "bias": module.bias, "stride": tuple(module.stride),
        "padding": padding, "dilation": tuple(module.dilation), "groups": module.groups,
        "padding_mode": mode,
    }  # fmt: skip


_aten = torch.ops.aten
RULE = Rule(
    "conv",
    forward,
    linear,
    transpose,
    shift=shift,
    has_shift=has_shift,
    dense=dense,
    scaled=scaled,
    turned=turned,
    packed=packed,
    labels=labels,
    equation="Eqs. 6-10, damped least squares",
    targets={
        F.conv1d: adapt(1), F.conv2d: adapt(2), F.conv3d: adapt(3),
        _aten.conv1d.default: adapt(1), _aten.conv2d.default: adapt(2),
        _aten.conv3d.default: adapt(3), _aten.conv1d.padding: adapt(1),
        _aten.conv2d.padding: adapt(2), _aten.conv3d.padding: adapt(3),
    },
    modules={nn.Conv1d: from_module, nn.Conv2d: from_module, nn.Conv3d: from_module},
)  # fmt: skip
