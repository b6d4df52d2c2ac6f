"""Power with a constant exponent: y = f x^p; square root, square, reciprocal.  The tangent."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules._spellings import spellings
from naflow_fx.rules._tangent import clip, tangent
from naflow_fx.rules.contract import Arguments


def forward(input: Tensor, exponent: float | Tensor, factor: float | Tensor = 1.0) -> Tensor:
    """factor x^p, elementwise."""
    power = torch.pow(input, exponent)
    return power if isinstance(factor, float) and factor == 1 else factor * power


def slope(input: Tensor, exponent: float | Tensor, factor: float | Tensor) -> Tensor:
    """f'(x) = factor p x^(p - 1); 0 where that is infinite (a root at 0)."""
    tangent = factor * exponent * torch.pow(input, exponent - 1)
    return torch.where(tangent.isinf(), 0.0, tangent)


def inverse(
    z: Tensor,
    input: Tensor,
    output: Tensor,
    exponent: float | Tensor,
    factor: float | Tensor,
) -> Tensor:
    """(z / factor)^(1 / p) with the sign of the captured x; z clipped into the output's span."""
    size = torch.pow((clip(z, output) / factor).abs(), 1 / exponent)
    if not isinstance(exponent, Tensor) and exponent % 2 == 1:  # odd: z tells the sign
        size = size.nan_to_num(posinf=0.0) * torch.sign(clip(z, output) / factor)
        return size
    return torch.where(input < 0, -size, size)


def adapt(input: Any, exponent: Any) -> Arguments:
    """pow's arguments."""
    return {"input": input, "exponent": exponent}


def power(exponent: float) -> Callable[..., Arguments]:
    """The adapter for a function that is a power."""
    return lambda input: {"input": input, "exponent": exponent}


RULE = tangent(
    "pow",
    forward,
    slope,
    inverse,
    targets={
        **spellings(adapt, operator.pow, "pow.Tensor_Scalar", "pow.Tensor_Tensor"),
        **spellings(adapt, "pow_.Scalar", "pow_.Tensor"),
        **spellings(power(0.5), "sqrt", in_place=True),
        **spellings(power(-0.5), "rsqrt", in_place=True),
        **spellings(power(2), "square", in_place=True),
        **spellings(power(-1), "reciprocal", in_place=True),
    },
)
