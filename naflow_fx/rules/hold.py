"""Hold: y = x, held constant in the derivative (the denominators of Eqs. 17 to 21)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from naflow_fx.rule import Arguments, Rule


def forward(input: Tensor) -> Tensor:
    """x, with no gradient."""
    return input.detach()


def linear(v: Tensor) -> Tensor:
    """A v = v."""
    return v


def transpose(w: Tensor) -> Tensor:
    """A^T w = w."""
    return w


def inverse(z: Tensor) -> Tensor:
    """z."""
    return z


def vjp(w: Tensor) -> Tensor:
    """0: what is held does not answer for the score."""
    return torch.zeros_like(w)


def adapt(input: Any) -> Arguments:
    """forward's own arguments."""
    return {"input": input}


RULE = Rule(
    "hold",
    forward,
    linear,
    transpose,
    inverse,
    vjp=vjp,
    equation="exact",
    targets={forward: adapt},
)
