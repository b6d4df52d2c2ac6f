"""Patches as columns: y[:, (c, i, j), l] = x[c] at place (i, j) of window l (im2col)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import tuple_of
from naflow_fx.rules._spellings import from_module
from naflow_fx.rules.contract import TOKENS, Arguments, Labels, Rule

Pair = tuple[int, ...]


def forward(input: Tensor, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """The windows of x [N, C, H, W] as columns, [N, C kh kw, L]."""
    return F.unfold(input, kernel, dilation, padding, stride)


def transpose(
    w: Tensor, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair,
    input_shape: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """A^T w: every number added to the pixel that it was copied from (col2im)."""
    return F.fold(w, input_shape[2:], kernel, dilation, padding, stride)


def inverse(
    z: Tensor, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair,
    input_shape: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """A^+ z: the mean of a pixel's copies; 0 where no window reads it."""
    total, count = (transpose(x, kernel, dilation, padding, stride, input_shape)
                    for x in (z, torch.ones_like(z)))  # fmt: skip
    return total / count.clamp(min=1)


def labels(labels: Labels) -> Labels:
    """Windows in order, a place in one as a part of the channels."""
    return (labels[0], labels[1], TOKENS)


def adapt(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Arguments:
    """F.unfold's arguments."""
    names = ("kernel", "dilation", "padding", "stride")
    given = (kernel_size, dilation, padding, stride)
    return {"input": input} | {k: tuple_of(v, 2) for k, v in zip(names, given, strict=True)}


RULE = Rule(
    "unfold",
    forward,
    forward,
    transpose,
    inverse,
    labels=labels,
    equation="least squares, exact",
    targets={F.unfold: adapt, torch.ops.aten.im2col.default: adapt},
    modules={nn.Unfold: from_module(adapt, "kernel_size", "dilation", "padding", "stride")},
)
