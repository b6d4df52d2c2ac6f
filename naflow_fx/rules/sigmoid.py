"""Sigmoid: inside regions the tangent, y = f'(x) v + (f(x) - f'(x) x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return torch.sigmoid(input)


def slope(output: Tensor) -> Tensor:
    """f'(x) = y (1 - y)."""
    return output * (1 - output)


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """logit(z), with z clipped into what the sample's captured output spans."""
    return torch.logit(clip(z, output), eps=torch.finfo(z.dtype).eps)


RULE = tangent(
    "sigmoid",
    forward,
    slope,
    inverse,
    gating="squashes",
    targets=spellings(same(forward), "sigmoid", in_place=True),
    modules={nn.Sigmoid: plain},
)
