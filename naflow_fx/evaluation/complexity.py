"""How much does a map say?  Entropy and sparsity of maps [N, h, w], at their own size."""

from __future__ import annotations

import torch
from torch import Tensor

from naflow_fx.flow import measures


def entropy(maps: Tensor) -> Tensor:
    """Entropy of the map as a distribution over pixels, 0 to 1, [N] (Bhatt et al., IJCAI 2020).

    In units of a uniform map's, log(h w), so that layers of different size can be compared.  A map
    of zeros has none; here, where every photo counts, it counts as 1: it says nothing.
    """
    found = measures.entropy(torch.nan_to_num(maps.double(), 0.0, 0.0, 0.0))
    return torch.where(found.isnan(), 1.0, found)


def sparsity(maps: Tensor) -> Tensor:
    """Gini index of the map's values, 0 (uniform) to 1, [N] (Chalasani et al., ICML 2020)."""
    shares, empty = _shares(maps)
    count = shares.shape[1]
    place = torch.arange(1, count + 1, device=shares.device, dtype=shares.dtype)
    gini = ((2 * place - count - 1) * shares.sort(1).values).sum(1) / count
    return torch.where(empty, 0.0, gini)


def _shares(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's share of the map's sum, [N, h w], and which maps are empty, bool [N]."""
    flat = torch.nan_to_num(maps.flatten(1).clamp_min(0).double(), 0.0, 0.0, 0.0)
    total = flat.sum(1, keepdim=True)
    return flat / torch.where(total > 0, total, 1.0), total[:, 0] <= 0
