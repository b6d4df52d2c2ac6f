"""Exponential function: y = exp(x); captured, the tangent."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules._tangent import clip, linear, shift, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """exp(x), elementwise."""
    return torch.exp(input)


def capture(output: Tensor) -> Tensor:
    """f'(x) = y."""
    return output.clone()


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """log(z), with z clipped into what the sample's captured output spans."""
    return torch.log(clip(z, output).clamp(min=torch.finfo(z.dtype).tiny))


_aten = torch.ops.aten
RULE = Rule(
    "exp",
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
        (torch.exp, torch.exp_, "exp", "exp_", _aten.exp.default, _aten.exp_.default),
        same(forward),
    ),
)
