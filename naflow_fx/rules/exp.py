"""Exponential function: y = exp(x); captured, the tangent."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules._spellings import spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """exp(x), elementwise."""
    return torch.exp(input)


def slope(output: Tensor) -> Tensor:
    """f'(x) = y."""
    return output.clone()


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """log(z), with z clipped into what the sample's captured output spans."""
    return torch.log(clip(z, output).clamp(min=torch.finfo(z.dtype).tiny))


RULE = tangent(
    "exp", forward, slope, inverse, targets=spellings(same(forward), "exp", in_place=True)
)
