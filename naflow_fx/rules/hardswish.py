"""Hard swish: y = g x with the gate g = min(max(x + 3, 0), 6) / 6 captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import diagonal, inverse, linear, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """x hardsigmoid(x), elementwise."""
    return F.hardswish(input)


def capture(input: Tensor) -> Tensor:
    """g = hardsigmoid(x)."""
    return F.hardsigmoid(input)


def vjp(w: Tensor, input: Tensor, gate: Tensor) -> Tensor:
    """w f'(x): 0 below -3, x / 3 + 1 / 2 between, 1 above 3."""
    between = (input > -3) & (input < 3)
    return w * torch.where(between, gate + input / 6, gate)


_adapt = same(forward, "inplace")
_aten = torch.ops.aten
RULE = Rule(
    "hardswish",
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
        F.hardswish: lambda input, inplace=False: {"input": input},
        _aten.hardswish.default: _adapt, _aten.hardswish_.default: _adapt,
    },
    modules={nn.Hardswish: lambda module: {}},
)  # fmt: skip
