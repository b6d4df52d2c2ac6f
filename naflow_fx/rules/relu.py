"""ReLU: y = m x, with the mask m = (x > 0) captured in the forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naflow_fx.rules._spellings import plain, spellings
from naflow_fx.rules.contract import Rule, same


def forward(input: Tensor) -> Tensor:
    """max(x, 0), elementwise."""
    return torch.relu(input)


def capture(input: Tensor) -> Tensor:
    """m, bool; x = 0 counts as off."""
    return input > 0


def linear(v: Tensor, mask: Tensor) -> Tensor:
    """A v = m v."""
    return v * mask


def transpose(w: Tensor, mask: Tensor) -> Tensor:
    """A^T w = m w."""
    return w * mask


def inverse(z: Tensor, mask: Tensor) -> Tensor:
    """z on the mask, 0 elsewhere: negative neurons are abandoned (Eq. 12)."""
    return z * mask


def off(mask: Tensor) -> Tensor:
    """Where x <= 0."""
    return ~mask


RULE = Rule(
    "relu",
    forward,
    linear,
    transpose,
    inverse,
    capture=capture,
    captures=("mask",),
    off=off,
    equation="Eq. 12",
    targets=spellings(same(forward, "inplace"), "relu", in_place=True),
    modules={nn.ReLU: plain},
)
