"""Natural logarithm: y = log(x); captured, the tangent."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules._tangent import clip, linear, shift, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """log(x), elementwise."""
    return torch.log(input)


def capture(input: Tensor) -> Tensor:
    """f'(x) = 1 / x."""
    return torch.reciprocal(input)


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """exp(z), with z clipped into what the sample's captured output spans."""
    return torch.exp(clip(z, output))


_aten = torch.ops.aten
RULE = Rule(
    "log",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("tangent",),
    shift=shift,
    function_inverse=True,
    equation="inverse function",
    targets=dict.fromkeys(
        (torch.log, torch.log_, "log", "log_", _aten.log.default, _aten.log_.default),
        same(forward),
    ),
)
