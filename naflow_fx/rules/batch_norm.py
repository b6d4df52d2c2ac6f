"""Batch norm with running statistics: y = s x + c, s = gamma / sqrt(var + eps)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import per_channel
from naflow_fx.rules._spellings import from_module
from naflow_fx.rules.contract import Arguments, Rule, bind

DEAD = 1e-6  # a channel whose |s| is below this share of the largest carries nothing


def forward(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta, per channel of [N, C, ...]."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.0, eps)


def capture(
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    input_shape: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale s, offset c and 1 / s, each [1, C, 1, ...]; constants, so made once at compile time.

    1 / s is 0 in a dead channel, |s| < 1e-6 of the largest.
    """
    scale = torch.rsqrt(running_var.double() + eps)
    if weight is not None:
        scale = scale * weight
    offset = -running_mean.double() * scale
    if bias is not None:
        offset = offset + bias
    alive = scale.abs() > DEAD * scale.abs().amax()
    reciprocal = torch.where(alive, 1 / torch.where(alive, scale, 1.0), 0.0)
    rank, dtype = len(input_shape), running_var.dtype
    first, second, third = (per_channel(x.to(dtype), rank) for x in (scale, offset, reciprocal))
    return first, second, third


def linear(v: Tensor, scale: Tensor) -> Tensor:
    """A v = s v."""
    return v * scale


def transpose(w: Tensor, scale: Tensor) -> Tensor:
    """A^T w = s w."""
    return w * scale


def inverse(z: Tensor, offset: Tensor, reciprocal: Tensor) -> Tensor:
    """(z - c) / s (Eq. 11, with eps); 0 in a dead channel."""
    return (z - offset) * reciprocal


def shift(offset: Tensor) -> Tensor:
    """c = beta - mean s."""
    return offset


def diagonal(scale: Tensor) -> Tensor:
    """d = s."""
    return scale


def adapt(*args: Any, **kwargs: Any) -> Arguments:
    """F.batch_norm's arguments; the mode is read as eval."""
    found = bind(_functional, *args, **kwargs)
    if found["running_mean"] is None:
        raise ValueError("batch statistics (no running mean): a map would depend on the batch")
    return {name: found[name] for name in _NAMES}


def adapt_aten(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *rest: Any
) -> Arguments:
    """aten.batch_norm's arguments (another order, eps last but one)."""
    return adapt(input, running_mean, running_var, weight, bias, eps=rest[2])


def adapt_decomposed(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *rest: Any,
    piece: int = 0,
) -> Arguments:  # fmt: skip
    """The arguments of aten's batch norm for inference, whose first result is y."""
    return adapt(input, running_mean, running_var, weight, bias, eps=rest[1])


def _functional(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> None:  # fmt: skip
    """F.batch_norm's signature."""


_NAMES = ("input", "running_mean", "running_var", "weight", "bias", "eps")
_MODULES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
RULE = Rule(
    "batch_norm",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("scale", "offset", "reciprocal"),
    shift=shift,
    diagonal=diagonal,
    equation="Eq. 11",
    targets={
        F.batch_norm: adapt,
        torch.ops.aten.batch_norm.default: adapt_aten,
        torch.ops.aten._native_batch_norm_legit_no_training.default: adapt_decomposed,
    },
    modules=dict.fromkeys(_MODULES, from_module(adapt, *_NAMES[1:])),
)
