"""Weights and images drawn from names, the same on every machine; they need torch alone."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn


def unit(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float32, uniform, mean 0, variance 1, drawn from the name alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return (torch.rand(shape, generator=generator) - 0.5) * math.sqrt(12)


def fill(model: nn.Module) -> nn.Module:
    """Weights from their names, such that activations stay of order one."""
    for name, tensor in model.state_dict().items():
        kind, shape = name.rsplit(".", 1)[-1], tuple(tensor.shape)
        u = unit(name, shape)
        if kind == "running_var":
            u = 1 + 0.25 * u
        elif kind in ("bias", "running_mean", "num_batches_tracked"):
            u = 0.1 * u
        elif len(shape) < 2:
            u = 0.6 + 0.15 * u
        else:
            u = u * math.sqrt((2 if len(shape) > 2 else 1) / math.prod(shape[1:]))
        tensor.copy_(u)
    return model


def images(shape: tuple[int, ...], batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    """[batch, *shape], seeded, of order one."""
    return unit(f"images {shape}", (8, *shape))[:batch].to(dtype)
