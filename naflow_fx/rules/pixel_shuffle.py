"""Pixel shuffle and unshuffle: y = x, blocks of channels <-> blocks of pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor, upscale_factor: int) -> Tensor:
    """[N, C r^2, H, W] -> [N, C, r H, r W]."""
    return F.pixel_shuffle(input, upscale_factor)


def linear(v: Tensor, upscale_factor: int) -> Tensor:
    """A v: v shuffled."""
    return F.pixel_shuffle(v, upscale_factor)


def transpose(w: Tensor, upscale_factor: int) -> Tensor:
    """A^T w: w shuffled back."""
    return F.pixel_unshuffle(w, upscale_factor)


def inverse(z: Tensor, upscale_factor: int) -> Tensor:
    """z shuffled back."""
    return F.pixel_unshuffle(z, upscale_factor)


def unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[N, C, r H, r W] -> [N, C r^2, H, W]."""
    return F.pixel_unshuffle(input, downscale_factor)


def unshuffle_linear(v: Tensor, downscale_factor: int) -> Tensor:
    """A v: v unshuffled."""
    return F.pixel_unshuffle(v, downscale_factor)


def unshuffle_transpose(w: Tensor, downscale_factor: int) -> Tensor:
    """A^T w: w put back."""
    return F.pixel_shuffle(w, downscale_factor)


def unshuffle_inverse(z: Tensor, downscale_factor: int) -> Tensor:
    """z put back."""
    return F.pixel_shuffle(z, downscale_factor)


_aten = torch.ops.aten
RULE = Rule(
    "pixel_shuffle",
    forward,
    linear,
    transpose,
    inverse,
    gating="carries",
    equation="exact",
    targets=dict.fromkeys((F.pixel_shuffle, _aten.pixel_shuffle.default), same(forward)),
    modules={nn.PixelShuffle: lambda module: {"upscale_factor": module.upscale_factor}},
)
UNSHUFFLE = Rule(
    "pixel_unshuffle",
    unshuffle,
    unshuffle_linear,
    unshuffle_transpose,
    unshuffle_inverse,
    gating="carries",
    equation="exact",
    targets=dict.fromkeys((F.pixel_unshuffle, _aten.pixel_unshuffle.default), same(unshuffle)),
    modules={nn.PixelUnshuffle: lambda module: {"downscale_factor": module.downscale_factor}},
)
