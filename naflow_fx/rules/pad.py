"""Padding: y = x with a border; constant, reflect, replicate or circular; negative crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._separable import axis_matrix
from naflow_fx.rules._separable import transpose as transpose_separable
from naflow_fx.rules._shapes import Ints
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments, Rule, roles, same


def forward(input: Tensor, pad: Ints, mode: str = "constant", value: float | None = None) -> Tensor:
    """F.pad of the last len(pad) / 2 dimensions, widths last axis first."""
    return F.pad(input, pad, mode=mode, value=value)


def linear(v: Tensor, pad: Ints, mode: str) -> Tensor:
    """A v: padding with zero, or with copies of v."""
    return F.pad(v, pad, mode=mode)


def inverse(z: Tensor, pad: Ints, mode: str, input_shape: Ints) -> Tensor:
    """A^+ z: crop; where a pixel was copied, the mean of its copies (exact least squares)."""
    if mode == "constant":
        return F.pad(z, [-width for width in pad])
    copies = transpose(torch.ones_like(z), pad, mode, input_shape)
    return transpose(z, pad, mode, input_shape) / copies.clamp(min=1)


def shift(input: Tensor, pad: Ints, mode: str, value: float | None) -> Tensor | None:
    """c: the constant border; 0 where it is infinite, which no maximum ever picks."""
    if not has_shift(mode, value):
        return None
    return F.pad(torch.zeros_like(input), pad, value=value)


def has_shift(mode: str, value: float | None) -> bool:
    """Whether the border is a constant other than 0."""
    return mode == "constant" and bool(value) and not math.isinf(value or 0.0)


def transpose(w: Tensor, pad: Sequence[int], mode: str, input_shape: Ints) -> Tensor:
    """A^T w: crop, each copy added to its source; also of a convolution's own padding."""
    if mode == "constant":
        return F.pad(w, [-width for width in pad])
    rank = len(pad) // 2
    widths = [tuple(pad[2 * axis : 2 * axis + 2]) for axis in reversed(range(rank))]
    sizes = zip(input_shape[-rank:], widths, strict=True)
    return transpose_separable(
        w, tuple(axis_matrix(F.pad, n, each, mode, like=w) for n, each in sizes)
    )


def _from_module(module: Any) -> Arguments:
    """The arguments of an nn.ZeroPadNd, ConstantPadNd, ReflectionPadNd, ..."""
    kind = type(module).__name__
    mode = {"Ref": "reflect", "Rep": "replicate", "Cir": "circular"}.get(kind[:3], "constant")
    return {"pad": tuple(module.padding), "mode": mode, "value": getattr(module, "value", None)}


def infinite(value: float | None) -> bool:
    """Whether the border is one that a max pool never picks; None: no constant at all."""
    return value is not None and math.isinf(value)


RULE = Rule(
    "pad",
    **roles(forward, linear, transpose, inverse, shift, has_shift, infinite),
    view=True,
    equation="crop",
    targets=spellings(same(forward), "pad"),
    modules={
        getattr(nn, f"{kind}Pad{rank}d"): _from_module
        for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular")
        for rank in (1, 2, 3)
    },
)
