"""Which neurons take part (Fig. 3): small tensor functions that `count_use` puts into a graph."""

from __future__ import annotations

import torch
from torch import Tensor


def pattern(x: Tensor) -> Tensor:
    """1 where x is not 0, else 0, float32; masks and indices as they are."""
    return (x != 0).to(torch.float32) if x.is_floating_point() else x


def everywhere(x: Tensor) -> Tensor:
    """1 for every neuron of x, float32."""
    return torch.ones_like(x, dtype=torch.float32)


def count(*parts: Tensor) -> Tensor:
    """How often each neuron is read: the readers' parts added up, whole numbers in float32.

    Without signs that a rule's own code holds, and rounded: a convolution by transforms is not
    exact, even of zeros and ones.
    """
    total = parts[0].abs()
    for part in parts[1:]:
        total = total + part.abs()
    return total.round()


def live(times: Tensor) -> Tensor:
    """1 where a neuron is read at all, else 0, float32."""
    return (times > 0).to(torch.float32)


def used(times: Tensor) -> Tensor:
    """Whether a neuron is read at all, bool."""
    return times > 0


def whole(times: Tensor) -> Tensor:
    """The counts as int32."""
    return times.to(torch.int32)
