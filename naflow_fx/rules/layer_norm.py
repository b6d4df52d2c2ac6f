"""Layer norm over the last dimensions: y = s x + c with the sample's mean and scale captured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules import _statistics
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta, statistics over the last dimensions."""
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def capture(input: Tensor, normalized_shape: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps), of size 1 in the last dimensions."""
    dims = _dims(normalized_shape)
    var, mean = torch.var_mean(input, dims, correction=0, keepdim=True)
    return mean, torch.rsqrt(var + eps)


def linear(v: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    """A v = s v."""
    return v * _statistics.scale(rstd, weight)


def transpose(w: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    """A^T w = s w."""
    return w * _statistics.scale(rstd, weight)


def inverse(
    z: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """(z - c) / s; 0 where s is dead."""
    s = diagonal(rstd, weight)
    return _statistics.undo(z, s, shift(mean, rstd, weight, bias))


def vjp(
    w: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None,
) -> Tensor:
    """A^T w through the statistics, too."""
    g = w if weight is None else w * weight
    return _statistics.pull(g, (input - mean) * rstd, rstd, _dims(normalized_shape))


def shift(mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """c = beta - mean s."""
    return _statistics.offset(mean, rstd, weight, bias)


def diagonal(rstd: Tensor, weight: Tensor | None) -> Tensor:
    """d = s."""
    return _statistics.scale(rstd, weight)


def _dims(normalized_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(-len(normalized_shape), 0))


def adapt(
    input: object, normalized_shape: tuple[int, ...], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, cudnn_enable: bool = True,
) -> Arguments:  # fmt: skip
    """F.layer_norm's arguments."""
    return {"input": input, "normalized_shape": tuple(normalized_shape), "weight": weight,
            "bias": bias, "eps": eps}  # fmt: skip


RULE = Rule(
    "layer_norm",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("mean", "rstd"),
    shift=shift,
    vjp=vjp,
    diagonal=diagonal,
    equation="Eq. 11, the sample's statistics",
    targets=spellings(adapt, "layer_norm"),
    modules={nn.LayerNorm: from_module(adapt, "normalized_shape", "weight", "bias", "eps")},
)
