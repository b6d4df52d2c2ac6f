"""Softplus: y = log(1 + exp(b x)) / b; log-sigmoid is -softplus(-x).  Captured, the tangent."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules._spellings import from_module, spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import Arguments, bind, same


def forward(input: Tensor, beta: float = 1.0, threshold: float = 20.0, sign: float = 1.0) -> Tensor:
    """s softplus(s x), elementwise, with a sign s of 1 or -1; linear where s b x > `threshold`."""
    return sign * F.softplus(sign * input, beta, threshold)


def slope(input: Tensor, beta: float, threshold: float, sign: float) -> Tensor:
    """f'(x) = sigmoid(s b x), 1 beyond the threshold."""
    x = sign * beta * input
    return torch.where(x > threshold, 1.0, torch.sigmoid(x))


def inverse(z: Tensor, output: Tensor, beta: float, threshold: float, sign: float) -> Tensor:
    """The inverse function, with z clipped into what the sample's captured output spans."""
    y = (sign * beta * clip(z, output)).clamp(min=torch.finfo(z.dtype).tiny)
    x = torch.where(y > threshold, y, y + torch.log(-torch.expm1(-y)))
    return sign * x / beta


def adapt_log_sigmoid(input: Any) -> Arguments:
    """logsigmoid's argument."""
    return bind(forward, input, threshold=100.0, sign=-1.0)


RULE = tangent(
    "softplus",
    forward,
    slope,
    inverse,
    targets=spellings(same(forward), "softplus")
    | spellings(adapt_log_sigmoid, "logsigmoid", "log_sigmoid"),
    modules={
        nn.Softplus: from_module(same(forward), "beta", "threshold"),
        nn.LogSigmoid: from_module(adapt_log_sigmoid),
    },
)
