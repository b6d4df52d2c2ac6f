"""Absolute value and bounded ReLUs: |x| = s x, and min(max(x, 0), b) = g x."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules import gates, tangents
from naflow_fx.rules._spellings import called, from_module, spellings
from naflow_fx.rules.contract import Rule, roles, same


def absolute(input: Tensor) -> Tensor:
    """|x|, elementwise."""
    return torch.abs(input)


def sign(input: Tensor) -> Tensor:
    """The sign s of x, 0 at x = 0."""
    return torch.sign(input)


def signed(v: Tensor, sign: Tensor) -> Tensor:
    """s v: A v, A^T v and A^+ v."""
    return v * sign


ABS = Rule(
    "abs",
    absolute,
    signed,
    signed,
    signed,
    capture=sign,
    captures=("sign",),
    equation="exact",
    **called(absolute, "abs", operator.abs),
)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """min(max(x, min_val), max_val), elementwise; ReLU6 among them."""
    return F.hardtanh(input, min_val, max_val)


def secant(input: Tensor, output: Tensor) -> Tensor:
    """g = y / x where x > 0, else 0, so that y = g x holds for saturated neurons too."""
    return output / input.clamp(min=torch.finfo(input.dtype).tiny)


def hardtanh_inverse(z: Tensor, gate: Tensor) -> Tensor:
    """z / g where x > 0, 0 elsewhere (Eq. 12 with the secant gate)."""
    return gates.quotient(z, gate)


def hardtanh_vjp(w: Tensor, input: Tensor, max_val: float) -> Tensor:
    """w where 0 < x < b: the true derivative."""
    slope: Tensor = torch.ops.aten.hardtanh_backward(w, input, 0, max_val)
    return slope


def adapt(input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Any:
    """hardtanh's arguments; where the bounds are not [0, b], it is `tangents.clamp`."""
    if any(not isinstance(x, (int, float, type(None))) for x in (min_val, max_val)):
        raise ValueError("clamp with bounds that are tensors")
    found = {"input": input, "min_val": min_val, "max_val": max_val}
    positive = min_val == 0 and max_val is not None and max_val > 0
    return found if positive else (tangents.clamp, found)


def adapt_clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """torch.clamp's arguments."""
    return adapt(input, min, max)


def adapt_clamp_max(input: Any, max: Any) -> Any:
    """torch.clamp_max's arguments."""
    return adapt(input, None, max)


HARDTANH = Rule(
    "hardtanh",
    **roles(hardtanh, gates.linear, hardtanh_inverse, hardtanh_vjp, gates.off),
    capture=secant,
    captures=("gate",),
    gating="squashes",
    equation="Eq. 12, secant gate",
    targets={
        **spellings(adapt, "hardtanh", in_place=True),
        **spellings(same(hardtanh, "inplace", min_val=0.0, max_val=6.0), "relu6", in_place=True),
        **spellings(adapt_clamp, "clamp", "clip", "clamp_min", in_place=True),
        **spellings(adapt_clamp_max, "clamp_max", in_place=True),
    },
    modules=dict.fromkeys((nn.Hardtanh, nn.ReLU6), from_module(adapt)),
)
