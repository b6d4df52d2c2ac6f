"""Hold: y = x, held constant in the derivative: detach, and the denominators of Eqs. 17 to 21."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.rules import identity
from naflow_fx.rules._spellings import first, spellings
from naflow_fx.rules.contract import Rule


def forward(input: Tensor) -> Tensor:
    """x, with no gradient."""
    return input.detach()


def vjp(w: Tensor) -> Tensor:
    """0: what is held does not answer for the score."""
    return torch.zeros_like(w)


RULE = Rule(
    "hold",
    forward,
    identity.forward,
    identity.forward,
    identity.forward,
    vjp=vjp,
    gating="carries",
    equation="exact",
    targets=spellings(first, forward, "detach", "data", in_place=True),
)
