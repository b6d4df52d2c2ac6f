"""SiLU (Swish): y = g x with the gate g = sigmoid(x) captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import gate
from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules.contract import same


def forward(input: Tensor) -> Tensor:
    """x sigmoid(x), elementwise."""
    return F.silu(input)


def factor(input: Tensor) -> Tensor:
    """g = sigmoid(x)."""
    return torch.sigmoid(input)


def vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w f'(x), f'(x) = g (1 + x (1 - g))."""
    return w * gate * (1 + input * (1 - gate))


RULE = gate(
    "silu",
    forward,
    factor,
    vjp,
    targets=spellings(same(forward, "inplace"), "silu", in_place=True),
    modules={nn.SiLU: plain},
)
