"""What normalisations over the sample share: y = s (x - m) + b, s = r gamma, m and r captured."""

from __future__ import annotations

import torch
from torch import Tensor

DEAD = 1e-6  # where |s| is below this share of the sample's largest, nothing comes back


def scale(rstd: Tensor, weight: Tensor | None) -> Tensor:
    """s = r gamma."""
    return rstd if weight is None else rstd * weight


def offset(mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """c = b - m s."""
    shifted = -mean * scale(rstd, weight)
    return shifted if bias is None else shifted + bias


def undo(z: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """(z - c) / s; 0 where s is dead."""
    dims = tuple(range(1, s.dim()))
    alive = s.abs() > DEAD * s.abs().amax(dims, keepdim=True)
    return torch.where(alive, (z - c) / torch.where(alive, s, 1.0), 0.0)


def pull(g: Tensor, xhat: Tensor, rstd: Tensor, dims: tuple[int, ...]) -> Tensor:
    """r (g - mean(g) - xhat mean(g xhat)): the derivative of (x - m) r, statistics over `dims`."""
    centred = g - g.mean(dims, keepdim=True)
    return rstd * (centred - xhat * (g * xhat).mean(dims, keepdim=True))
