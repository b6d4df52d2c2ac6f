"""Hard sigmoid: y = min(max(x + 3, 0), 6) / 6; captured, its tangent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._tangent import clip, linear, shift, transpose
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """x / 6 + 1 / 2, within [0, 1]; not F.hardsigmoid, whose derivative rounds 1 / 6."""
    return F.relu6(input + 3) / 6


def capture(input: Tensor) -> Tensor:
    """f'(x) = 1 / 6 between -3 and 3, else 0."""
    return ((input > -3) & (input < 3)).to(input.dtype) / 6


def inverse(z: Tensor, output: Tensor) -> Tensor:
    """6 z - 3, with z clipped into what the sample's captured output spans."""
    return 6 * clip(z, output) - 3


_adapt = same(forward, "inplace")
_aten = torch.ops.aten
RULE = Rule(
    "hardsigmoid",
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
    targets={
        F.hardsigmoid: lambda input, inplace=False: {"input": input},
        _aten.hardsigmoid.default: _adapt, _aten.hardsigmoid_.default: _adapt,
    },
    modules={nn.Hardsigmoid: lambda module: {}},
)  # fmt: skip
