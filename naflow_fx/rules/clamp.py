"""Clamp to [a, b] in general: y = x within, a or b outside; captured, the tangent."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules._tangent import clip, tangent


def forward(input: Tensor, min_val: float | None, max_val: float | None) -> Tensor:
    """min(max(x, min_val), max_val), elementwise; None: no bound."""
    return torch.clamp(input, min_val, max_val)


def slope(input: Tensor, output: Tensor) -> Tensor:
    """f'(x) = 1 where x was within, else 0."""
    return (input == output).to(input.dtype)


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """z clipped into what the sample's captured output spans."""
    return clip(z, output)


RULE = tangent("clamp", forward, slope, inverse)
