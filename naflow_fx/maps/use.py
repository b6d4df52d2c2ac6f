"""Which neurons take part (Fig. 3): small tensor functions that `count_use` puts into a graph."""

from __future__ import annotations

import torch
from torch import Tensor


def pattern(x: Tensor) -> Tensor:
    """1 where x is not 0, else 0, float32; masks and indices as they are."""
    return (x != 0).to(torch.float32) if x.is_floating_point() else x


def ones(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """1 for every neuron of one sample of a static shape, float32; takes no memory."""
    one = torch.ones((), device=device)
    return one.expand(tuple(1 if size == -1 else size for size in shape))


def everywhere(x: Tensor) -> Tensor:
    """1 for every neuron of x, float32."""
    return torch.ones_like(x, dtype=torch.float32)


def of_batch(one: Tensor, x: Tensor) -> Tensor:
    """What is known of one sample, for each sample of x."""
    return one.expand(x.shape)


def count(*parts: Tensor) -> Tensor:
    """How often each neuron is read: the readers' parts added up, whole numbers in float32."""
    total = parts[0].abs()  # signs that a rule's own code holds don't matter
    for part in parts[1:]:
        total = total + part.abs()
    return total


def live(*parts: Tensor) -> Tensor:
    """1 where a neuron is read at all, else 0, float32."""
    return count(*parts).clamp_(max=1)


def used(live: Tensor) -> Tensor:
    """The same as bool."""
    return live > 0


def whole(times: Tensor) -> Tensor:
    """The counts as int32."""
    return times.to(torch.int32)
