"""Does the map change with noise that a person doesn't see?  Max-sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Maps = Mapping[str, Tensor]
RADIUS, DRAWS = 0.02, 3


def max_sensitivity(
    explain: Callable[[Tensor, Tensor], Maps],
    images: Tensor,
    target: Tensor,
    maps: Maps,
    radius: float = RADIUS,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Tensor]:
    """max over noises of ||map(x + noise) - map(x)|| / ||map(x)||, layer -> [N].

    Noise is uniform in [-radius, radius], each value of the input by itself (Yeh et al.,
    NeurIPS 2019); a Monte Carlo estimate from below.

    Args:
        explain: (images, target) -> layer -> [N, h, w].
        images: [N, C, H, W].
        target: int64 [N].
        maps: of `explain` without noise.
        radius: in units of the network's input.
        draws: of the noise.
        seed: of the noise; all methods see the same.
    """
    generator = torch.Generator().manual_seed(seed)
    worst = {name: torch.zeros(len(images)) for name in maps}
    for _ in range(draws):
        noise = 2 * torch.rand(images.shape, generator=generator) - 1
        found = explain(images + radius * noise.to(images), target)
        for name, before in maps.items():
            change = (found[name] - before).flatten(1).norm(dim=1).cpu()
            size = before.flatten(1).norm(dim=1).cpu()
            ratio = change / torch.where(size > 0, size, 1.0)
            worst[name] = torch.maximum(worst[name], ratio.float())
    return worst
