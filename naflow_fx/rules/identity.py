"""Identity: y = x; dropout and stochastic depth in eval mode, copies, casts."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.rules._spellings import first, from_module, spellings
from naflow_fx.rules.contract import Arguments, Function, Rule, roles


def forward(input: Tensor) -> Tensor:
    """x; A, A^T and A^+ are the same."""
    return input


def _torchvision(name: str) -> tuple[Any, ...]:
    """An operator of torchvision; none where that is not installed, and no model can have it."""
    try:
        return (getattr(importlib.import_module("torchvision.ops"), name),)
    except ImportError:
        return ()


RULE = Rule(
    "identity",
    **roles(forward),
    inverse=forward,
    gating="carries",
    view=True,
    equation="identity",
    targets=spellings(
        first, "clone", "contiguous", "alias", "dropout", "dropout_", "dropout1d", "dropout2d",
        "dropout3d", "alpha_dropout", "alpha_dropout_", "feature_dropout", "feature_dropout_",
        "feature_alpha_dropout", *_torchvision("stochastic_depth"),
    ),
    modules=dict.fromkeys(
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
         nn.FeatureAlphaDropout, *_torchvision("StochasticDepth")),
        from_module(first),
    ),
)  # fmt: skip


def cast(input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x as another floating point type; None: x itself, maybe in another memory layout."""
    return input if dtype is None else input.to(dtype)


def cast_transpose(w: Tensor, input: Tensor) -> Tensor:
    """A^T w = w, as the input's type."""
    return w.to(input.dtype)


def to(dtype: torch.dtype) -> Function:
    """The adapter for a method that is named after a type."""
    return lambda input, *rest, **options: {"input": input, "dtype": dtype}


def adapt_cast(input: Any, *rest: Any, **options: Any) -> Arguments:
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
_FLOATS = ("float", "double", "half", "bfloat16")  # a method and a type
CAST = Rule(
    "cast",
    **roles(cast, cast_transpose),
    inverse=cast_transpose,
    gating="carries",
    view=True,
    equation="identity",
    targets={
        **{name: to(getattr(torch, name)) for name in _FLOATS},
        **spellings(adapt_cast, "to.dtype", _aten.to.dtype_layout, _aten.to.device, "_to_copy"),
        "type": adapt_cast,
    },
)
