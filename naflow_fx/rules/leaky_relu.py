"""LeakyReLU and PReLU: y = a x with the captured slope a, 1 where x > 0, else the slope."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._gate import inverse as gate_inverse
from naflow_fx.rules._shapes import per_channel
from naflow_fx.rules.contract import Arguments, Rule, bind


def forward(input: Tensor, negative_slope: float | Tensor = 0.01) -> Tensor:
    """x where x > 0, slope * x elsewhere; the slope a number, or [1] or [C] (PReLU)."""
    if isinstance(negative_slope, Tensor):
        return F.prelu(input, negative_slope)
    return F.leaky_relu(input, negative_slope)


def capture(input: Tensor, negative_slope: float | Tensor) -> Tensor:
    """a, by the sign of x."""
    return torch.where(input > 0, torch.ones_like(input), _slope(negative_slope, input))


def linear(v: Tensor, slope: Tensor) -> Tensor:
    """A v = a v."""
    return v * slope


def transpose(w: Tensor, slope: Tensor) -> Tensor:
    """A^T w = a w."""
    return w * slope


def inverse(z: Tensor, slope: Tensor, damping: float) -> Tensor:
    """a z / (a^2 + damping max a^2); at damping 0 z / a, Eq. 13, and 0 where the slope is 0.

    Undamped, a slope of 0.01 would multiply noise by 100.
    """
    return gate_inverse(z, slope, damping)


def diagonal(slope: Tensor) -> Tensor:
    """d = a."""
    return slope


def _slope(negative_slope: float | Tensor, like: Tensor) -> Tensor:
    if not isinstance(negative_slope, Tensor):
        return torch.full_like(like, negative_slope)
    return per_channel(negative_slope.to(like.dtype), like.dim()).expand_as(like)


def adapt(input: Any, negative_slope: Any = 0.01, inplace: bool = False) -> Arguments:
    """leaky_relu's arguments."""
    return bind(forward, input, negative_slope)


def adapt_prelu(input: Any, weight: Any) -> Arguments:
    """prelu's arguments."""
    return bind(forward, input, weight)


def adapt_rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Arguments:  # fmt: skip
    """rrelu's arguments: in eval mode the slope is the middle one."""
    if training:
        raise ValueError("rrelu draws its slopes: pass training=self.training")
    return bind(forward, input, (lower + upper) / 2)


_aten = torch.ops.aten
RULE = Rule(
    "leaky_relu",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("slope",),
    diagonal=diagonal,
    equation="Eq. 13, damped",
    targets={
        F.leaky_relu: adapt, F.leaky_relu_: adapt, _aten.leaky_relu.default: adapt,
        _aten.leaky_relu_.default: adapt, F.prelu: adapt_prelu, torch.prelu: adapt_prelu,
        _aten.prelu.default: adapt_prelu, "prelu": adapt_prelu, F.rrelu: adapt_rrelu,
        torch.rrelu: adapt_rrelu, _aten.rrelu.default: adapt_rrelu,
    },
    modules={
        nn.LeakyReLU: lambda module: {"negative_slope": module.negative_slope},
        nn.RReLU: lambda module: {"negative_slope": (module.lower + module.upper) / 2},
        nn.PReLU: lambda module: {"negative_slope": module.weight},
    },
)  # fmt: skip
