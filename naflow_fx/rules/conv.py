"""Convolutions in 1, 2 or 3 space dimensions: y = W * x + b; transposed ones: y = W^T * x + b."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, has_bias, per_channel, spatial
from naflow_fx.rules._spellings import attributes, by_rank, modules_by_rank, per_axis, spellings
from naflow_fx.rules.contract import (
    MIXED,
    Arguments,
    Function,
    Labels,
    Rule,
    asks_like,
    roles,
    same,
)
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
    border, inner = borders(weight, padding, dilation, padding_mode)
    padded = F.pad(input, border, mode=padding_mode) if any(border) else input
    return CONV[len(stride)](padded, weight, bias, stride, inner, dilation, groups)


@asks_like(forward, "bias")
def linear(v: Tensor, weight: Tensor, **how: Any) -> Tensor:
    """A v: the convolution without its bias."""
    return forward(v, weight, **how)


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
    """A^T w: the transposed convolution, to the size of the input."""
    rank = len(stride)
    border, inner = borders(weight, padding, dilation, padding_mode)
    rest = []
    for i, size in enumerate(input_shape[-rank:]):
        padded = size + border[-2 * i - 2] + border[-2 * i - 1] + 2 * inner[i]
        rest.append((padded - dilation[i] * (weight.shape[i + 2] - 1) - 1) % stride[i])
    v = CONV_TRANSPOSE[rank](w, weight, None, stride, inner, rest, groups, dilation)
    return transpose_pad(v, border, padding_mode, input_shape) if any(border) else v


@asks_like(forward, "bias")
def support(
    w: Tensor, weight: Tensor, full: bool, groups: int, input_shape: Ints, **how: Any
) -> Tensor:
    """How many of the outputs counted in `w` read each input; rounded, sums are not exact.

    Where no number of the kernel is 0, the channels of a group are read alike: one is counted.
    """
    if not full:
        return transpose(w, weight, groups=groups, input_shape=input_shape, **how).abs().round()
    each = w.reshape(w.shape[0], groups, -1, *w.shape[2:]).sum(2)
    ones = weight.new_ones(groups, 1, *weight.shape[2:]).to(w.dtype)
    shape = (-1, groups, *input_shape[2:])
    read = transpose(each, ones, groups=groups, input_shape=shape, **how).round().unsqueeze(2)
    return read.expand(-1, -1, input_shape[1] // groups, *read.shape[3:]).flatten(1, 2)


def scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """diag(scale) W, of scale [1, C, 1, ...]."""
    return weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))


def shift(bias: Tensor | None, output_shape: Ints) -> Tensor | None:
    """c = b, [1, C, 1, ...]."""
    return None if bias is None else per_channel(bias, len(output_shape))


def labels(labels: Labels) -> Labels:
    """Channels and space by definition, where what came in was mixed."""
    return spatial(labels) if MIXED in labels else labels


def borders(weight: Tensor, padding: str | Ints, dilation: Ints, mode: str) -> tuple[Ints, Ints]:
    """Widths that F.pad adds before, last axis first, and those that the convolution adds."""
    zeros = (0,) * len(dilation)
    before = after = zeros if isinstance(padding, str) else padding
    if padding == "same":
        total = [d * (size - 1) for d, size in zip(dilation, weight.shape[2:], strict=True)]
        before, after = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    if before == after and (mode == "constant" or before == zeros):
        return 2 * zeros, before
    pairs = zip(reversed(before), reversed(after), strict=True)
    return tuple(width for pair in pairs for width in pair), zeros


def layer(name: str, forward: Function, *functions: Function, **others: Any) -> Rule:
    """The rule of a layer whose kernel slides."""
    return Rule(
        name,
        **roles(forward, *functions, shift, labels),
        has_shift=has_bias,
        kernel="weight",
        groups=lambda groups: groups,
        convolves=True,
        equation="Eqs. 6-10, damped least squares",
        **others,
    )


def from_module(module: Any) -> Arguments:
    """The arguments of an nn.ConvNd."""
    found = attributes(forward)(module)
    return found | ({"padding_mode": "constant"} if module.padding_mode == "zeros" else {})


_adapt = per_axis(same(forward), "stride", "padding", "dilation")
RULE = layer(
    "conv",
    forward,
    linear,
    transpose,
    support,
    scaled,
    targets=by_rank(_adapt, "conv{}d", "conv{}d.padding"),
    modules=dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), from_module),
)


def transposed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = (1,),
    padding: Ints = (0,),
    output_padding: Ints = (0,),
    groups: int = 1,
    dilation: Ints = (1,),
) -> Tensor:
    """torch's conv_transposeNd of [N, C, ...] with `weight` [in, out / groups, ...]."""
    how = (stride, padding, output_padding, groups, dilation)
    y: Tensor = CONV_TRANSPOSE[len(stride)](input, weight, bias, *how)
    return y


@asks_like(transposed, "bias")
def transposed_linear(v: Tensor, weight: Tensor, **how: Any) -> Tensor:
    """A v: without the bias."""
    return transposed(v, weight, **how)


@asks_like(transposed, "bias", "output_padding")
def transposed_transpose(w: Tensor, weight: Tensor, input_shape: Ints, **how: Any) -> Tensor:
    """A^T w: the convolution with the same weight, cropped to the input's size."""
    v: Tensor = CONV[w.dim() - 2](w, weight, **how)
    for axis, size in enumerate(input_shape[2:], 2):
        v = v.narrow(axis, 0, size)
    return v


_adapt_transposed = per_axis(same(transposed), "stride", "padding", "output_padding", "dilation")
TRANSPOSED = layer(
    "conv_transpose",
    transposed,
    transposed_linear,
    transposed_transpose,
    targets={
        **spellings(_adapt_transposed(1), "conv_transpose1d"),
        **spellings(_adapt_transposed(2), "conv_transpose2d.input"),
        **spellings(_adapt_transposed(3), "conv_transpose3d.input"),
    },
    modules=modules_by_rank(_adapt_transposed, "ConvTranspose"),
)
