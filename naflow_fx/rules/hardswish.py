"""Hard swish: y = g x with the gate g = min(max(x + 3, 0), 6) / 6 captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import gate
from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """x hardsigmoid(x), elementwise."""
    return F.hardswish(input)


def factor(input: Tensor) -> Tensor:
    """g = hardsigmoid(x)."""
    return F.hardsigmoid(input)


def vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w f'(x): 0 below -3, x / 3 + 1 / 2 between, 1 above 3."""
    between = (input > -3) & (input < 3)
    return w * torch.where(between, gate + input / 6, gate)


RULE = gate(
    "hardswish",
    forward,
    factor,
    vjp,
    targets=spellings(same(forward, "inplace"), "hardswish", in_place=True),
    modules={nn.Hardswish: plain},
)
