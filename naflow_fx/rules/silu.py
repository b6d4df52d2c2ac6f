"""SiLU (Swish): y = g x with the gate g = sigmoid(x) captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import diagonal, inverse, linear, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """x sigmoid(x), elementwise."""
    return F.silu(input)


def capture(input: Tensor) -> Tensor:
    """g = sigmoid(x)."""
    return torch.sigmoid(input)


def vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w f'(x), f'(x) = g (1 + x (1 - g))."""
    return w * gate * (1 + input * (1 - gate))


_adapt = same(forward, "inplace")
_aten = torch.ops.aten
RULE = Rule(
    "silu",
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
        F.silu: lambda input, inplace=False: {"input": input},
        _aten.silu.default: _adapt, _aten.silu_.default: _adapt,
    },
    modules={nn.SiLU: lambda module: {}},
)  # fmt: skip
