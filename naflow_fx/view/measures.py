"""Numbers along depth: how spread out a map is, how many neurons were abandoned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from naflow_fx.flow.data import FlowData


def entropy(maps: Tensor) -> Tensor:
    """-sum p log p / log(positions), p = map / sum: [N, ...] -> [N], 1 evenly spread, 0 one spot.

    In the maps' dtype, at least float32. NaN where it is not defined: of a map that is zero
    everywhere or not finite, and of maps of a single position.
    """
    values = maps.detach().reshape(len(maps), -1).clamp_min(0)
    shares = values.to(torch.promote_types(values.dtype, torch.float32))
    shares = shares / shares.sum(1, keepdim=True)
    found: Tensor = torch.special.entr(shares).sum(1)
    count = shares.shape[1]
    return found / math.log(count) if count > 1 else torch.full_like(found, torch.nan)


def along_depth(flow: FlowData) -> dict[str, dict[str, list[float | None]]]:
    """Measure -> call site -> one number an image, None where there is none.

    "entropy" of the maps, "residual", "norm_ratio", "sigma_max", and "abandoned" (the share of
    neurons that don't reach the feature node) of a flow that was made with ``keep=("used",)``.
    """
    found = {
        "entropy": {name: entropy(maps) for name, maps in flow.maps.items()},
        "residual": flow.residual,
        "norm_ratio": flow.norm_ratio,
        "sigma_max": flow.sigma_max,
        "abandoned": getattr(flow, "abandoned", {}),
    }
    return {
        measure: {name: _numbers(values[name]) for name in flow.maps if name in values}
        for measure, values in found.items()
    }


def _numbers(values: Tensor) -> list[float | None]:
    """[N] as numbers that JSON can hold."""
    plain = values.detach().double().cpu().tolist()
    return [value if math.isfinite(value) else None for value in plain]
