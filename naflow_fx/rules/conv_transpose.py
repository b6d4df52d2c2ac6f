"""Transposed convolution in 1, 2 or 3 space dimensions: y = W^T * x + b."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from naflow_fx.rules._shapes import has_bias, tuple_of
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule
from naflow_fx.rules.conv import CONV, CONV_TRANSPOSE, labels, shift


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, ...] = (1,),
    padding: tuple[int, ...] = (0,),
    output_padding: tuple[int, ...] = (0,),
    groups: int = 1,
    dilation: tuple[int, ...] = (1,),
) -> Tensor:
    """torch's conv_transposeNd of [N, C, ...] with `weight` [in, out / groups, ...]."""
    y: Tensor = CONV_TRANSPOSE[len(stride)](
        input, weight, bias, stride, padding, output_padding, groups, dilation
    )
    return y


def linear(
    v: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    output_padding: tuple[int, ...],
    groups: int,
    dilation: tuple[int, ...],
) -> Tensor:
    """A v: without the bias, in the weight's dtype."""
    low = v.to(weight.dtype)
    y = forward(low, weight, None, stride, padding, output_padding, groups, dilation)
    return y.to(v.dtype)


def transpose(
    w: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
    dilation: tuple[int, ...],
    input_shape: tuple[int, ...],
) -> Tensor:
    """A^T w: the convolution with the same weight, in its dtype, cropped to the input's size."""
    low = w.to(weight.dtype)
    v: Tensor = CONV[len(stride)](low, weight, None, stride, padding, dilation, groups).to(w.dtype)
    for axis, size in enumerate(input_shape[2:], 2):
        v = v.narrow(axis, 0, size)
    return v


def adapt(rank: int) -> Callable[..., Arguments]:
    """The adapter for torch's conv_transposeNd."""

    def arguments(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Arguments:  # fmt: skip
        return {
            "input": input, "weight": weight, "bias": bias, "groups": groups,
            "stride": tuple_of(stride, rank), "padding": tuple_of(padding, rank),
            "output_padding": tuple_of(output_padding, rank),
            "dilation": tuple_of(dilation, rank),
        }  # fmt: skip

    return arguments


def from_module(module: Any) -> Arguments:
    """The arguments of an nn.ConvTransposeNd."""
    names = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    return {name: getattr(module, name) for name in names}


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
        **spellings(adapt(1), "conv_transpose1d"),
        **spellings(adapt(2), "conv_transpose2d.input"),
        **spellings(adapt(3), "conv_transpose3d.input"),
    },
    modules=dict.fromkeys(
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), from_module
    ),
)
