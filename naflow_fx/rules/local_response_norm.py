"""Local response norm: y = g x with the scale g = (k + alpha mean_window x^2)^-beta captured."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import gate
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import same


def forward(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha mean_window x^2)^beta, the window along the channels of [N, C, ...]."""
    return F.local_response_norm(input, size, alpha, beta, k)


def factor(input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """g, of the input's shape."""
    return _base(input, size, alpha, k).pow(-beta)


def inverse(z: Tensor, gate: Tensor) -> Tensor:
    """z / g: g is positive."""
    return z / gate


def vjp(
    w: Tensor, input: Tensor, gate: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    """A^T w through the scale, too."""
    inner = w * input * gate / _base(input, size, alpha, k)
    spread = _window_mean(inner, (size - 1) // 2, size // 2)
    return w * gate - 2 * alpha * beta * input * spread


def _base(x: Tensor, size: int, alpha: float, k: float) -> Tensor:
    return k + alpha * _window_mean(x * x, size // 2, (size - 1) // 2)


def _window_mean(x: Tensor, before: int, after: int) -> Tensor:
    """Sums over channels c - before .. c + after, divided by the window's size."""
    rows = x.flatten(2).mT if x.dim() > 2 else x.unsqueeze(1)  # [N, rest, C]
    mean = F.avg_pool1d(F.pad(rows, (before, after)), before + after + 1, 1)
    return mean.mT.reshape(x.shape)


RULE = gate(
    "local_response_norm",
    forward,
    factor,
    vjp,
    inverse,
    "exact, the sample's scale",
    targets=spellings(same(forward), "local_response_norm"),
    modules={nn.LocalResponseNorm: from_module(same(forward), "size", "alpha", "beta", "k")},
)
