"""Interpolation to another size: y = (P_1 x P_2 x ...) x, one small matrix per space axis."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._separable import (
    Matrices,
    axis_matrix,
    inverse,
    linear,
    pseudo_inverses,
    transpose,
)
from naflow_fx.rules._shapes import Ints, grown
from naflow_fx.rules._spellings import by_rank, from_module, spellings
from naflow_fx.rules.contract import Arguments, Function, Rule, asks_like, roles, same


def forward(
    input: Tensor,
    size: Ints | int | None = None,
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


@asks_like(forward)
def capture(
    size: Any, scale_factor: Any, mode: str, input_shape: Ints, **how: Any
) -> tuple[Matrices, Matrices]:
    """One matrix [out, in] per space axis, and their pseudo-inverses; float64 constants."""
    how["mode"] = mode if mode in ("nearest", "nearest-exact", "area", "bicubic") else "bilinear"
    matrices = []
    for axis, length in enumerate(input_shape[2:]):
        factor = scale_factor[axis] if isinstance(scale_factor, tuple) else scale_factor
        length_out = size[axis] if isinstance(size, tuple) else size
        sizes, factors = length_out and (length_out, 2), factor and (factor, 1.0)
        resized = partial(_column, size=sizes, scale_factor=factors, **how)
        matrices.append(axis_matrix(resized, length))
    return tuple(matrices), pseudo_inverses(matrices)


def _column(x: Tensor, **how: Any) -> Tensor:
    """The same interpolation of [1, C, L], as an image of two equal columns.

    Two, because torch's antialiased interpolation of a single column is wrong.
    """
    return forward(x.unsqueeze(-1).repeat(1, 1, 1, 2), **how)[..., 0]


adapt = same(forward)


def adapt_aten(mode: str) -> Function:
    """The adapter for aten's upsample_*.vec of a mode."""

    def arguments(input: Any, size: Any, *rest: Any) -> Arguments:
        *corners, factors = rest  # align_corners, where the mode has it
        size = tuple(size) if size else None
        return adapt(input, size, None if size else tuple(factors), mode, *corners)

    return arguments


RULE = Rule(
    "interpolate",
    **roles(forward, linear, transpose, inverse, capture),
    labels=grown,
    captures=("matrices", "inverses"),
    gating="carries",
    equation="least squares, exact",
    targets={
        **dict.fromkeys((F.interpolate, F.upsample, F.upsample_nearest), adapt),
        F.upsample_bilinear: same(forward, mode="bilinear", align_corners=True),
        **by_rank(lambda rank: adapt_aten("nearest"), "upsample_nearest{}d.vec"),
        **by_rank(lambda rank: adapt_aten("nearest-exact"), "_upsample_nearest_exact{}d.vec"),
        **spellings(adapt_aten("linear"), "upsample_linear1d.vec"),
        **spellings(adapt_aten("bilinear"), "upsample_bilinear2d.vec"),
        **spellings(adapt_aten("trilinear"), "upsample_trilinear3d.vec"),
        **spellings(adapt_aten("bicubic"), "upsample_bicubic2d.vec"),
    },
    modules=dict.fromkeys(
        (nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
        from_module(adapt),
    ),
)
