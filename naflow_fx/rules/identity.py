"""Identity: y = x; dropout and stochastic depth in eval mode, and copies."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from naflow_fx.rules._spellings import plain, spellings
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


RULE = Rule(
    "identity",
    forward,
    linear,
    transpose,
    inverse,
    gating="carries",
    view=True,
    equation="identity",
    targets=spellings(
        adapt, "clone", "contiguous", "alias", "dropout", "dropout_", "dropout1d", "dropout2d",
        "dropout3d", "alpha_dropout", "alpha_dropout_", "feature_dropout", "feature_dropout_",
        "feature_alpha_dropout", *_torchvision("stochastic_depth"),
    ),
    modules=dict.fromkeys(
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
         nn.FeatureAlphaDropout, *_torchvision("StochasticDepth")),
        plain,
    ),
)  # fmt: skip
