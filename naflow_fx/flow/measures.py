"""What one map says in a number, and how alike two maps are (docs/statistics.md).

Maps are [N, *S], not negative (what is negative counts as 0); every number is [N], NaN where it is
not defined: of a map that is zero everywhere or not finite, and of maps of a single position.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

POOLS: Any = (None, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


def entropy(maps: Tensor) -> Tensor:
    """-sum p log p / log(positions), p = map / sum: 1 evenly spread, 0 one spot.

    In the maps' dtype, at least float32 (Bhatt et al., IJCAI 2020, in units of a uniform map's).
    """
    values = wide(maps.detach()[:, None].flatten(1)).clamp_min(0)
    shares = values / values.sum(1, keepdim=True)
    found: Tensor = torch.special.entr(shares).sum(1)
    count = shares.shape[1]
    return found / math.log(count) if count > 1 else torch.full_like(found, torch.nan)


def wide(values: Tensor) -> Tensor:
    """`values` in at least float32, for sums and quotients of half types."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def scatter(maps: Tensor) -> Tensor:
    """Share of the map outside of its largest part above half the maximum: 0 one blob.

    A part is a connected set (neighbours share a face) of positions whose value is at least half
    of the map's largest; the largest part is the one with the highest sum.  float64, on the CPU.
    """
    from scipy import ndimage

    found = []
    for one in maps.detach().double().clamp_min(0).cpu().numpy():
        total = one.sum()
        if one.size < 2 or not 0 < total < math.inf:
            found.append(math.nan)
            continue
        parts, _ = ndimage.label(one >= one.max() / 2)  # 0: in none
        found.append(1 - np.bincount(parts.ravel(), one.ravel())[1:].max() / total)
    return torch.tensor(found, dtype=torch.float64)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation of two maps on the coarser one's grid, -1 to 1; sizes may differ.

    Each axis has the smaller of both lengths; the finer map is averaged over its cells.  NaN
    where one of them is constant, too.  float64.
    """
    rank = first.ndim - 1
    if second.ndim - 1 != rank or rank not in (1, 2, 3):
        return torch.full((len(first),), torch.nan, dtype=torch.float64)
    size = tuple(min(a, b) for a, b in zip(first.shape[1:], second.shape[1:], strict=True))
    both = (POOLS[rank](m.detach().double().clamp_min(0), size) for m in (first, second))
    return spearman(*both)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation over the positions of maps of one size; equal values share ranks.

    As Adebayo et al., NeurIPS 2018, compare maps.  float64; NaN where a map is constant, too.
    """
    a, b = (_centred_ranks(m) for m in (first, second))
    size = a.norm(dim=1) * b.norm(dim=1)
    known = (size > 0) & torch.isfinite(first.flatten(1).sum(1) + second.flatten(1).sum(1))
    return torch.where(known, (a * b).sum(1) / size, torch.nan)


def _centred_ranks(maps: Tensor) -> Tensor:
    """Ranks [N, positions] about their mean; equal values share their mean rank."""
    flat = maps.detach().flatten(1).double().contiguous()
    ordered = flat.sort(1).values.contiguous()
    low = torch.searchsorted(ordered, flat)
    high = torch.searchsorted(ordered, flat, right=True)
    ranks = (low + high - 1).double() / 2
    return ranks - ranks.mean(1, keepdim=True)
