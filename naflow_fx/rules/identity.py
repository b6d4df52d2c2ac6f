"""Identity: y = x; dropout and stochastic depth in eval mode, and copies."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naflow_fx.rules.contract import Arguments, Rule


def forward(input: Tensor) -> Tensor:
    """x."""
    return input


def linear(v: Tensor) -> Tensor:
    """A v = v."""
    return v


def transpose(w: Tensor) -> Tensor:
    """A^T w = w."""
    return w


def inverse(z: Tensor) -> Tensor:
    """z."""
    return z


def adapt(input: Any, *rest: Any, **options: Any) -> Arguments:
    """The first argument; probabilities and modes have no say in eval mode."""
    return {"input": input}


def _torchvision(name: str) -> tuple[Any, ...]:
    """An operator of torchvision; none where that is not installed, and no model can have it."""
    try:
        return (getattr(importlib.import_module("torchvision.ops"), name),)
    except ImportError:
        return ()


_aten = torch.ops.aten
_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout,
             F.feature_alpha_dropout)  # fmt: skip
RULE = Rule(
    "identity",
    forward,
    linear,
    transpose,
    inverse,
    gating="carries",
    view=True,
    equation="identity",
    targets=dict.fromkeys(
        (*_DROPOUTS, *_torchvision("stochastic_depth"), _aten.dropout.default,
         _aten.dropout_.default, _aten.feature_dropout.default,
         _aten.feature_dropout_.default, _aten.alpha_dropout_.default, _aten.alpha_dropout.default,
         _aten.clone.default, _aten.alias.default, _aten.contiguous.default,
         torch.clone, "clone", "contiguous"),
        adapt,
    ),
    modules=dict.fromkeys(
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
         nn.FeatureAlphaDropout, *_torchvision("StochasticDepth")),
        lambda module: {},
    ),
)  # fmt: skip
