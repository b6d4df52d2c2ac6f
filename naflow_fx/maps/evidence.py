"""What a value is worth to a decision: its first-order share of it (docs/method.md 7).

A decision u was led back to a value x as w = du / dx, held constant; x answers for sum w x.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def product(w: Tensor, x: Tensor | float) -> Tensor:
    """w x, broadcast; 0 where w is 0, whatever x is (an infinite border that no pool picks)."""
    return torch.where(w != 0, w * x, 0.0)


def worth(w: Tensor, x: Tensor | float) -> Tensor:
    """sum w x, a number: the share of x in the decision."""
    return product(w, x).sum()


def intercept(w: Tensor, y: Tensor, parts: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """sum w y - sum of all sum v x, v = dy/dx^T w: the constant of an operator's tangent.

    0 for a homogeneous operator; 6 w for a neuron that ReLU6 cut off at 6.
    """
    total = worth(w, y)
    for part, x in zip(parts, inputs, strict=True):
        total = total - worth(part, x)
    return total
