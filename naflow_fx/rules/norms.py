"""Batch, layer, group and instance norm: y = s x + c, with s and c captured or constant."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._shapes import Ints, per_channel
from naflow_fx.rules._spellings import attributes, called, from_module, modules_by_rank, spellings
from naflow_fx.rules.contract import Arguments, Rule, roles, same

Affine = Tensor | None  # gamma or beta; None: 1 or 0
DEAD = 1e-6  # where |s| is below this share of the largest, nothing comes back


def batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Affine = None,
    bias: Affine = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta, per channel of [N, C, ...]."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.0, eps)


def batch_capture(
    running_mean: Tensor,
    running_var: Tensor,
    weight: Affine,
    bias: Affine,
    eps: float,
    input_shape: Ints,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale s, offset c and 1 / s, each [1, C, 1, ...]; constants, so made once at compile time.

    1 / s is 0 in a dead channel, |s| < 1e-6 of the largest.
    """
    rstd = torch.rsqrt(running_var.double() + eps)
    scale, offset = diagonal(rstd, weight), shift(running_mean.double(), rstd, weight, bias)
    reciprocal = undo(torch.ones_like(scale), scale, torch.zeros_like(scale))
    rank, dtype = len(input_shape), running_var.dtype
    first, second, third = (per_channel(x.to(dtype), rank) for x in (scale, offset, reciprocal))
    return first, second, third


def batch_linear(v: Tensor, scale: Tensor) -> Tensor:
    """A v = s v, and so is A^T v."""
    return v * scale


def batch_inverse(z: Tensor, offset: Tensor, reciprocal: Tensor) -> Tensor:
    """(z - c) / s (Eq. 11, with eps); 0 in a dead channel."""
    return (z - offset) * reciprocal


def batch_shift(offset: Tensor) -> Tensor:
    """c = beta - mean s."""
    return offset


def batch_diagonal(scale: Tensor) -> Tensor:
    """d = s."""
    return scale


def adapt_batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Arguments:  # fmt: skip
    """F.batch_norm's arguments; the mode is read as eval."""
    if running_mean is None:
        raise ValueError("batch statistics (no running mean): a map would depend on the batch")
    return same(batch_norm)(input, running_mean, running_var, weight, bias, eps)


def adapt_batch_norm_aten(
    input: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any, piece: int = 0
) -> Arguments:
    """The arguments of aten's batch norms: another order; eps behind the momentum."""
    eps = rest[2] if isinstance(rest[0], bool) else rest[1]  # behind `training`, if told
    return adapt_batch_norm(input, mean, var, weight, bias, eps=eps)


BATCH_NORM = Rule(
    "batch_norm",
    **roles(batch_norm, batch_linear, batch_inverse, batch_capture, batch_shift, batch_diagonal),
    captures=("scale", "offset", "reciprocal"),
    equation="Eq. 11",
    targets={
        F.batch_norm: adapt_batch_norm,
        torch.ops.aten.batch_norm.default: adapt_batch_norm_aten,
        torch.ops.aten._native_batch_norm_legit_no_training.default: adapt_batch_norm_aten,
    },
    modules=modules_by_rank(lambda rank: adapt_batch_norm, "BatchNorm")
    | {nn.SyncBatchNorm: from_module(adapt_batch_norm)},
)


# Over the sample: y = s (x - m) + b, s = r gamma, with the statistics m and r captured.


def diagonal(rstd: Tensor, weight: Affine) -> Tensor:
    """d = s = r gamma."""
    return rstd if weight is None else rstd * weight


def linear(v: Tensor, rstd: Tensor, weight: Affine) -> Tensor:
    """A v = s v, and so is A^T v."""
    return v * diagonal(rstd, weight)


def shift(mean: Tensor, rstd: Tensor, weight: Affine, bias: Affine) -> Tensor:
    """c = b - m s."""
    shifted = -mean * diagonal(rstd, weight)
    return shifted if bias is None else shifted + bias


def inverse(z: Tensor, mean: Tensor, rstd: Tensor, weight: Affine, bias: Affine) -> Tensor:
    """(z - c) / s; 0 where s is dead."""
    return undo(z, diagonal(rstd, weight), shift(mean, rstd, weight, bias))


def undo(z: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """(z - c) / s; 0 where s is dead."""
    dims = tuple(range(1, s.dim()))
    alive = s.abs() > DEAD * s.abs().amax(dims, keepdim=True)
    return torch.where(alive, (z - c) / torch.where(alive, s, 1.0), 0.0)


def statistics(x: Tensor, dims: Ints, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps) over `dims`, which are kept."""
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return mean, torch.rsqrt(var + eps)


def pull(g: Tensor, xhat: Tensor, rstd: Tensor, dims: Ints) -> Tensor:
    """r (g - mean(g) - xhat mean(g xhat)): the derivative of (x - m) r, statistics over `dims`."""
    centred = g - g.mean(dims, keepdim=True)
    return rstd * (centred - xhat * (g * xhat).mean(dims, keepdim=True))


def layer_norm(
    input: Tensor,
    normalized_shape: Ints,
    weight: Affine = None,
    bias: Affine = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta, statistics over the last dimensions."""
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def layer_capture(input: Tensor, normalized_shape: Ints, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps), of size 1 in the last dimensions."""
    return statistics(input, _dims(normalized_shape), eps)


def layer_vjp(
    w: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, normalized_shape: Ints, weight: Affine
) -> Tensor:
    """A^T w through the statistics, too."""
    g = w if weight is None else w * weight
    return pull(g, (input - mean) * rstd, rstd, _dims(normalized_shape))


def _dims(normalized_shape: Ints) -> Ints:
    return tuple(range(-len(normalized_shape), 0))


LAYER_NORM = Rule(
    "layer_norm",
    **roles(layer_norm, linear, inverse, layer_capture, shift, layer_vjp, diagonal),
    captures=("mean", "rstd"),
    equation="Eq. 11, the sample's statistics",
    **called(layer_norm, "layer_norm", nn.LayerNorm),
)


def group_norm(
    input: Tensor,
    num_groups: int | None,
    weight: Affine = None,
    bias: Affine = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta; statistics over a group of channels and space.

    `num_groups` None: every channel is a group (instance norm).
    """
    return F.group_norm(input, num_groups or input.shape[1], weight, bias, eps)


def group_capture(input: Tensor, num_groups: int | None, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps), [N, C, 1, ...]."""
    mean, rstd = statistics(_grouped(input, num_groups), (2,), eps)
    return _broadcast(mean, input), _broadcast(rstd, input)


def group_linear(v: Tensor, rstd: Tensor, weight: Affine) -> Tensor:
    """A v = s v, and so is A^T v."""
    return v * group_diagonal(rstd, weight)


def group_inverse(z: Tensor, mean: Tensor, rstd: Tensor, weight: Affine, bias: Affine) -> Tensor:
    """(z - c) / s; 0 where s is dead."""
    return inverse(z, mean, rstd, _channels(weight, rstd), _channels(bias, rstd))


def group_vjp(
    w: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, num_groups: int | None, weight: Affine
) -> Tensor:
    """A^T w through the statistics, too."""
    g = w if weight is None else w * per_channel(weight, w.dim())
    parts = (g, (input - mean) * rstd, rstd.expand(input.shape))
    g, xhat, r = (_grouped(part, num_groups) for part in parts)
    return pull(g, xhat, r[..., :1], (2,)).reshape(input.shape)


def group_shift(mean: Tensor, rstd: Tensor, weight: Affine, bias: Affine) -> Tensor:
    """c = beta - mean s."""
    return shift(mean, rstd, _channels(weight, rstd), _channels(bias, rstd))


def group_diagonal(rstd: Tensor, weight: Affine) -> Tensor:
    """d = s."""
    return diagonal(rstd, _channels(weight, rstd))


def _channels(vector: Affine, like: Tensor) -> Affine:
    return None if vector is None else per_channel(vector, like.dim())


def _grouped(x: Tensor, num_groups: int | None) -> Tensor:
    """[N, C, ...] -> [N, groups, rest]."""
    return x.reshape(x.shape[0], num_groups or x.shape[1], -1)


def _broadcast(statistic: Tensor, like: Tensor) -> Tensor:
    """[N, groups, 1] -> [N, C, 1, ...]."""
    channels = statistic.expand(-1, -1, like.shape[1] // statistic.shape[1])
    return channels.reshape(like.shape[0], like.shape[1], *(1,) * (like.dim() - 2))


def adapt_instance(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """F.instance_norm's arguments; with running statistics it is a batch norm."""
    if not use_input_stats:
        found = adapt_batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
        return batch_norm, found
    return same(group_norm)(input, None, weight, bias, eps)


def adapt_instance_aten(input: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Any:
    """aten.instance_norm's arguments: another order, and one more."""
    return adapt_instance(input, mean, var, weight, bias, *rest[:3])


def from_instance(module: Any) -> Any:
    """The arguments of an nn.InstanceNormNd."""
    own = attributes(adapt_instance)(module)
    return adapt_instance(None, **own, use_input_stats=not module.track_running_stats)


_grouped_norm = same(group_norm, "cudnn_enabled")
GROUP_NORM = Rule(
    "group_norm",
    **roles(
        group_norm,
        group_linear,
        group_inverse,
        group_capture,
        group_shift,
        group_vjp,
        group_diagonal,
    ),
    captures=("mean", "rstd"),
    equation="Eq. 11, the sample's statistics",
    targets={
        **spellings(_grouped_norm, "group_norm"),
        F.instance_norm: adapt_instance,
        torch.ops.aten.instance_norm.default: adapt_instance_aten,
    },
    modules={
        nn.GroupNorm: from_module(_grouped_norm),
        **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), from_instance),
    },
)
