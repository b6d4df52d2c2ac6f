"""Absolute value: y = s x with the sign s captured, 0 at x = 0."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from naflow_fx.rules._spellings import spellings
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """|x|, elementwise."""
    return torch.abs(input)


def capture(input: Tensor) -> Tensor:
    """s = sign(x)."""
    return torch.sign(input)


def linear(v: Tensor, sign: Tensor) -> Tensor:
    """A v = s v."""
    return v * sign


def transpose(w: Tensor, sign: Tensor) -> Tensor:
    """A^T w = s w."""
    return w * sign


def inverse(z: Tensor, sign: Tensor) -> Tensor:
    """s z, which is A^+ z."""
    return z * sign


RULE = Rule(
    "abs",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("sign",),
    equation="exact",
    targets=spellings(same(forward), "abs", operator.abs, in_place=True),
)
