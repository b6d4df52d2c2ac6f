"""Mish: y = g x with the gate g = tanh(softplus(x)) captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import diagonal, inverse, linear, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """x tanh(softplus(x)), elementwise."""
    return F.mish(input)


def capture(input: Tensor) -> Tensor:
    """g = tanh(softplus(x))."""
    return torch.tanh(F.softplus(input))


def vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w (g + x (1 - g^2) sigmoid(x))."""
    return w * (gate + input * (1 - gate * gate) * torch.sigmoid(input))


_adapt = same(forward, "inplace")
_aten = torch.ops.aten
RULE = Rule(
    "mish",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("gate",),
    vjp=vjp,
    diagonal=diagonal,
    equation="gate, damped",
    targets={
        F.mish: lambda input, inplace=False: {"input": input},
        _aten.mish.default: _adapt, _aten.mish_.default: _adapt,
    },
    modules={nn.Mish: lambda module: {}},
)  # fmt: skip
