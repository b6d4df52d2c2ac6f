"""LeakyReLU and PReLU: y = g x with the captured slope g, 1 where x > 0, else the slope.

Its inverse is damped: alone, z / g (Eq. 13), a slope of 0.01 would multiply noise by 100.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import gate
from naflow_fx.rules._shapes import per_channel
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import Arguments, bind, same


def forward(input: Tensor, negative_slope: float | Tensor = 0.01) -> Tensor:
    """x where x > 0, slope * x elsewhere; the slope a number, or [1] or [C] (PReLU)."""
    if isinstance(negative_slope, Tensor):
        return F.prelu(input, negative_slope)
    return F.leaky_relu(input, negative_slope)


def factor(input: Tensor, negative_slope: float | Tensor) -> Tensor:
    """g, by the sign of x."""
    return torch.where(input > 0, torch.ones_like(input), _slope(negative_slope, input))


def _slope(negative_slope: float | Tensor, like: Tensor) -> Tensor:
    if not isinstance(negative_slope, Tensor):
        return torch.full_like(like, negative_slope)
    return per_channel(negative_slope.to(like.dtype), like.dim()).expand_as(like)


def adapt_rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Arguments:  # fmt: skip
    """rrelu's arguments: in eval mode the slope is the middle one."""
    if training:
        raise ValueError("rrelu draws its slopes: pass training=self.training")
    return bind(forward, input, (lower + upper) / 2)


RULE = gate(
    "leaky_relu",
    forward,
    factor,
    equation="Eq. 13, damped",
    targets={
        **spellings(same(forward, "inplace"), "leaky_relu", in_place=True),
        **spellings(same(forward), "prelu"),
        **spellings(adapt_rrelu, "rrelu", in_place=True),
    },
    modules={
        nn.LeakyReLU: from_module(same(forward), "negative_slope"),
        nn.RReLU: from_module(adapt_rrelu, "lower", "upper"),
        nn.PReLU: lambda module: {"negative_slope": module.weight},
    },
)
