"""Does the map lie where the object is?  Maps [N, H, W] against evidence, bool [N, H, W].

Maps of another size are brought to the evidence's, bilinearly; what is
negative counts as 0.  A map of zeros shows nothing: every figure is 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.errors import EvaluationError

FIXED = 0.2  # of the map's largest value, as CAM's authors take it
THRESHOLDS = tuple(i / 20 for i in range(1, 20))


def at_size(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps [N, h, w] at another size, bilinear, [N, *size], float32 at least, clipped at 0.

    What is not a number, or infinite, counts as 0.
    """
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    clean = torch.nan_to_num(wide, 0.0, 0.0, 0.0).clamp_min(0)
    if tuple(maps.shape[1:]) == tuple(size):
        return clean
    return F.interpolate(clean[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def energy(maps: Tensor, evidence: Tensor) -> Tensor:
    """sum of the map inside / sum of the map, [N] (Wang et al., Score-CAM, CVPRW 2020)."""
    maps, inside = _matched(maps, evidence)
    return _ratio((maps * inside).flatten(1).sum(1), maps.flatten(1).sum(1))


def pointing(maps: Tensor, evidence: Tensor, tolerance: int = 0) -> Tensor:
    """1 where the map's largest value lies in the evidence, else 0, [N] (Zhang et al., 2016).

    Args:
        maps: [N, h, w].
        evidence: bool [N, H, W].
        tolerance: pixels; a hit is as near as this, in both directions, to the evidence.  15 in
            the paper, for photos of any size.
    """
    maps, inside = _matched(maps, evidence)
    if tolerance:
        width = 2 * tolerance + 1
        inside = F.max_pool2d(inside[:, None], width, stride=1, padding=tolerance)[:, 0]
    flat = maps.flatten(1)
    largest = flat.amax(1, keepdim=True)
    ties = (flat == largest).to(flat)  # several largest values: the share of them inside
    return _ratio((ties * inside.flatten(1)).sum(1), ties.sum(1)) * (largest[:, 0] > 0)


def iou(maps: Tensor, evidence: Tensor, threshold: float = FIXED) -> Tensor:
    """Intersection over union of evidence and {map >= threshold * its largest value}, [N]."""
    return _ious(maps, evidence, (threshold,))[:, 0]


def best_iou(maps: Tensor, evidence: Tensor) -> Tensor:
    """The largest IoU over thresholds 0.05, 0.10, ... 0.95, each map its own, [N].

    An upper bound: who knows only the map can't choose so.
    """
    return _ious(maps, evidence, THRESHOLDS).amax(1)


def _ious(maps: Tensor, evidence: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    """IoU at each threshold, [N, T]; without sorting or a mask per threshold and image."""
    maps, inside = _matched(maps, evidence)
    flat, mask = maps.flatten(1), inside.flatten(1)
    largest = flat.amax(1, keepdim=True)
    columns = []
    for t in thresholds:
        chosen = ((flat >= t * largest) & (largest > 0)).to(flat)
        both = (chosen * mask).sum(1)
        columns.append(_ratio(both, chosen.sum(1) + mask.sum(1) - both))
    return torch.stack(columns, 1)


def _matched(maps: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Maps at the evidence's size, and the evidence as numbers."""
    if maps.ndim != 3 or evidence.ndim != 3 or len(maps) != len(evidence):
        raise EvaluationError(f"maps {list(maps.shape)} against evidence {list(evidence.shape)}: "
                              "wanted [N, h, w] and [N, H, W]")  # fmt: skip
    resized = at_size(maps, tuple(evidence.shape[1:]))
    return resized, evidence.to(resized)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 where whole is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
