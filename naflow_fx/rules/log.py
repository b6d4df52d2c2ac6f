"""Natural logarithm: y = log(x); captured, the tangent."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules._spellings import spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """log(x), elementwise."""
    return torch.log(input)


def slope(input: Tensor) -> Tensor:
    """f'(x) = 1 / x."""
    return torch.reciprocal(input)


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """exp(z), with z clipped into what the sample's captured output spans."""
    return torch.exp(clip(z, output))


RULE = tangent(
    "log", forward, slope, inverse, targets=spellings(same(forward), "log", in_place=True)
)
