"""Log of the sum of exponentials: y = sum(t x) + c, t = exp(x - y) captured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._functional import Dims, checked, inverse, reduction, shift, spread
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments


def forward(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log sum exp(x) along `dim`."""
    return torch.logsumexp(input, dim, keepdim)


def weights(input: Tensor, output: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """t = exp(x - y)."""
    return torch.exp(input - spread(output, input.dim(), dim, keepdim))


def adapt(input: Any, dim: Any, keepdim: bool = False) -> Arguments:
    """logsumexp's arguments."""
    return {"input": input, "dim": checked(dim), "keepdim": keepdim}


RULE = reduction(
    "logsumexp",
    forward,
    weights,
    inverse,
    "tangent, least squares",
    shift=shift,
    targets=spellings(adapt, "logsumexp"),
)
