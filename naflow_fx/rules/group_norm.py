"""Group norm and instance norm: y = s x + c with the sample's mean and scale captured."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules import _statistics, batch_norm
from naflow_fx.rules._shapes import per_channel
from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules.contract import Arguments, Rule


def forward(
    input: Tensor,
    num_groups: int | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta; statistics over a group of channels and space.

    `num_groups` None: every channel is a group (instance norm).
    """
    return F.group_norm(input, num_groups or input.shape[1], weight, bias, eps)


def capture(input: Tensor, num_groups: int | None, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps), [N, C, 1, ...]."""
    x = _grouped(input, num_groups)
    var, mean = torch.var_mean(x, (2,), correction=0, keepdim=True)
    return _spread(mean, input), _spread(torch.rsqrt(var + eps), input)


def linear(v: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    """A v = s v."""
    return v * diagonal(rstd, weight)


def transpose(w: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
    """A^T w = s w."""
    return w * diagonal(rstd, weight)


def inverse(
    z: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """(z - c) / s; 0 where s is dead."""
    return _statistics.undo(z, diagonal(rstd, weight), shift(mean, rstd, weight, bias))


def vjp(
    w: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    num_groups: int | None,
    weight: Tensor | None,
) -> Tensor:
    """A^T w through the statistics, too."""
    g = w if weight is None else w * per_channel(weight, w.dim())
    xhat = ((input - mean) * rstd).expand(input.shape)
    r = _grouped(rstd.expand(input.shape), num_groups)[..., :1]
    pulled = _statistics.pull(_grouped(g, num_groups), _grouped(xhat, num_groups), r, (2,))
    return pulled.reshape(input.shape)


def shift(mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """c = beta - mean s."""
    return _statistics.offset(mean, rstd, _channels(weight, rstd), _channels(bias, rstd))


def diagonal(rstd: Tensor, weight: Tensor | None) -> Tensor:
    """d = s."""
    return _statistics.scale(rstd, _channels(weight, rstd))


def _channels(vector: Tensor | None, like: Tensor) -> Tensor | None:
    return None if vector is None else per_channel(vector, like.dim())


def _grouped(x: Tensor, num_groups: int | None) -> Tensor:
    """[N, C, ...] -> [N, groups, rest]."""
    return x.reshape(x.shape[0], num_groups or x.shape[1], -1)


def _spread(statistic: Tensor, like: Tensor) -> Tensor:
    """[N, groups, 1] -> [N, C, 1, ...]."""
    channels = statistic.expand(-1, -1, like.shape[1] // statistic.shape[1])
    return channels.reshape(like.shape[0], like.shape[1], *(1,) * (like.dim() - 2))


def adapt(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Arguments:  # fmt: skip
    """F.group_norm's arguments."""
    return {"input": input, "num_groups": num_groups, "weight": weight, "bias": bias, "eps": eps}


def adapt_instance(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """F.instance_norm's arguments; with running statistics it is a batch norm."""
    if not use_input_stats:
        found = batch_norm.adapt(input, running_mean, running_var, weight, bias, eps=eps)
        return batch_norm.forward, found
    return adapt(input, None, weight, bias, eps)  # type: ignore[arg-type]


def adapt_instance_aten(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    use_input_stats: bool, momentum: float, eps: float, *rest: Any,
) -> Any:  # fmt: skip
    """aten.instance_norm's arguments (another order)."""
    return adapt_instance(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def from_instance(module: Any) -> Any:
    """The arguments of an nn.InstanceNormNd."""
    return adapt_instance(
        None, module.running_mean, module.running_var, module.weight, module.bias,
        not module.track_running_stats, module.momentum, module.eps,
    )  # fmt: skip


RULE = Rule(
    "group_norm",
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
    targets={
        **spellings(adapt, "group_norm"),
        F.instance_norm: adapt_instance,
        torch.ops.aten.instance_norm.default: adapt_instance_aten,
    },
    modules={
        nn.GroupNorm: from_module(adapt, "num_groups", "weight", "bias", "eps"),
        **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), from_instance),
    },
)
