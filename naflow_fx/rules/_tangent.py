"""What smooth elementwise functions share: captured, the tangent, y = t v + (f(x) - t x)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules.contract import Function, Rule


def linear(v: Tensor, tangent: Tensor) -> Tensor:
    """A v = f'(x) v."""
    return v * tangent


def transpose(w: Tensor, tangent: Tensor) -> Tensor:
    """A^T w = f'(x) w."""
    return w * tangent


def shift(input: Tensor, output: Tensor, tangent: Tensor) -> Tensor:
    """c = f(x) - f'(x) x."""
    return output - tangent * input


def clip(z: Tensor, output: Tensor) -> Tensor:
    """z within what the sample's captured output [N, ...] spans, where the inverse is defined."""
    dims = tuple(range(1, output.dim()))
    low, high = output.amin(dims, keepdim=True), output.amax(dims, keepdim=True)
    return torch.minimum(torch.maximum(z, low.to(z.dtype)), high.to(z.dtype))


def tangent(
    name: str, forward: Function, slope: Function, inverse: Function, **others: Any
) -> Rule:
    """The rule of y = f(x): ``slope`` is f'(x), ``inverse`` the inverse function, z clipped."""
    return Rule(
        name,
        forward,
        linear,
        transpose,
        inverse,
        capture=slope,
        captures=("tangent",),
        shift=shift,
        function_inverse=True,
        equation="inverse function",
        **others,
    )
