"""Change of the floating point type or memory layout: y = x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x as `dtype`; None: x itself."""
    return input if dtype is None else input.to(dtype)


def transpose(w: Tensor, input: Tensor) -> Tensor:
    """A^T w = w, as the input's type."""
    return w.to(input.dtype)


def to(dtype: torch.dtype) -> Callable[..., Arguments]:
    """The adapter for a method that is named after a type."""
    return lambda input, *rest, **options: {"input": input, "dtype": dtype}


def adapt(input: Any, *rest: Any, **options: Any) -> Arguments:
    """to's or type's arguments: a type, a device, a layout."""
    given = [*rest, *options.values()]
    dtypes = [x for x in given if isinstance(x, torch.dtype)]
    known = (torch.dtype, torch.device, torch.memory_format, torch.layout, str, bool, type(None))
    if any(not isinstance(x, known) for x in given):
        raise ValueError("a type taken from another tensor")
    if any(not dtype.is_floating_point for dtype in dtypes):
        raise ValueError("rounding to integers has no derivative")
    return {"input": input, "dtype": dtypes[0] if dtypes else None}


_aten = torch.ops.aten
RULE = Rule(
    "cast",
    forward,
    forward,
    transpose,
    transpose,
    gating="carries",
    view=True,
    equation="identity",
    targets={
        "float": to(torch.float32), "double": to(torch.float64), "half": to(torch.float16),
        "bfloat16": to(torch.bfloat16), "to": adapt, "type": adapt, _aten.to.dtype: adapt,
        _aten.to.dtype_layout: adapt, _aten.to.device: adapt, _aten._to_copy.default: adapt,
    },
)  # fmt: skip
