"""Hyperbolic tangent: y = tanh(x); captured, its tangent line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """tanh(x), elementwise."""
    return torch.tanh(input)


def slope(output: Tensor) -> Tensor:
    """f'(x) = 1 - y^2."""
    return 1 - output * output


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """artanh(z), with z clipped into what the sample's captured output spans."""
    bound = 1 - torch.finfo(z.dtype).eps
    return torch.atanh(clip(z, output).clamp(-bound, bound))


RULE = tangent(
    "tanh",
    forward,
    slope,
    inverse,
    gating="squashes",
    targets=spellings(same(forward), "tanh", in_place=True),
    modules={nn.Tanh: plain},
)
