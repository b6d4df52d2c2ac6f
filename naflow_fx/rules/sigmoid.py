"""Sigmoid: inside regions the tangent, y = f'(x) v + (f(x) - f'(x) x)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rule import Rule, same


def forward(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return torch.sigmoid(input)


def capture(output: Tensor) -> Tensor:
    """f'(x) = y (1 - y)."""
    return output * (1 - output)


def linear(v: Tensor, tangent: Tensor) -> Tensor:
    """A v = f'(x) v."""
    return v * tangent


def transpose(w: Tensor, tangent: Tensor) -> Tensor:
    """A^T w = f'(x) w."""
    return w * tangent


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """logit(z), with z clipped into what the sample's captured output spans."""
    dims = tuple(range(1, output.dim()))
    low, high = output.amin(dims, keepdim=True), output.amax(dims, keepdim=True)
    clipped = torch.minimum(torch.maximum(z, low.to(z.dtype)), high.to(z.dtype))
    return torch.logit(clipped, eps=torch.finfo(z.dtype).eps)


def shift(input: Tensor, output: Tensor, tangent: Tensor) -> Tensor:
    """c = f(x) - f'(x) x."""
    return output - tangent * input


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
    equation="inverse function",
    targets=dict.fromkeys(
        (torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_", torch.ops.aten.sigmoid.default), _adapt
    ),
    modules={nn.Sigmoid: lambda module: {}},
)
