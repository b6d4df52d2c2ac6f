"""Interpolation to another size: y = (P_1 x P_2 x ...) x, one small matrix per space axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._separable import (
    Matrices,
    apply,
    apply_transpose,
    axis_matrix,
    pseudo_inverses,
)
from naflow_fx.rules._shapes import grown
from naflow_fx.rules.contract import Arguments, Labels, Rule, bind


def forward(
    input: Tensor,
    size: tuple[int, ...] | int | None = None,
    scale_factor: tuple[float, ...] | float | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """F.interpolate of [N, C, ...]."""
    return F.interpolate(
        input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias
    )


def capture(
    size: tuple[int, ...] | int | None,
    scale_factor: tuple[float, ...] | float | None,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    antialias: bool,
    input_shape: tuple[int, ...],
) -> tuple[Matrices, Matrices]:
    """One matrix [out, in] per space axis, and their pseudo-inverses; float64 constants."""
    matrices = []
    kind = mode if mode in ("nearest", "nearest-exact", "area", "bicubic") else "bilinear"
    for axis, length in enumerate(input_shape[2:]):
        factor = scale_factor[axis] if isinstance(scale_factor, tuple) else scale_factor
        length_out = size[axis] if isinstance(size, tuple) else size
        sizes, factors = length_out and (length_out, 2), factor and (factor, 1.0)
        options = (sizes, factors, kind, align_corners, recompute_scale_factor, antialias)
        matrices.append(axis_matrix(_column, length, *options))
    return tuple(matrices), pseudo_inverses(matrices)


def linear(v: Tensor, matrices: Matrices) -> Tensor:
    """A v = (P_1 x P_2) v."""
    return apply(v, matrices)


def transpose(w: Tensor, matrices: Matrices) -> Tensor:
    """A^T w."""
    return apply_transpose(w, matrices)


def inverse(z: Tensor, inverses: Matrices) -> Tensor:
    """A^+ z, undamped least squares."""
    return apply(z, inverses)


def labels(labels: Labels, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Labels:
    """Space is back where a single value was spread."""
    return grown(labels, input_shape, output_shape)


def _column(x: Tensor, *options: Any) -> Tensor:
    """The same interpolation of [1, C, L], as an image of two equal columns.

    Two, because torch's antialiased interpolation of a single column is wrong.
    """
    return forward(x.unsqueeze(-1).repeat(1, 1, 1, 2), *options)[..., 0]


def adapt(*args: Any, **kwargs: Any) -> Arguments:
    """F.interpolate's or F.upsample's arguments."""
    found = bind(forward, *args, **kwargs)
    for name in ("size", "scale_factor"):
        value = found[name]
        found[name] = tuple(value) if isinstance(value, (tuple, list)) else value
    return found


def adapt_aten(mode: str, corners: bool) -> Callable[..., Arguments]:
    """The adapter for aten's upsample_*.vec of a mode."""

    def smooth(input: Any, size: Any, align_corners: bool, factors: Any = None) -> Arguments:
        return adapt(input, size, None if size else tuple(factors), mode, align_corners)

    def plain(input: Any, size: Any, factors: Any = None) -> Arguments:
        return adapt(input, tuple(size) if size else None,
                     None if size else tuple(factors), mode)  # fmt: skip

    return smooth if corners else plain


def from_module(module: Any) -> Arguments:
    """The arguments of an nn.Upsample."""
    found = adapt(None, module.size, module.scale_factor, module.mode, module.align_corners,
                  getattr(module, "recompute_scale_factor", None))  # fmt: skip
    return {name: value for name, value in found.items() if name != "input"}


_aten = torch.ops.aten
RULE = Rule(
    "interpolate",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("matrices", "inverses"),
    labels=labels,
    gating="carries",
    equation="least squares, exact",
    targets={
        F.interpolate: adapt, F.upsample: adapt,
        F.upsample_nearest: lambda input, size=None, scale_factor=None: adapt(
            input, size, scale_factor),
        F.upsample_bilinear: lambda input, size=None, scale_factor=None: adapt(
            input, size, scale_factor, "bilinear", True),
        _aten.upsample_nearest1d.vec: adapt_aten("nearest", False),
        _aten.upsample_nearest2d.vec: adapt_aten("nearest", False),
        _aten.upsample_nearest3d.vec: adapt_aten("nearest", False),
        _aten._upsample_nearest_exact1d.vec: adapt_aten("nearest-exact", False),
        _aten._upsample_nearest_exact2d.vec: adapt_aten("nearest-exact", False),
        _aten._upsample_nearest_exact3d.vec: adapt_aten("nearest-exact", False),
        _aten.upsample_linear1d.vec: adapt_aten("linear", True),
        _aten.upsample_bilinear2d.vec: adapt_aten("bilinear", True),
        _aten.upsample_trilinear3d.vec: adapt_aten("trilinear", True),
        _aten.upsample_bicubic2d.vec: adapt_aten("bicubic", True),
    },
    modules=dict.fromkeys(
        (nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), from_module
    ),
)  # fmt: skip
