"""Hard sigmoid: y = min(max(x + 3, 0), 6) / 6; captured, its tangent."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """x / 6 + 1 / 2, within [0, 1]; not F.hardsigmoid, whose derivative rounds 1 / 6."""
    return F.relu6(input + 3) / 6


def slope(input: Tensor) -> Tensor:
    """f'(x) = 1 / 6 between -3 and 3, else 0."""
    return ((input > -3) & (input < 3)).to(input.dtype) / 6


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """6 z - 3, with z clipped into what the sample's captured output spans."""
    return 6 * clip(z, output) - 3


RULE = tangent(
    "hardsigmoid",
    forward,
    slope,
    inverse,
    gating="squashes",
    targets=spellings(same(forward, "inplace"), "hardsigmoid", in_place=True),
    modules={nn.Hardsigmoid: plain},
)
