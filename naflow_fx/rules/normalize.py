"""F.normalize: y = g x with the scale g = 1 / max(||x||_p, eps) captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.rules._gate import gate
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import same

Dims = int | tuple[int, ...]


def forward(input: Tensor, p: float = 2.0, dim: Dims = 1, eps: float = 1e-12) -> Tensor:
    """x / max(||x||_p, eps), the norm along `dim`."""
    return F.normalize(input, p, dim, eps)  # type: ignore[arg-type]


def factor(input: Tensor, p: float, dim: Dims, eps: float) -> Tensor:
    """g, of size 1 along `dim`."""
    norm: Tensor = torch.linalg.vector_norm(input, p, dim, keepdim=True)
    return 1 / norm.clamp(min=eps)


def inverse(z: Tensor, gate: Tensor) -> Tensor:
    """z / g: g is positive."""
    return z / gate


def vjp(w: Tensor, input: Tensor, gate: Tensor, p: float, dim: Dims, eps: float) -> Tensor:
    """A^T w through the norm, too."""
    slope = torch.sign(input) * (input.abs() * gate).pow(p - 1)  # of the norm
    slope = torch.where(gate < 1 / eps, slope, 0.0)
    return w * gate - slope * (w * input).sum(dim, keepdim=True) * gate * gate


RULE = gate(
    "normalize",
    forward,
    factor,
    vjp,
    inverse,
    "exact, the sample's scale",
    targets=spellings(same(forward, "out"), "normalize"),
)
