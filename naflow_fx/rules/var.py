"""Variance and standard deviation along dimensions: y = sum(t x) + c, t the derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._functional import (
    Dims,
    checked,
    inverse,
    labels,
    linear,
    shift,
    spread,
    transpose,
)
from naflow_fx.rules.contract import Arguments, Rule


def forward(
    input: Tensor, dim: Dims, correction: float = 1, keepdim: bool = False, root: bool = False
) -> Tensor:
    """sum (x - mean)^2 / (n - correction) along `dim`; its square root if `root`."""
    function = torch.std if root else torch.var
    return function(input, dim, correction=correction, keepdim=keepdim)


def capture(
    input: Tensor, output: Tensor, dim: Dims, correction: float, keepdim: bool, root: bool
) -> Tensor:
    """t = 2 (x - mean) / (n - correction), divided by 2 y for the root."""
    count = math.prod(input.shape[d] for d in dim) - correction
    slope = (input - input.mean(dim, keepdim=True)) / count
    if not root:
        return 2 * slope
    y = spread(output, input, dim, keepdim)
    return torch.where(y > 0, slope / torch.where(y > 0, y, 1.0), 0.0)


def adapt(root: bool) -> Callable[..., Arguments]:
    """The adapter for var or std."""

    def arguments(
        input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
        correction: Any = None,
    ) -> Arguments:  # fmt: skip
        correction = float(unbiased) if correction is None else correction
        return {"input": input, "dim": checked(dim), "correction": correction,
                "keepdim": keepdim, "root": root}  # fmt: skip

    return arguments


_aten = torch.ops.aten
RULE = Rule(
    "var",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("weights",),
    shift=shift,
    labels=labels,
    equation="tangent, least squares",
    targets=dict.fromkeys(
        (torch.var, "var", _aten.var.dim, _aten.var.correction), adapt(root=False)
    )
    | dict.fromkeys((torch.std, "std", _aten.std.dim, _aten.std.correction), adapt(root=True)),
)
