"""Hyperbolic tangent: y = tanh(x); captured, its tangent line."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._tangent import clip, linear, shift, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """tanh(x), elementwise."""
    return torch.tanh(input)


def capture(output: Tensor) -> Tensor:
    """f'(x) = 1 - y^2."""
    return 1 - output * output


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """artanh(z), with z clipped into what the sample's captured output spans."""
    bound = 1 - torch.finfo(z.dtype).eps
    return torch.atanh(clip(z, output).clamp(-bound, bound))


_adapt = same(forward)
_aten = torch.ops.aten
RULE = Rule(
    "tanh",
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
        (torch.tanh, F.tanh, "tanh", "tanh_", _aten.tanh.default, _aten.tanh_.default), _adapt
    ),
    modules={nn.Tanh: lambda module: {}},
)
