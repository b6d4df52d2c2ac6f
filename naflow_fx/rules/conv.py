"""Convolution in 1, 2 or 3 space dimensions: y = W * x + b, any stride, padding and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, has_bias, per_channel
from naflow_fx.rules._spellings import by_rank, per_axis
from naflow_fx.rules.contract import BATCH, CHANNEL, MIXED, SPACE, Arguments, Labels, Rule, same
from naflow_fx.rules.pad import transpose as transpose_pad

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = (1,),
    padding: str | Ints = (0,),
    dilation: Ints = (1,),
    groups: int = 1,
    padding_mode: str = "constant",
) -> Tensor:
    """torch's convNd of [N, C, ...] with `weight` [out, in / groups, ...]; all padding modes."""
    symmetric = native_padding(weight, padding, dilation, padding_mode)
    if symmetric is None:
        input = F.pad(input, pads(weight, padding, dilation), mode=padding_mode)
        symmetric = (0,) * len(stride)
    return CONV[len(stride)](input, weight, bias, stride, symmetric, dilation, groups)


def linear(
    v: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
) -> Tensor:
    """A v: the convolution without its bias, in the weight's dtype."""
    y = forward(v.to(weight.dtype), weight, None, stride, padding, dilation, groups, padding_mode)
    return y.to(v.dtype)


def transpose(
    w: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
    input_shape: Ints,
) -> Tensor:
    """A^T w: the transposed convolution, to the size of the input, in the weight's dtype."""
    rank = len(stride)
    symmetric = native_padding(weight, padding, dilation, padding_mode)
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
    low = w.to(weight.dtype)
    v = CONV_TRANSPOSE[rank](low, weight, None, stride, inner, rest, groups, dilation).to(w.dtype)
    return v if symmetric is not None else transpose_pad(v, widths, padding_mode, input_shape)


def support(
    w: Tensor,
    weight: Tensor,
    full: bool,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
    input_shape: Ints,
) -> Tensor:
    """How many of the outputs counted in `w` read each input; rounded, sums are not exact.

    Where no number of the kernel is 0, the channels of a group are read alike: one is counted.
    """
    how = (stride, padding, dilation, groups, padding_mode)
    if not full:
        return transpose(w, weight, *how, input_shape).abs().round()
    each = w.reshape(w.shape[0], groups, -1, *w.shape[2:]).sum(2)
    ones = weight.new_ones(groups, 1, *weight.shape[2:]).to(w.dtype)
    shape = (-1, groups, *input_shape[2:])
    read = transpose(each, ones, *how, shape).round().unsqueeze(2)
    return read.expand(-1, -1, input_shape[1] // groups, *read.shape[3:]).flatten(1, 2)


def scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """diag(scale) W, of scale [1, C, 1, ...]."""
    return weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))


def shift(bias: Tensor | None, output_shape: Ints) -> Tensor | None:
    """c = b, [1, C, 1, ...]."""
    return None if bias is None else per_channel(bias, len(output_shape))


def labels(labels: Labels) -> Labels:
    """Channels and space by definition, where what came in was mixed."""
    if MIXED not in labels:
        return labels
    return (BATCH, CHANNEL, *(SPACE,) * (len(labels) - 2))


def pads(weight: Tensor, padding: str | Ints, dilation: Sequence[int]) -> Ints:
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
    weight: Tensor, padding: str | Ints, dilation: Sequence[int], mode: str
) -> Ints | None:
    """The padding as the convolution itself takes it; None if a pad must come before."""
    widths = pads(weight, padding, dilation)
    if any(widths) and (mode != "constant" or widths[0::2] != widths[1::2]):
        return None
    return tuple(reversed(widths[0::2]))


def from_module(module: Any) -> Arguments:
    """The arguments of an nn.ConvNd."""
    names = ("weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode")
    found = {name: getattr(module, name) for name in names}
    return found | ({"padding_mode": "constant"} if module.padding_mode == "zeros" else {})


_adapt = per_axis(same(forward), "stride", "padding", "dilation")
RULE = Rule(
    "conv",
    forward,
    linear,
    transpose,
    shift=shift,
    has_shift=has_bias,
    support=support,
    kernel="weight",
    scaled=scaled,
    groups=lambda groups: groups,
    convolves=True,
    labels=labels,
    equation="Eqs. 6-10, damped least squares",
    targets=by_rank(_adapt, "conv{}d", "conv{}d.padding"),
    modules=dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), from_module),
)
