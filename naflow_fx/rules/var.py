"""Variance and standard deviation along dimensions: y = sum(t x) + c, t the derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._functional import Dims, checked, inverse, reduction, shift, spread
from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Arguments


def forward(
    input: Tensor, dim: Dims, correction: float = 1, keepdim: bool = False, root: bool = False
) -> Tensor:
    """sum (x - mean)^2 / (n - correction) along `dim`; its square root if `root`."""
    function = torch.std if root else torch.var
    return function(input, dim, correction=correction, keepdim=keepdim)


def weights(
    input: Tensor, output: Tensor, dim: Dims, correction: float, keepdim: bool, root: bool
) -> Tensor:
    """t = 2 (x - mean) / (n - correction), divided by 2 y for the root."""
    count = math.prod(input.shape[d] for d in dim) - correction
    slope = (input - input.mean(dim, keepdim=True)) / count
    if not root:
        return 2 * slope
    y = spread(output, input.dim(), dim, keepdim)
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


RULE = reduction(
    "var",
    forward,
    weights,
    inverse,
    "tangent, least squares",
    shift=shift,
    targets=spellings(adapt(root=False), "var.dim", "var.correction")
    | spellings(adapt(root=True), "std.dim", "std.correction"),
)
