"""Transposed convolution in 1, 2 or 3 space dimensions: y = W^T * x + b."""

from __future__ import annotations

from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, has_bias
from naflow_fx.rules._spellings import from_module, per_axis, spellings
from naflow_fx.rules.contract import Rule, same
from naflow_fx.rules.conv import CONV, CONV_TRANSPOSE, labels, shift


def forward(
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
    y: Tensor = CONV_TRANSPOSE[len(stride)](
        input, weight, bias, stride, padding, output_padding, groups, dilation
    )
    return y


def linear(
    v: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Tensor:
    """A v: without the bias, in the weight's dtype."""
    low = v.to(weight.dtype)
    y = forward(low, weight, None, stride, padding, output_padding, groups, dilation)
    return y.to(v.dtype)


def transpose(
    w: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    groups: int,
    dilation: Ints,
    input_shape: Ints,
) -> Tensor:
    """A^T w: the convolution with the same weight, in its dtype, cropped to the input's size."""
    low = w.to(weight.dtype)
    v: Tensor = CONV[len(stride)](low, weight, None, stride, padding, dilation, groups).to(w.dtype)
    for axis, size in enumerate(input_shape[2:], 2):
        v = v.narrow(axis, 0, size)
    return v


_SIZES = ("stride", "padding", "output_padding", "dilation")
_adapt = per_axis(same(forward), *_SIZES)
_MODULES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RULE = Rule(
    "conv_transpose",
    forward,
    linear,
    transpose,
    shift=shift,
    has_shift=has_bias,
    kernel="weight",
    groups=lambda groups: groups,
    convolves=True,
    labels=labels,
    equation="Eqs. 6-10, damped least squares",
    targets={
        **spellings(_adapt(1), "conv_transpose1d"),
        **spellings(_adapt(2), "conv_transpose2d.input"),
        **spellings(_adapt(3), "conv_transpose3d.input"),
    },
    modules=dict.fromkeys(
        _MODULES, from_module(same(forward), "weight", "bias", "groups", *_SIZES)
    ),
)
