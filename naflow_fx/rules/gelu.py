"""GELU: y = g x, g = Phi(x), the normal distribution function, or its tanh approximation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import gate
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import same

CUBIC = 0.044715


def forward(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x), elementwise; `approximate` "none" or "tanh"."""
    return F.gelu(input, approximate=approximate)


def factor(input: Tensor, approximate: str) -> Tensor:
    """g = Phi(x), or (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    if approximate == "tanh":
        return 0.5 * (1 + torch.tanh(_inner(input)))
    return 0.5 * torch.erfc(-input / math.sqrt(2))


def vjp(w: Tensor, input: Tensor, gate: Tensor, approximate: str) -> Tensor:
    """w (g + x g'(x))."""
    if approximate == "tanh":
        rise = math.sqrt(2 / math.pi) * (1 + 3 * CUBIC * input**2)
        return w * (gate + input * 2 * gate * (1 - gate) * rise)
    density = torch.exp(-0.5 * input**2) / math.sqrt(2 * math.pi)
    return w * (gate + input * density)


def _inner(x: Tensor) -> Tensor:
    return math.sqrt(2 / math.pi) * (x + CUBIC * x**3)


RULE = gate(
    "gelu",
    forward,
    factor,
    vjp,
    targets=spellings(same(forward), "gelu"),
    modules={nn.GELU: from_module(same(forward), "approximate")},
)
