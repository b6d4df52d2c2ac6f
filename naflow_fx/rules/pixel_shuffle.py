"""Pixel shuffle and unshuffle: y = x, blocks of channels <-> blocks of pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._rearrangement import rearrangement
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import same


def forward(input: Tensor, upscale_factor: int) -> Tensor:
    """[N, C r^2, H, W] -> [N, C, r H, r W]."""
    return F.pixel_shuffle(input, upscale_factor)


def back(w: Tensor, upscale_factor: int) -> Tensor:
    """w shuffled back."""
    return F.pixel_unshuffle(w, upscale_factor)


def unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[N, C, r H, r W] -> [N, C r^2, H, W]."""
    return F.pixel_unshuffle(input, downscale_factor)


def unshuffle_back(w: Tensor, downscale_factor: int) -> Tensor:
    """w put back."""
    return F.pixel_shuffle(w, downscale_factor)


RULE = rearrangement(
    "pixel_shuffle",
    forward,
    back,
    targets=spellings(same(forward), "pixel_shuffle"),
    modules={nn.PixelShuffle: from_module(same(forward), "upscale_factor")},
)
UNSHUFFLE = rearrangement(
    "pixel_unshuffle",
    unshuffle,
    unshuffle_back,
    targets=spellings(same(unshuffle), "pixel_unshuffle"),
    modules={nn.PixelUnshuffle: from_module(same(unshuffle), "downscale_factor")},
)
