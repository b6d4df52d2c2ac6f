"""Mish: y = g x with the gate g = tanh(softplus(x)) captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import gate
from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """x tanh(softplus(x)), elementwise."""
    return F.mish(input)


def factor(input: Tensor) -> Tensor:
    """g = tanh(softplus(x))."""
    return torch.tanh(F.softplus(input))


def vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w (g + x (1 - g^2) sigmoid(x))."""
    return w * (gate + input * (1 - gate * gate) * torch.sigmoid(input))


RULE = gate(
    "mish",
    forward,
    factor,
    vjp,
    targets=spellings(same(forward, "inplace"), "mish", in_place=True),
    modules={nn.Mish: plain},
)
