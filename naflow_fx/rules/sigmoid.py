"""Sigmoid: inside regions the tangent, y = f'(x) v + (f(x) - f'(x) x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._tangent import clip, linear, shift, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return torch.sigmoid(input)


def capture(output: Tensor) -> Tensor:
    """f'(x) = y (1 - y)."""
    return output * (1 - output)


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """logit(z), with z clipped into what the sample's captured output spans."""
    return torch.logit(clip(z, output), eps=torch.finfo(z.dtype).eps)


_adapt = same(forward)
RULE = Rule(
    "sigmoid",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("tangent",),
    shift=shift,
    function_inverse=True,
    gating="squashes",
    equation="inverse function",
    targets=dict.fromkeys(
        (
            torch.sigmoid,
            F.sigmoid,
            "sigmoid",
            "sigmoid_",
            torch.ops.aten.sigmoid.default,
            torch.ops.aten.sigmoid_.default,
        ),
        _adapt,
    ),
    modules={nn.Sigmoid: lambda module: {}},
)
